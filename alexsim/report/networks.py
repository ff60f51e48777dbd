"""Networks as JSON documents."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from alexsim.network import counts
from alexsim.report.documents import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from alexsim.network.network import Network


def networks_document(networks: Iterable[Network], variants: Mapping[str, str]) -> dict[str, Any]:
    """``alexsim network list --json``; variants by name, with what each changes."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "networks": [_summary(network) for network in networks],
        "variants": [{"name": name, "what": what} for name, what in variants.items()],
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
                "reads_columns": len(parts[0].sources),
                "output_shape": list(parts[0].output_shape),
                "parameters": sum(part.parameters for part in parts),
                "mac": sum(counts.macs(part) for part in parts),
            }
            for parts in network.parts
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
