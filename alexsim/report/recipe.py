"""A recipe's stages as a terminal table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from alexsim.recipe.stages import StageTimes
from alexsim.report.tables import plain_table
from alexsim.units import MIB


def stages_table(stages: Sequence[StageTimes]) -> RenderableType:
    """Days per stage, and what frozen layers save."""
    out = plain_table(
        "The recipe, stage by stage",
        "epochs", "rate", "biases", "frozen", "ms/step", "MiB, GPU 0", "days",
    )  # fmt: skip
    for one in stages:
        first = one.stage.from_epoch
        rates = [f"{one.stage.weight_rate:g}"]
        rates += [f"{layer} {rate:g}" for layer, rate in one.stage.layer_rates.items()]
        out.add_row(
            f"{first} to {first + one.epochs - 1}",
            ", ".join(rates),
            f"{one.stage.bias_rate:g}",
            ", ".join(one.stage.frozen),
            f"{1e3 * one.simulation.step_s:,.1f}",
            f"{one.simulation.devices[0].memory_bytes / MIB:,.1f}",
            f"{one.days:.2f}",
        )
    out.add_section()
    out.add_row(
        str(sum(one.epochs for one in stages)), "", "", "", "", "",
        f"{sum(one.days for one in stages):.2f}",
    )  # fmt: skip
    return out
