"""What a step would gain: tables of elasticities and of changes, within 80 columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.explore.what_if import PASSES, Moved, WhatIf
from alexsim.network.network import Network
from alexsim.recipe.stages import Training
from alexsim.report.tables import milliseconds, plain_table
from alexsim.simulate.simulation import Simulation
from alexsim.trace import Activity

ACTIVITIES: dict[Activity, str] = {
    "exchange": "exchange",
    "all_reduce": "all-reduce",
    "upload": "upload",
    "barrier": "barriers",
    "host": "data path",
}
"""Activities that do not compute."""
_LEAST = 5e-4
"""Shares of a step below it have no cell of the table."""


def days_text(days: float) -> str:
    """Days to as many digits as matter."""
    return f"{days:,.0f}" if days >= 10 else f"{days:.2g}"


def what_if_table(
    changes: Sequence[WhatIf], simulation: Simulation, training: Training
) -> RenderableType:
    """Every change beside the step as it is."""
    device = simulation.devices[0].name
    steps = (simulation, *(change.simulation for change in changes))
    gpus = ["GPUs"] if len({step.devices_count for step in steps}) > 1 else []

    def count(step: Simulation) -> list[str]:
        return [str(step.devices_count)] if gpus else []

    out = plain_table(
        "What if: one change each, beside the step as it is",
        "change", *gpus, "step ms", "days", "faster", f"what moves most on {device}, ms",
    )  # fmt: skip
    out.columns[-1].justify = "left"
    out.add_row(
        "none", *count(simulation), milliseconds(simulation.step_s), f"{training.days:.3g}", "", ""
    )
    notes = []
    for change in changes:
        out.add_row(
            change.change,
            *count(change.simulation),
            milliseconds(change.simulation.step_s),
            f"{change.days:.3g}",
            f"{1 / change.ratio:.2f}x",
            _moved(change.moved),
        )
        if (beyond_s := change.beyond_peaks_s) > max(5e-5, _LEAST * simulation.step_s):
            beyond = f"{milliseconds(beyond_s)} ms less than the card's peaks allow."
            notes.append(f"{change.change}: {beyond}")
        if not change.simulation.fits:
            notes.append(f"{change.change}: does not fit the card's memory.")
    return Group(out, *(Text(note) for note in notes))


def _moved(parts: Sequence[Moved]) -> str:
    if not parts:
        return ""
    part = parts[0]
    name = part.part.partition(",")[0]
    return f"{name} {milliseconds(part.before_s)} to {milliseconds(part.after_s)}"


def elasticities_table(simulation: Simulation, network: Network) -> RenderableType:
    """Layers in their order, by pass; then transfers and the data path."""
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    for each in simulation.elasticities:
        shares[each.part][each.pass_name] = each.share
    out = plain_table(
        "Elasticities: % of the step per 1 % less time",
        "part", "forward", "input gr.", "weight gr.", "update", "all",
    )  # fmt: skip
    layers = [layer.name for layer in network.layers if layer.name in shares]
    small = 0.0
    for part in (*layers, *(part for part in shares if part not in layers)):
        whole = sum(shares[part].values())
        if abs(whole) < _LEAST:
            small += whole
            continue
        cells = [_percent(shares[part].get(name, 0.0)) for name in PASSES]
        out.add_row(_NAMES.get(part, part), *cells, _percent(whole))
    if small > _LEAST:
        out.add_row("others", *[""] * len(PASSES), _percent(small))
    return out


def _percent(share: float) -> str:
    return f"{share:.3f}" if abs(share) >= _LEAST else ""


_NAMES = {str(activity): words for activity, words in ACTIVITIES.items()}
