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
    for times in stages:
        first = times.stage.from_epoch
        rates = [f"{times.stage.weight_rate:g}"]
        rates += [f"{layer} {rate:g}" for layer, rate in times.stage.layer_rates.items()]
        out.add_row(
            f"{first} to {first + times.epochs - 1}",
            ", ".join(rates),
            f"{times.stage.bias_rate:g}",
            ", ".join(times.stage.frozen),
            f"{1e3 * times.simulation.step_s:,.1f}",
            f"{times.simulation.devices[0].memory_bytes / MIB:,.1f}",
            f"{times.days:.2f}",
        )
    out.add_section()
    out.add_row(
        str(sum(times.epochs for times in stages)), "", "", "", "", "",
        f"{sum(times.days for times in stages):.2f}",
    )  # fmt: skip
    return out
