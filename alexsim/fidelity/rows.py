"""Rows of published measurements, and the case that each ran, in our terms.

A row that cannot be predicted has its reason; the rule reads the row's conditions, never its value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Protocol

from alexsim.costs.cost import Precision
from alexsim.costs.libraries import library_names
from alexsim.editions.load import edition_names, load_network
from alexsim.errors import known_as
from alexsim.fidelity.row_files import Row
from alexsim.machine.device import Device, device_names, load_device
from alexsim.machine.sheet import find
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.typed import read

TIMES = ("ms per batch", "ms per image", "images/s", "hours")
PASSES = ("fwd", "bwd", "bwd-data", "bwd-weight", "fwd+bwd", "train-step", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a row ran: enough to predict it.

    ``layers`` are the layers that were timed, all of them if empty; ``image_gradient``: the
    gradient with respect to the images was computed too.
    """

    row: Row
    network: Network
    layers: frozenset[str]
    device: str
    library: str
    family: str
    precision: Precision
    batch_size: int
    passes: str
    image_gradient: bool
    single_layer: bool


class AnyRow(Protocol):
    """Of any table."""

    @property
    def id(self) -> str:
        """By which the table knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A row that is not predicted, and the rule that says so."""

    row: AnyRow
    why: str
    """The rule and, after a colon, what of the row it names."""

    @property
    def rule(self) -> str:
        """The rule alone."""
        return self.why.partition(": ")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What a name in a published table means here."""

    pattern: str
    """A regular expression that matches from the start."""
    name: str
    family: str = ""
    """Of a library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """``measurements/names.toml``: of each kind, the first that matches counts."""

    device: tuple[Name, ...]
    library: tuple[Name, ...]
    """Of a library's name, or of ``name; notes`` where the notes have the version."""
    network: tuple[Name, ...]
    """Of ``network:variant; notes``; what no pattern matches may be an edition's name."""
    parallelism: tuple[Name, ...]
    """Of ``source; notes``."""
    excluded: tuple[Name, ...]
    """Of ``library; notes``; the name is the rule that leaves such rows out."""


@cache
def _names() -> Names:
    return read(Names, *find("measurements", "names", what="table"))


def _match(names: Sequence[Name], text: str) -> Name | None:
    return next((name for name in names if re.match(name.pattern, text)), None)


_FITTED: tuple[Precision, ...] = ("fp16", "fp32")
_IN_HALF = "NVCaffe fp16"
"""It computes in half precision too; others only keep numbers so where that is slow."""
SLOW_IN_HALF = "half-precision arithmetic at a small share of the float32 rate"
sheet_of: Callable[[str], Device] = cache(load_device)
"""A device, by the name of its sheet."""


def device_named(name: str) -> str:
    """Name of the sheet of a card as a table writes it, as lists have it, or as a TOML file of
    one's own; empty where there is none."""
    if device := _match(_names().device, name):
        return device.name
    return name if name.endswith(".toml") else known_as(name, device_names()) or ""


def _library_of(row: Row) -> Name | None:
    """What a row's library or framework is here; one's own rows may have a library's own name."""
    names, ran = _names().library, f"{row.library}; {row.notes}"
    if named := _match(names, row.library) or _match(names, ran):
        return named
    listed = known_as(row.library, library_names())
    return Name(pattern="", name=listed) if listed else None


def case_of(row: Row, networks: Mapping[str, Network] = MappingProxyType({})) -> Case | Excluded:
    """The case that the row ran, or why it cannot be predicted.

    ``networks``: further networks by their names in the table; they come before our editions.
    """
    if row.unit not in TIMES or row.passes not in PASSES:
        return Excluded(row=row, why=f"no time of a training pass: {row.unit}, {row.passes}")
    names, ran = _names(), f"{row.library}; {row.notes}"
    if (rule := _match(names.excluded, ran)) is not None:
        return Excluded(row=row, why=rule.name)
    library = _library_of(row)
    if library is None:
        return Excluded(row=row, why=f"no cost model: {row.library}")
    device = device_named(row.gpu)
    if not device:
        return Excluded(row=row, why=f"no data sheet: {row.gpu}")
    precision = _precision(row, device)
    if precision is None:
        return Excluded(row=row, why=f"no precision that is fitted: {row.precision}")
    if _IN_HALF in row.library and sheet_of(device).slow_in_half:
        return Excluded(row=row, why=f"{SLOW_IN_HALF}: {row.gpu}")
    if not (row.batch_size.isascii() and row.batch_size.isdigit() and int(row.batch_size)):
        return Excluded(row=row, why="batch size per device not stated")
    if int(row.batch_size) % row.n_gpus and not row.gpu.startswith("GTX 580"):
        return Excluded(row=row, why="the batch does not divide over the GPUs")
    shared = row.parallelism or _match(names.parallelism, f"{row.source}; {row.notes}")
    if row.n_gpus > 1 and not shared:
        return Excluded(row=row, why="how the GPUs share the work is not stated")
    timed = _network_of(row, networks)
    if isinstance(timed, str):
        return Excluded(row=row, why=timed)
    network, layers, single = timed
    return Case(
        row=row,
        network=network,
        layers=layers,
        device=device,
        library=library.name,
        family="caffe"
        if row.library.startswith("caffe") and not library.family.startswith("caffe-")
        else library.family,
        precision=precision,
        batch_size=int(row.batch_size),
        passes=row.passes,
        image_gradient=single
        or "image-gradient IS included" in row.notes
        or "grad-wrt-image included" in row.notes
        or "image gradient included" in row.notes
        or "same harness as jcjohnson" in row.notes,
        single_layer=single or bool(row.layer),
    )


