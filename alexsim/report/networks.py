"""The editions as terminal tables: what they are, and how they are trained here."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.network import Network
from alexsim.recipe.outlook import CORE_BYTES_PER_S, CORE_FLOP_PER_S, CORE_IMAGES_PER_S, Outlook
from alexsim.report.tables import plain_table
from alexsim.units import format_bytes

_MINUTE, _HOUR = 60, 3600


def networks_tables(
    networks: Iterable[Network], outlooks: Iterable[Outlook], *, budget_bytes: int, cores: int
) -> RenderableType:
    """Every network, and what `alexsim train --net NAME` does with most; within 80 columns."""
    listed = plain_table("Networks", "name", "parameters", "title")
    listed.columns[2].justify, listed.columns[2].no_wrap = "left", False
    for network in networks:
        listed.add_row(network.name, f"{network.parameters:,}", network.title)
    runs = plain_table(
        "alexsim train --net NAME, on the built-in images",
        "name", "rate", "steps", "batch", "takes", "with",
    )  # fmt: skip
    runs.columns[5].justify = "left"
    refusals: dict[str, list[str]] = {}
    for outlook in outlooks:
        network = outlook.network
        if outlook.seconds is None:
            refusals.setdefault(outlook.refused, []).append(network.name)
            continue
        runs.add_row(
            network.name,
            f"{outlook.weight_rate:g}",
            str(outlook.defaults.steps),
            str(outlook.batch_size),
            about(outlook.seconds),
            outlook.options,
        )
    notes = [f"Not trained here: {', '.join(names)} ({text})." for text, names in refusals.items()]
    notes.append(
        f"Takes: about, with {cores} cores: products that are done at"
        f" {CORE_FLOP_PER_S / 1e9:.0f} GFLOP/s each (AlexNet on Zen 4, backend native), or memory"
        f" at {CORE_BYTES_PER_S / 1e9:.0f} GB/s each, op by op; or {CORE_IMAGES_PER_S:,.0f}"
        " images/s each where reading them takes longer. With: what else fits them into"
        f" {format_bytes(budget_bytes)}; of networks that are not in this table, `alexsim memory"
        " --net NAME` tells."
    )
    return Group(listed, runs, *(Text(note) for note in notes))


def about(seconds: float) -> str:
    """A rough duration: 40 s, 3 min, 1.5 h."""
    if seconds < 1.5 * _MINUTE:
        return f"{10 * max(1, round(seconds / 10))} s"
    if seconds < 1.5 * _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    return f"{seconds / _HOUR:.1f} h"
