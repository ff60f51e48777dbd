"""The passes of a layer: their names, styles, and what a document says of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.step import MeasuredLayer, PlannedLayer
from alexsim.network.counts import PASSES

Clock = Literal["measured", "predicted"]

NAMES = dict(zip(PASSES, ("forward", "input gradient", "weight gradient", "update"), strict=True))
HUES = {
    "forward": "blue",
    "grad_input": "teal",
    "grad_weight": "orange",
    "update": "purple",
    "exchange": "pink",
    "all_reduce": "red",
    "collective": "olive",
    "upload": "grey",
}
"""By what a device does."""
HATCHED = ("grad_input",)
"""Told from its neighbours without colours too."""


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


def passes_of(document: PlanDocument) -> Iterator[Pass]:
    """Every pass of every layer, in the network's order."""
    for layer in document.layers:
        flop = {
            "forward": layer.flop,
            "grad_input": layer.grad_input_flop,
            "grad_weight": layer.grad_weight_flop,
        }
        for name in PASSES:
            if name in layer.bytes_by_pass:
                yield Pass(
                    layer=layer.name,
                    name=name,
                    flop=flop.get(name) or layer.elementwise_flop_by_pass.get(name, 0),
                    moved_bytes=layer.bytes_by_pass[name],
                    measured_s=pass_s(layer, "measured", name),
                    predicted_s=pass_s(layer, "predicted", name) or 0.0,
                )


def pass_s(layer: PlannedLayer, clock: Clock, name: str) -> float | None:
    """Seconds of a layer's pass; None where it was not timed."""
    if clock == "predicted":
        return layer.predicted.get(f"{name}_s")
    return layer.measured.get(f"{name}_s") if isinstance(layer, MeasuredLayer) else None


def layer_s(layer: PlannedLayer, clock: Clock) -> float:
    """Seconds of a layer, all passes."""
    return sum(pass_s(layer, clock, name) or 0.0 for name in PASSES)


def clocks_of(document: PlanDocument) -> tuple[Clock, ...]:
    """Whose times a document has; those of this machine first."""
    return ("measured", "predicted") if isinstance(document, ProfileDocument) else ("predicted",)


def timed_s(document: PlanDocument, clock: Clock) -> float:
    """The step that layers' times are shares of."""
    if clock == "measured" and isinstance(document, ProfileDocument):
        return document.timed_step_s
    return document.predicted_step_s
