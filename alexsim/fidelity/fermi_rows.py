"""Published figures of Fermi cards (2010-2015): what each ran, predicted, or why it is left out.

The table has no time of AlexNet: products, memory and links, cuda-convnet's CIFAR-10 networks, and
a network of 2013. A fit that has seen them knows the kernels of 2012 on cards of their time, and
can then be asked for the machine of 2012.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from alexsim.costs.correction import Correction
from alexsim.costs.cost import Cost, memory_bound
from alexsim.costs.elementwise import product_traits
from alexsim.costs.gemm import Cublas, gemm
from alexsim.errors import ProfileError
from alexsim.fidelity.fit import Observation
from alexsim.fidelity.networks_of_2012 import Run, run_of
from alexsim.fidelity.row_files import entries
from alexsim.fidelity.rows import Excluded
from alexsim.machine.device import Device, load_device
from alexsim.machine.link import load_link
from alexsim.machine.sheet import find
from alexsim.plan.plan import OpKind
from alexsim.typed import read

COLUMNS = ("id", "gpu", "library", "network_or_op", "shape", "batch", "value", "unit", "notes")
_SIDE = 4096
"""Of a product whose size is not stated: large."""
_GIGA = 1e9
_NOISE = {"product": 0.07, "memory": 0.05, "copy": 0.05, "network": 0.07, "whole training": 0.15}
"""Relative scatter expected: as of published rows of trust A; of a training in days, rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FermiRow:
    """One figure as printed."""

    id: str
    gpu: str
    library: str
    ran: str
    shape: str
    batch: str
    value: float
    unit: str
    notes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A row that is predicted: the pieces of its time, and the seconds that it states."""

    row: FermiRow
    what: str
    """A key of the scatter that is expected: product, memory, copy, network, whole training."""
    costs: tuple[Cost, ...]
    measured_s: float

    def predicted_s(self, correction: Correction) -> float:
        """Seconds by the mechanism, corrected."""
        return sum(correction.time(cost) for cost in self.costs)


def read_fermi_rows(path: str = "fermi") -> tuple[FermiRow, ...]:
    """Rows of a CSV file, by default of the built-in ``fermi``.

    Raises:
        ProfileError: the file cannot be read, lacks a column, or a value is no positive number.
    """
    return tuple(_row(entry, path) for _, entry in entries(path, COLUMNS))


def fermi_figures(rows: Sequence[FermiRow]) -> tuple[tuple[Figure, ...], tuple[Excluded, ...]]:
    """Rows that are predicted, and those that are not; the rule never looks at a row's value."""
    judged = [_judged(row) for row in rows]
    return (
        tuple(figure for figure in judged if isinstance(figure, Figure)),
        tuple(figure for figure in judged if isinstance(figure, Excluded)),
    )


def fermi_observations(rows: Sequence[FermiRow]) -> list[Observation]:
    """What a fit may learn from: products, memory, networks; links have no coefficient."""
    figures, _ = fermi_figures(rows)
    return [
        Observation(
            id=figure.row.id,
            ops=[figure.costs],
            measured_s=figure.measured_s,
            noise=_NOISE[figure.what],
        )
        for figure in figures
        if figure.what != "copy"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    pattern: str
    multiprocessors: int
    shader_mhz: float
    memory_gb_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cards:
    card: tuple[_Card, ...]


@cache
def _cards() -> tuple[_Card, ...]:
    return read(_Cards, *find("measurements", "fermi-cards", what="table")).card


@cache
def _device(gpu: str) -> Device | None:
    card = next((card for card in _cards() if re.match(card.pattern, gpu)), None)
    if card is None:
        return None
    return load_device("gtx580").changed(
        multiprocessors=card.multiprocessors,
        clock_hz=card.shader_mhz * 1e6,
        memory_bytes_per_s=card.memory_gb_per_s * _GIGA,
    )


def _row(line: dict[str, str], path: str) -> FermiRow:
    try:
        value = float(line["value"])
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ProfileError(
            f"{path}, row {line['id']}: value must be positive, got {line['value']!r}"
        )
    return FermiRow(
        id=line["id"],
        gpu=line["gpu"],
        library=line["library"],
        ran=line["network_or_op"],
        shape=line["shape"],
        batch=line["batch"],
        value=value,
        unit=line["unit"],
        notes=line["notes"],
    )


def _judged(row: FermiRow) -> Figure | Excluded:
    if "cuda-convnet" in row.library or "Krizhevsky" in row.library:
        run = run_of(row.ran, row.shape, row.batch, row.library, row.unit)
        return _of_network(row, run)
    device = _device(row.gpu)
    if device is None:
        return Excluded(row=row, why="no data sheet of a card of compute capability 2.0")
    if row.ran.startswith("SGEMM"):
        return _of_product(row, device)
    if row.ran.startswith(("device memory", "reduction")):
        if "no ECC" not in row.gpu and "GTX" not in row.gpu:
            return Excluded(row=row, why="error correction takes an unstated share of the memory")
        traits = ("memory", f"architecture:{device.architecture.name}:memory")
        cost = memory_bound(device, _GIGA, traits)
        return Figure(row=row, what="memory", costs=(cost,), measured_s=1 / row.value)
    if row.ran.startswith("PCIe"):
        seconds = _GIGA / load_link("pcie2-x16").effective_bytes_per_s
        copy = Cost(seconds, "memory", ())
        return Figure(row=row, what="copy", costs=(copy,), measured_s=1 / row.value)
    return Excluded(row=row, why="no cost model for what it ran")


def _of_product(row: FermiRow, device: Device) -> Figure | Excluded:
    if "transfers" in row.ran:
        return Excluded(row=row, why="with transfers of an unstated size")
    version = re.search(r"CUDA (\d)\.(\d)", row.library)
    if version is None or row.unit not in ("GFLOP/s", "s for 10 products"):
        return Excluded(row=row, why="no rate of a release of cuBLAS")
    release = (int(version[1]), int(version[2]))
    if release < (3, 2):
        return Excluded(row=row, why="before CUDA 3.2 cuBLAS had no kernels for these cards")
    if row.gpu.endswith("-Q") and release >= (5, 0):
        return Excluded(row=row, why="half the rate of the same card under an older release")
    sides = re.match(r"(\d+)x(\d+)x(\d+)$", row.shape)
    m, n, k = (int(side) for side in sides.groups()) if sides else (_SIDE, _SIDE, _SIDE)
    cublas: Cublas = "cuda-3" if release < (4, 1) else "cuda-4.1"
    seconds, limit = gemm(device, m, n, k, cublas=cublas)
    traits = product_traits(device, OpKind.FORWARD, "fp32", "cuda-convnet")
    flop = 2.0 * m * n * k
    measured_s = row.value / 10 if row.unit.startswith("s ") else flop / (row.value * _GIGA)
    cost = Cost(seconds, limit, traits, flop / device.flop_per_s, flop)
    return Figure(row=row, what="product", costs=(cost,), measured_s=measured_s)


def _of_network(row: FermiRow, run: Run | str) -> Figure | Excluded:
    if isinstance(run, str):
        return Excluded(row=row, why=run)
    device = load_device("gtx580")
    per_unit = {"s": 1, "min": 60, "day": 86_400}
    unit = next((seconds for name, seconds in per_unit.items() if row.unit.startswith(name)), 0)
    if not unit:
        return Excluded(row=row, why="no time of a training")
    return Figure(
        row=row,
        what="whole training" if unit == per_unit["day"] else "network",
        costs=run.costs(device),
        measured_s=row.value * unit / run.steps,
    )
