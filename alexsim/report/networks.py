"""The editions as terminal tables and a document: what they are, and how they are trained here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network import counts
from alexsim.network.network import Network
from alexsim.recipe.outlook import CORE_FLOP_PER_S, CORE_IMAGES_PER_S, Outlook
from alexsim.report.documents.old import SCHEMA
from alexsim.report.tables import plain_table
from alexsim.units import format_bytes

_MINUTE, _HOUR = 60, 3600


def networks_tables(found: Sequence[Outlook], *, budget_bytes: int, cores: int) -> RenderableType:
    """What each is, and what `alexsim train --net NAME` does with it; within 80 columns."""
    what = plain_table("Networks", "name", "parameters", "title")
    what.columns[2].justify, what.columns[2].no_wrap = "left", False
    how = plain_table(
        "alexsim train --net NAME, on the built-in images",
        "name", "rate", "steps", "batch", "takes", "with",
    )  # fmt: skip
    how.columns[5].justify = "left"
    why: dict[str, list[str]] = {}
    for one in found:
        network = one.network
        what.add_row(network.name, f"{network.parameters:,}", network.title)
        if one.seconds is None:
            why.setdefault(one.refused, []).append(network.name)
            continue
        how.add_row(
            network.name,
            f"{one.weight_rate:g}",
            str(one.defaults.steps),
            str(one.batch_size),
            about(one.seconds),
            one.options,
        )
    notes = [f"Not trained here: {', '.join(names)} ({text})." for text, names in why.items()]
    notes.append(
        f"Takes: about, with {cores} cores: counted FLOPs at {CORE_FLOP_PER_S / 1e9:.0f} GFLOP/s"
        f" each (AlexNet on Zen 4), or {CORE_IMAGES_PER_S:,.0f} images/s each where reading them"
        f" takes longer. With: what else fits them into {format_bytes(budget_bytes)}."
    )
    return Group(what, how, *(Text(note) for note in notes))


def about(seconds: float) -> str:
    """A rough duration: 40 s, 3 min, 1.5 h."""
    if seconds < 1.5 * _MINUTE:
        return f"{10 * max(1, round(seconds / 10))} s"
    if seconds < 1.5 * _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    return f"{seconds / _HOUR:.1f} h"


def networks_document(
    found: Sequence[Outlook], variants: Mapping[str, str], *, budget_bytes: int, cores: int
) -> dict[str, Any]:
    """``alexsim network list --json``: ``training`` is null where an edition cannot be trained
    here; variants by name, with what each changes."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "budget_bytes": budget_bytes,
        "cores": cores,
        "networks": [
            {
                **_summary(edition.network),
                "refused": edition.refused or None,
                "training": None if edition.seconds is None else _training(edition),
            }
            for edition in found
        ],
        "variants": [{"name": name, "what": what} for name, what in variants.items()],
    }


def _training(edition: Outlook) -> dict[str, Any]:
    return {
        "data": "built-in",
        "recipe": edition.defaults.recipe,
        "weight_rate": edition.weight_rate,
        "steps": edition.defaults.steps,
        "batch_size": edition.batch_size,
        "options": edition.options,
        "seconds": edition.seconds,
        "first_weights": edition.defaults.weights,
        "source": edition.defaults.source,
    }


def network_document(network: Network) -> dict[str, Any]:
    """``alexsim network show --json``: sums of a layer over its columns, shapes of one column."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        **_summary(network),
        "layers": [
            {
                "name": parts[0].layer.name,
                "kind": type(parts[0].layer).__name__,
                "columns": len(parts),
                "inputs": list(network.inputs_of(index)),
                "reads_columns": len({read.column for read in parts[0].reads}),
                "output_shape": list(parts[0].output_shape),
                "parameters": sum(part.parameters for part in parts),
                "mac": sum(counts.macs(part) for part in parts),
            }
            for index, parts in enumerate(network.parts)
        ],
    }


def _summary(network: Network) -> dict[str, Any]:
    return {
        "network": network.name,
        "title": network.title,
        "input_shape": list(network.input_shape),
        "columns": network.columns,
        "classes": network.classes,
        "neurons": network.neurons,
        "parameters": network.parameters,
    }
