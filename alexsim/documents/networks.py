"""``alexsim network list --json`` and ``network show --json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from alexsim.documents.base import Document, From, Joined, Part
from alexsim.network import counts
from alexsim.network.network import Network
from alexsim.recipe.defaults import trains_as
from alexsim.recipe.outlook import Outlook


class NetworkSummary(Part):
    """What a network is."""

    network: Annotated[str, From("network.name")]
    title: Annotated[str, From("network.title")]
    input_shape: Annotated[tuple[int, ...], From("network.input_shape")]
    """Channels, height, width."""
    columns: Annotated[int, From("network.columns")]
    classes: Annotated[int, From("network.classes")]
    neurons: Annotated[int, From("network.neurons")]
    parameters: Annotated[int, From("network.parameters")]


class DefaultTraining(Part):
    """How a network is trained here unless told otherwise."""

    data: Annotated[str, From(lambda _: "built-in")]
    recipe: Annotated[str, From("defaults.recipe")]
    weight_rate: float
    steps: Annotated[int, From("defaults.steps")]
    batch_size: int
    options: str
    """What else must be given for it to fit."""
    seconds: float
    """About, with this machine's cores."""
    first_weights: Annotated[str, From("defaults.weights")]
    source: Annotated[str, From("defaults.source")]


class EditionRow(NetworkSummary):
    """A network, and its training."""

    refused: Annotated[str | None, From(lambda edition: edition.refused or None)]
    """Why it cannot be trained here; null if it can."""
    trains_as: Annotated[str | None, From(lambda edition: trains_as(edition.network.name) or None)]
    """The network of its family whose training stands for its own, which is null; else null."""
    training: Annotated[
        DefaultTraining | None,
        From(lambda edition: None if edition.seconds is None else edition),
    ]


class VariantRow(Part):
    """A change of a network."""

    name: str
    what: str


class NetworksDocument(Document):
    """``alexsim network list --json``."""

    budget_bytes: int
    """Of each virtual GPU."""
    cores: int
    networks: tuple[EditionRow, ...]
    variants: tuple[VariantRow, ...]


def networks_document(
    networks: Sequence[Network],
    outlooks: Mapping[str, Outlook],
    variants: Mapping[str, str],
    *,
    budget_bytes: int,
    cores: int,
) -> NetworksDocument:
    """``alexsim network list --json``; variants by name, with what each changes."""
    untold = {"refused": "", "seconds": None}
    return NetworksDocument.of(
        budget_bytes=budget_bytes,
        cores=cores,
        networks=[
            outlooks.get(network.name) or Joined(None, {"network": network, **untold})
            for network in networks
        ],
        variants=[{"name": name, "what": what} for name, what in variants.items()],
    )


class LayerRow(Part):
    """A layer: sums over its columns, shapes of one column."""

    name: Annotated[str, From("first.layer.name")]
    kind: Annotated[str, From(lambda row: type(row.first.layer).__name__)]
    columns: Annotated[int, From(lambda row: len(row.parts))]
    inputs: tuple[str, ...]
    """Layers that it reads."""
    reads_columns: Annotated[int, From(lambda row: len({r.column for r in row.first.reads}))]
    output_shape: Annotated[tuple[int, ...], From("first.output_shape")]
    parameters: Annotated[int, From(lambda row: sum(part.parameters for part in row.parts))]
    mac: Annotated[int, From(lambda row: sum(counts.macs(part) for part in row.parts))]
    """Multiply-adds of a forward pass of one image."""


class LayersDocument(NetworkSummary, Document):
    """``alexsim network show --json``."""

    layers: tuple[LayerRow, ...]


def network_document(network: Network) -> LayersDocument:
    """``alexsim network show --json``."""
    layers = [
        Joined(None, {"first": parts[0], "parts": parts, "inputs": network.inputs_of(index)})
        for index, parts in enumerate(network.parts)
    ]
    return LayersDocument.of(network=network, layers=layers)