def _precision(row: Row, device: str) -> Precision | None:
    """None where no cost is fitted to it."""
    if row.precision == "amp":
        return "fp16"
    if "tf32" in row.precision.lower():
        return "tf32" if sheet_of(device).tensor_tf32_flop_per_s else "fp32"
    # Half-precision storage with float32 arithmetic moves half the bytes at the same FLOP rate.
    return next((each for each in _FITTED if row.precision.startswith(each)), None)


def _network_of(
    row: Row, networks: Mapping[str, Network]
) -> tuple[Network, frozenset[str], bool] | str:
    if row.network in networks:
        return networks[row.network], frozenset(), False
    if "single conv layer" in row.network:
        return _single(row)
    named = _match(_names().network, f"{row.network}:{row.variant}; {row.notes}")
    if named is None and row.network not in edition_names():
        return f"not among our editions as it was measured: {row.network}"
    network = load_network(named.name if named else row.network)
    if row.library.startswith("matconvnet") and row.network == "AlexNet":
        network = load_network("alexnet-caffe")
    if "OWT with LRN" in row.variant:
        network = _with_norms(network)
    if row.network.startswith("deepscale-squeezenet"):
        network = _as_deployed(network)
    without = "FC LAYERS ABSENT" in row.notes or "convolutions and pools only" in row.network
    if without or "NO FC" in row.variant.upper():
        network = _without_fc(network)
    if "FC layers implemented as convolutions" in row.notes:
        network = _fc_as_convolutions(network)
    if not row.layer:
        return network, frozenset(), False
    if row.layer == "input":
        return "the input layer does nothing"
    layer = _layer_of(row.layer, network)
    return (network, frozenset({layer}), False) if layer else f"no such layer: {row.layer!r}"


def _layer_of(printed: str, network: Network) -> str:
    head, _, tail = printed.partition("/")
    name = head.replace("conv", "relu") if tail == "relu" else head.removesuffix("-conv")
    return name if name in {layer.name for layer in network.layers} else ""


def _single(row: Row) -> tuple[Network, frozenset[str], bool] | str:
    shape = re.match(r"(?:L\d )?(\d+)->(\d+) (\d+)x\d+ s(\d)", row.layer)
    image = re.match(r"(\d+)x(\d+)x(\d+)$", row.input_size)
    if shape is None or image is None:
        return f"cannot read the layer: {row.layer!r} on {row.input_size!r}"
    channels, filters, size, stride = (int(group) for group in shape.groups())
    padded = "pad 1" in row.notes or row.network.startswith("VGG single")
    layer = Convolution(
        name="conv",
        filters=filters,
        size=size,
        stride=stride,
        padding=1 if padded else 0,
        rounding="floor",
    )
    height, width = int(image[1]), int(image[2])
    network = Network(
        name=f"{channels}x{height}x{width}-{filters}x{size}x{size}s{stride}p{layer.padding}",
        input_shape=(channels, height, width),
        layers=(layer, SoftmaxCrossEntropy(name="softmax")),
    )
    return network, frozenset({"conv"}), True


def _as_deployed(network: Network) -> Network:
    """SqueezeNet by Caffe's deploy files: images of 227 pixels, and 1.0 pads its last layer."""
    padded = "classifier_1" if network.name == "squeezenet1_0" else ""
    layers = (
        replace(la, padding=1) if isinstance(la, Convolution) and la.name == padded else la
        for la in network.layers
    )
    return replace(network, input_shape=(3, 227, 227), layers=tuple(layers))


def _without_fc(network: Network) -> Network:
    layers = network.layers
    last = next(i for i, layer in enumerate(layers) if isinstance(layer, FullyConnected))
    return replace(
        network, name=f"{network.name}-convolutions", layers=(*layers[:last], layers[-1])
    )


def _with_norms(network: Network) -> Network:
    layers = []
    for layer in network.layers:
        layers.append(layer)
        if layer.name in ("pool1", "pool2"):
            layers.append(LocalResponseNorm(name=f"norm{layer.name[-1]}"))
    return replace(network, name=f"{network.name}-norms", layers=tuple(layers))


def _fc_as_convolutions(network: Network) -> Network:
    """Fully connected layers as convolutions over the whole remaining image."""
    layers = []
    for parts in network.parts:
        layer = parts[0].layer
        if isinstance(layer, Dropout):
            continue
        if isinstance(layer, FullyConnected):
            image = parts[0].input_shape
            layer = Convolution(
                name=layer.name,
                filters=parts[0].output_shape[0],
                size=image[1] if len(image) == 3 else 1,
                rounding="floor",
            )
        layers.append(layer)
    return replace(network, name=f"{network.name}-fc-as-conv", layers=tuple(layers))
