"""Rows of published measurements, and the case that each ran, in our terms.

A row that cannot be predicted has its reason; the rule reads the row's conditions, never its value.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from alexsim.errors import ProfileError
from alexsim.machine.sheet import find
from alexsim.network.editions import load_network
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.simulate.costs.cost import Precision
from alexsim.typed import read

COLUMNS = (
    "id", "network", "variant", "layer", "gpu", "n_gpus", "parallelism", "interconnect",
    "library", "precision", "batch_size", "pass", "input_size", "value", "unit", "notes",
)  # fmt: skip
TIMES = ("ms per batch", "ms per image", "images/s", "hours")
_LEAST, _MOST, _DIGITS = 1e-9, 1e12, 9
"""Bounds of figures, and digits of counts: no measurement lies beyond."""
PASSES = ("fwd", "bwd", "bwd-data", "bwd-weight", "fwd+bwd", "train-step", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published figure and its conditions, as printed; ``value`` is None in a blind row."""

    id: str
    network: str
    variant: str
    layer: str
    gpu: str
    n_gpus: int
    parallelism: str
    interconnect: str
    library: str
    precision: str
    batch_size: str
    passes: str
    input_size: str
    value: float | None
    unit: str
    notes: str
    trust: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A row that is not predicted, and the rule that says so."""

    row: Row
    why: str


def read_rows(path: str) -> tuple[Row, ...]:
    """Rows of a CSV file, or of the built-in ``published``.

    Raises:
        ProfileError: the file cannot be read, lacks a column, or holds a malformed number.
    """
    if path == "published":
        source = files("alexsim_profiles") / "measurements" / "published.csv"
        lines = source.read_text(encoding="utf-8").splitlines()
    else:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"cannot read {path}: {error}") from error
    return tuple(_rows(csv.DictReader(lines), path))


def _rows(reader: csv.DictReader[str], path: str) -> Iterable[Row]:
    optional = {"value"}
    missing = set(COLUMNS) - optional - set(reader.fieldnames or ())
    if missing:
        raise ProfileError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    for line, entry in enumerate(reader, start=2):
        if None in entry.values():
            raise ProfileError(f"{path}, line {line}: fewer columns than the header")
        trust = re.search(r"trust=(\w)", f"{entry.get('source', '')} {entry['notes']}")
        try:
            yield Row(
                id=entry["id"],
                network=entry["network"],
                variant=entry["variant"],
                layer=entry["layer"],
                gpu=entry["gpu"],
                n_gpus=_whole(entry, "n_gpus"),
                parallelism=entry["parallelism"],
                interconnect=entry["interconnect"],
                library=entry["library"],
                precision=entry["precision"],
                batch_size=_digits(entry, "batch_size"),
                passes=entry["pass"],
                input_size=entry["input_size"],
                value=_value(entry.get("value")),
                unit=entry["unit"],
                notes=entry["notes"],
                trust=trust[1] if trust else "",
            )
        except ValueError as error:
            raise ProfileError(f"{path}, line {line}: {error} (row {entry['id']})") from error


def _digits(entry: dict[str, str], column: str) -> str:
    """The text as printed; a number has few digits.

    Raises:
        ValueError: it has too many.
    """
    text = entry[column]
    if text.isascii() and text.isdigit() and len(text) > _DIGITS:
        raise ValueError(f"{column} must have at most {_DIGITS} digits, got {len(text)}")
    return text


def _whole(entry: dict[str, str], column: str) -> int:
    text = _digits(entry, column)
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{column} must be a positive whole number, got {text!r}")
    return int(text)


def _value(text: str | None) -> float | None:
    if not text:
        return None
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"value must be positive and finite, got {text!r}")
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"value must be between {_LEAST:g} and {_MOST:g}, got {text!r}")
    return value


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
    network: tuple[Name, ...]


@cache
def _names() -> Names:
    return read(Names, *find("measurements", "names", what="table"))


def _match(names: Sequence[Name], text: str) -> Name | None:
    return next((name for name in names if re.match(name.pattern, text)), None)


def case_of(row: Row) -> Case | Excluded:
    """The case that the row ran, or why it cannot be predicted."""
    if row.unit not in TIMES or row.passes not in PASSES:
        return Excluded(row=row, why=f"no time of a training pass: {row.unit}, {row.passes}")
    device, library = _match(_names().device, row.gpu), _match(_names().library, row.library)
    if device is None:
        return Excluded(row=row, why=f"no data sheet of {row.gpu}")
    if library is None:
        return Excluded(row=row, why=f"no cost model of {row.library}")
    if not (row.batch_size.isascii() and row.batch_size.isdigit() and int(row.batch_size)):
        return Excluded(row=row, why="batch size per device not stated")
    if int(row.batch_size) % row.n_gpus and not row.gpu.startswith("GTX 580"):
        return Excluded(row=row, why="the batch does not divide over the GPUs")
    timed = _network_of(row)
    if isinstance(timed, str):
        return Excluded(row=row, why=timed)
    network, layers, single = timed
    return Case(
        row=row,
        network=network,
        layers=layers,
        device=device.name,
        library=library.name,
        family="caffe" if row.library.startswith("caffe") else library.family,
        precision=_precision(row),
        batch_size=int(row.batch_size),
        passes=row.passes,
        image_gradient=single
        or "image-gradient IS included" in row.notes
        or "grad-wrt-image included" in row.notes
        or "image gradient included" in row.notes
        or "same harness as jcjohnson" in row.notes,
        single_layer=single or bool(row.layer),
    )


def _precision(row: Row) -> Precision:
    if row.precision == "fp16 mixed (tensor cores where present)":
        return "fp16"
    if "TF32" in row.precision:
        return "tf32"
    # Half-precision storage with float32 arithmetic moves half the bytes at the same FLOP rate.
    return "fp16" if row.precision.startswith("fp16") else "fp32"


def _network_of(row: Row) -> tuple[Network, frozenset[str], bool] | str:
    if "single conv layer" in row.network:
        return _single(row)
    named = _match(_names().network, f"{row.network}:{row.variant}")
    if named is None:
        return f"{row.network} is not among our editions as it was measured"
    network = load_network(named.name)
    if row.library.startswith("matconvnet") and row.network == "AlexNet":
        network = load_network("alexnet-caffe")
    if "OWT with LRN" in row.variant:
        network = _with_norms(network)
    if "FC LAYERS ABSENT" in row.notes or "NO FC" in row.variant.upper():
        network = _without_fc(network)
    if "FC layers implemented as convolutions" in row.notes:
        network = _fc_as_convolutions(network)
    if not row.layer:
        return network, frozenset(), False
    if row.layer == "input":
        return "the input layer does nothing"
    layer = _layer_of(row.layer, network)
    return (network, frozenset({layer}), False) if layer else f"no layer {row.layer!r}"


def _layer_of(printed: str, network: Network) -> str:
    head, _, tail = printed.partition("/")
    name = head.replace("conv", "relu") if tail == "relu" else head.removesuffix("-conv")
    return name if name in {layer.name for layer in network.layers} else ""


def _single(row: Row) -> tuple[Network, frozenset[str], bool] | str:
    shape = re.match(r"(?:L\d )?(\d+)->(\d+) (\d+)x\d+ s(\d)", row.layer)
    image = re.match(r"(\d+)x(\d+)x(\d+)$", row.input_size)
    if shape is None or image is None:
        return f"cannot read the layer {row.layer!r} on {row.input_size!r}"
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
