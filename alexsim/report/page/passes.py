"""The passes of a layer: their names, styles, and what a document says of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alexsim.report.page.elements import Key

PASSES = ("forward", "grad_input", "grad_weight", "update")
NAMES = {
    "forward": "forward",
    "grad_input": "input gradient",
    "grad_weight": "weight gradient",
    "update": "update",
}
SHAPES = {
    "forward": "circle",
    "grad_input": "triangle",
    "grad_weight": "square",
    "update": "diamond",
}
HATCHED = ("grad_input",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass of one layer, over the whole batch."""

    layer: str
    name: str
    flop: int
    """Of multiply-adds, and where there are none, of operations on elements."""
    moved_bytes: int
    measured_s: float | None
    predicted_s: float

    @property
    def title(self) -> str:
        """Layer and pass."""
        return f"{self.layer} {NAMES[self.name]}"


def passes_of(document: dict[str, Any]) -> Iterator[Pass]:
    """Every pass of every layer, in the network's order."""
    for layer in document["layers"]:
        elementwise = layer.get("elementwise_flop_by_pass") or {}
        flop = {
            "forward": layer["flop"],
            "grad_input": layer["grad_input_flop"],
            "grad_weight": layer["grad_weight_flop"],
        }
        for name in PASSES:
            if name not in layer["bytes_by_pass"]:
                continue
            yield Pass(
                layer=layer["name"],
                name=name,
                flop=flop.get(name) or elementwise.get(name, 0),
                moved_bytes=layer["bytes_by_pass"][name],
                measured_s=layer.get("measured", {}).get(f"{name}_s"),
                predicted_s=layer["predicted"].get(f"{name}_s", 0.0),
            )


def seconds_of(layer: dict[str, Any], which: str) -> float:
    """``measured`` or ``predicted`` seconds of a layer, all passes."""
    return sum(layer[which].get(f"{name}_s") or 0.0 for name in PASSES)


def pass_keys() -> tuple[Key, ...]:
    """A legend of bars."""
    return tuple(Key(style=name, name=NAMES[name], hatched=name in HATCHED) for name in PASSES)
