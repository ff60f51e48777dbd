"""Whether a JSON document has what the page reads: the first thing that is amiss, in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexsim.errors import RunError
from alexsim.strict_json import json_value

NUMBER = (int, float)
MAYBE = (int, float, type(None))
"""A number, or null."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a test on held-out images says: NaN where the network puts that out. A training step's
    loss is never NaN: there a run ends."""


@dataclass(frozen=True, slots=True)
class Each:
    """An object whose keys are anything and whose values all have one shape."""

    shape: Any


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be missing or null."""

    shape: Any


_SPANS = [
    {"id": str, "device": str, "queue": str, "start_s": NUMBER, "end_s": NUMBER}
    | dict.fromkeys(("activity", "kind", "layer", "exchange"), Optional(str))
    | {"device_index": Optional(int)}
]
_LAYER = {
    "name": str,
    "kind": str,
    "shape": [int],
    "parameters": int,
    "flop": int,
    "grad_input_flop": int,
    "grad_weight_flop": int,
    "elementwise_flop": int,
    "elementwise_flop_by_pass": Optional(Each(int)),
    "bytes": int,
    "bytes_by_pass": Each(int),
    "memory_bytes": Each(int),
    "predicted": Each(NUMBER),
    "predicted_limit": Each(str),
}
_DOCUMENT = {
    "network": str,
    "batch_size": int,
    "policy": str,
    "schedule": str,
    "optimizer": Optional(str),
    "machine": str,
    "library": str,
    "predicted_step_s": NUMBER,
    "predicted_step_s_interval": [NUMBER],
    "predicted_parts": Optional({"text": str}),
    "device_memory_bytes": Optional(int),
    "ceilings": {"flop_per_s": NUMBER, "bytes_per_s": NUMBER},
    "layers": [_LAYER],
    "memory": {
        "held": [{"devices": str, "planned_bytes": int, "measured_bytes": int}],
        "devices": [
            {
                "name": str,
                "planned_bytes": int,
                "by_category": Each(int),
                "peak_op": str,
                "alive_at_peak": [
                    {"name": str, "label": Optional(str), "category": str, "bytes": int}
                ],
                "timeline": [{"op": str, "by_category": Each(int)}],
            }
        ],
    },
    "exchanges": [
        {
            "name": str,
            "label": Optional(str),
            "source": str,
            "target": str,
            "bytes": int,
            "predicted_s": MAYBE,
        }
    ],
    "spans": {"simulated": _SPANS},
}
SAMPLE = {
    "time_s": NUMBER,
    "card": int,
    "utilisation": MAYBE,
    "memory_bytes": MAYBE,
    "power_w": MAYBE,
    "sm_mhz": MAYBE,
    "memory_mhz": MAYBE,
    "pcie_sent_bytes_per_s": MAYBE,
    "pcie_received_bytes_per_s": MAYBE,
}
_MEASURED = {
    "where": str,
    "rounds": int,
    "step_s": NUMBER,
    "step_s_interval": [NUMBER],
    "timed_step_s": NUMBER,
    "transfers_s": NUMBER,
    "rest_s": NUMBER,
    "layers": [
        {
            "measured": Each(MAYBE),
            "measured_interval": Each([NUMBER]),
            "ceiling_share": MAYBE,
            "limit": Each(str),
        }
    ],
    "exchanges": [{"measured_s": MAYBE}],
    "telemetry": Optional({"cards": [str], "why": str, "samples": [SAMPLE]}),
    "spans": {"measured": _SPANS},
}
CONFIG = {
    "settings": {
        "network": str,
        "batch_size": int,
        "gpus": int,
        "policy": str,
        "schedule": str,
        "budget_bytes": int,
        "steps": int,
        "recipe": Optional(
            {
                "title": str,
                "optimizer": Optional(str),
                "stages": [{"from_epoch": int, "weight_rate": NUMBER, "bias_rate": NUMBER}],
            }
        ),
    },
    "versions": Each(str),
}
METRIC = {
    "step": int,
    "loss": NUMBER,
    "top1": NUMBER,
    "top5": NUMBER,
    "step_s": NUMBER,
    "data_wait_s": NUMBER,
}
CHECKS = ("validation", "held_out")
"""Keys of lines that tell of images the run never trained on: on the way, and at its end."""
CHECK = {"loss": Score(), "top1": Score(), "top5": Score()}


def parsed(text: str, where: str) -> Any:
    """A JSON text.

    Raises:
        RunError: it is damaged.
    """
    try:
        return json_value(text)
    except ValueError as error:
        raise RunError(f"{where} is damaged: {error}") from error


def check_document(document: Any, where: str) -> None:
    """Check a profile document, and a plan's where it says nothing of a measurement."""
    check(document, _DOCUMENT, where)
    if "step_s" in document:
        check(document, _MEASURED, where)


def check(found: Any, shape: Any, where: str, at: str = "") -> None:
    """Compare with a shape: types, lists of one shape, objects with at least these keys.

    Raises:
        RunError: something is missing or of another kind.
    """
    if isinstance(shape, Score):
        right = isinstance(found, int | float) and not isinstance(found, bool)
        _expect(right, where, at, "a number")
    elif isinstance(shape, Optional):
        if found is not None:
            check(found, shape.shape, where, at)
    elif isinstance(shape, Each):
        _expect(isinstance(found, dict), where, at, "an object")
        for key, value in found.items():
            check(value, shape.shape, where, f"{at}.{key}")
    elif isinstance(shape, Mapping):
        _expect(isinstance(found, dict), where, at, "an object")
        for key, inner in shape.items():
            missing = key not in found and not isinstance(inner, Optional)
            _expect(not missing, where, f"{at}.{key}", "given")
            check(found.get(key), inner, where, f"{at}.{key}")
    elif isinstance(shape, list):
        _expect(isinstance(found, list), where, at, "a list")
        for index, value in enumerate(found):
            check(value, shape[0], where, f"{at}[{index}]")
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
        # JSON's true is a Python int.
        right = isinstance(found, kinds) and not isinstance(found, bool)
        if isinstance(found, float) and not math.isfinite(found):
            name = "NaN" if math.isnan(found) else "an infinity"
            raise RunError(f"{where} is damaged: {at.removeprefix('.')}: {name} is no number")
        _expect(right, where, at, " or ".join(kind.__name__ for kind in kinds))


def _expect(right: bool, where: str, at: str, what: str) -> None:
    if not right:
        place = at.removeprefix(".") or "it"
        raise RunError(f"{where} is no document of this version: {place} must be {what}")
