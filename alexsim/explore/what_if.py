"""What if one thing were other: a change of a step as it is written, and what it changes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from alexsim.errors import AlexsimError, known_as, unknown
from alexsim.explore.axes import choice_of
from alexsim.explore.sweep import AXES
from alexsim.machine.machine import NUMBERS
from alexsim.network.layers import Operator
from alexsim.network.layers.kinds import kind_words
from alexsim.network.network import Network
from alexsim.plan.plan import PASS_OF
from alexsim.plan.precision import half_by_rule
from alexsim.simulate.simulation import DeviceTimes, Simulation

PASSES = tuple(dict.fromkeys(PASS_OF.values()))
CHOICES = tuple(axis for axis in AXES if axis != "net")
WORDS: Mapping[str, Mapping[str, Any]] = {
    "fuse": {"fuse": True},
    "overlap": {"schedule": "overlap"},
}
"""Changes that need no value."""
_FORMS = "fuse, overlap, conv2.forward=2x, precision=fp16:conv*, NAME=VALUE as in batch=256"
_TIMES = re.compile(r"([0-9]*\.?[0-9]+)x")
_LEAST, _MOST = 1e-3, 1e3
"""How many times as fast something may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a step."""

    text: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    """Choices of the plan and the machine by name, as ``alexsim simulate`` has them."""
    number: str = ""
    """A number of the machine: ``device.clock_mhz=1700``."""
    faster: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """As ``Timer`` has it."""
    half_layers: frozenset[str] | None = None
    """As ``PlanSpec`` has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A part of the first device's step, before and after a change."""

    part: str
    before_s: float
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A step with one change, and a whole training at its pace."""

    change: str
    simulation: Simulation
    days: float
    ratio: float
    """Of the days, to those without the change."""
    moved: tuple[Moved, ...]
    """What changed most comes first; what did not is left out."""

    @property
    def beyond_peaks_s(self) -> float:
        """Seconds by which the first device's ops are shorter than its peaks, of arithmetic and of
        memory, allow: no kernel is so fast."""
        name = self.simulation.devices[0].name
        ops = (op for op in self.simulation.ops if op.device == name)
        return sum(max(0.0, op.least_s - op.seconds) for op in ops)


def parse_change(text: str, network: Network) -> Change:
    """A change as it is written.

    ``fuse`` and ``overlap``; ``conv2.forward=2x`` or, of all passes, ``conv2=1.5x``: kernels so
    many times as fast, with ``*`` in names; ``precision=fp16:conv*``: the products of these layers
    alone in half precision; a choice of the step or a number of the machine.

    Raises:
        AlexsimError: it is none of these, or names what is not there.
    """
    if text in WORDS:
        return Change(text=text, choices=WORDS[text])
    name, _, value = text.partition("=")
    if not name or not value:
        raise AlexsimError(f"must be one of {_FORMS}; got {text!r}")
    word, colon, pattern = value.partition(":")
    if name == "precision" and colon:
        return _half(text, word, pattern, network)
    if axis := known_as(name, CHOICES):
        return Change(text=text, choices={axis.replace("-", "_"): choice_of(axis, value)})
    names = tuple(layer.name for layer in network.layers)
    if times := _TIMES.fullmatch(value):
        if not _LEAST <= (fast := float(times[1])) <= _MOST:
            raise AlexsimError(f"{name} must be {_LEAST:g}x to {_MOST:g}x as fast, got {value}")
        return Change(text=text, faster=dict.fromkeys(_passes(name, names), fast))
    if _matching(name, names) or _matching(name.rpartition(".")[0], names):
        raise AlexsimError(f"{name} must be a number of times as fast, as in 2x; got {value!r}")
    if "." in name or name in NUMBERS:
        return Change(text=text, number=text)
    raise AlexsimError(unknown("change", name, (*WORDS, *CHOICES, "device.clock_mhz", "conv2=2x")))


def _half(text: str, word: str, pattern: str, network: Network) -> Change:
    if word != "fp16":
        raise AlexsimError(f"of some layers' products precision must be fp16, got {word!r}")
    layers = half_by_rule(network)
    if not (matching := _matching(pattern, layers)):
        raise AlexsimError(unknown("layer of products", pattern, layers))
    return Change(text=text, choices={"precision": "amp"}, half_layers=frozenset(matching))


def _passes(name: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Layers and passes that a name means: ``conv2.forward``, ``conv*``, ``*.grad_weight``."""
    layers, _, pass_name = name.rpartition(".")
    if pass_name in PASSES and (matching := _matching(layers, names)):
        return [(layer, pass_name) for layer in matching]
    if matching := _matching(name, names):
        return [(layer, each) for layer in matching for each in PASSES]
    if _matching(layers, names):
        raise AlexsimError(unknown("pass", pass_name, PASSES))
    raise AlexsimError(unknown("layer", layers if pass_name in PASSES else name, names))


def _matching(pattern: str, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if fnmatchcase(name.casefold(), pattern.casefold())]


def parts_s(simulation: Simulation, network: Network) -> dict[str, float]:
    """Seconds of the first device's step by kind of layer, and what it waits for."""
    device = simulation.devices[0]
    kinds = kinds_of(network)
    seconds: dict[str, float] = defaultdict(float)
    for layer in simulation.layers:
        if layer.device == device.name:
            seconds[kinds[layer.name]] += layer.total_s
    return seconds | waits_s(device)


def kinds_of(network: Network) -> dict[str, str]:
    """Layers by what they are summed with; operators of a PyTorch module by their names there."""
    return {
        layer.name: layer.target
        if isinstance(layer, Operator)
        else kind_words(type(layer).__name__).group
        for layer in network.layers
    }


def waits_s(device: DeviceTimes) -> dict[str, float]:
    """Seconds in which a device computes nothing."""
    return {
        "exchange, exposed": device.exposed_exchange_s,
        "all-reduce, exposed": device.exposed_all_reduce_s,
        "upload, exposed": device.exposed_upload_s,
        "idle": device.idle_s,
    }


def what_if(
    change: str, before: tuple[Simulation, float], after: tuple[Simulation, float], network: Network
) -> WhatIf:
    """A change beside the step without it; both with the days of a training."""
    parts = [parts_s(simulation, network) for simulation, _ in (before, after)]
    moved = [
        Moved(part=name, before_s=parts[0].get(name, 0.0), after_s=parts[1].get(name, 0.0))
        for name in dict.fromkeys((*parts[0], *parts[1]))
    ]
    least = 1e-6 * before[0].step_s
    return WhatIf(
        change=change,
        simulation=after[0],
        days=after[1],
        ratio=after[1] / before[1],
        moved=tuple(
            part
            for part in sorted(moved, key=lambda part: -abs(part.after_s - part.before_s))
            if abs(part.after_s - part.before_s) > least
        ),
    )
