"""Costs by interpolation of this machine's own measurements.

``alexsim check calibrate`` times every op of a step at a few batch sizes; an op at another batch
size is as many chunks of images as its backend takes, each on the line between chunks that were
measured. On one machine all virtual GPUs share the same cores, so ops of different devices take
turns, and decoding images takes its turn too. Cards do not: each has its own time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from alexsim.errors import ProfileError
from alexsim.machine.device import load_device
from alexsim.machine.link import Link
from alexsim.machine.machine import Machine, load_machine
from alexsim.machine.sheet import Quantity
from alexsim.network.layers import Pool
from alexsim.network.part import Part
from alexsim.plan.plan import Op, OpKind
from alexsim.strict_json import json_text
from alexsim.typed import load

SCHEMA = 3
REST = "rest"
"""Time of a step that lies between its ops."""
MOST_SCATTER = 1.0
"""Steps that scatter more than that say nothing of a machine."""
SUM, UP, DOWN, ACROSS = "all-reduce", "copy to card", "copy to host", "copy between cards"
"""Microbenchmarks of transfers, each of a small and a large size."""
Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
Point = tuple[Count, Count, Annotated[float, Ge(0)]]
"""Images, of which the op takes so many at a time, and seconds."""
Points = Annotated[tuple[Point, ...], MinLen(1)]
"""What was measured of an op, images ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One microbenchmark: what ran, its shape, one run's time, and units of work per second."""

    what: str
    shape: str
    seconds: Positive
    per_second: Positive
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured on one machine: when, how and by which code."""

    machine: str
    system: str
    date: str
    method: str
    device: Literal["cpu", "cuda"]
    """Whose ops these are: all cores', or a card's."""
    cards: Count
    """Cards in this machine; of a CPU, 1."""
    multiprocessors: Count
    """Of a card; of a CPU, threads."""
    clocks: str
    """Of the card while it was measured, as NVML says; or why that is not known."""
    backend: str
    torch: str
    threads: Count
    """Of the CPU, which decode in any case."""
    rounds: Count
    disturbed: Annotated[int, Ge(0)]
    """Steps that other processes disturbed, when they had been measured again already."""
    memory_bytes: Count
    scatter: Annotated[float, Gt(0), Lt(MOST_SCATTER)]
    """Standard deviation of the logarithm of one step's time around the median."""
    rates: tuple[Rate, ...]
    ops: Mapping[str, Points]
    half_ops: Mapping[str, Points]
    """Of a replica, with ``half_of`` the threads: two share the cores so. Of a card, none."""

    def __post_init__(self) -> None:
        for name, points in (*self.ops.items(), *self.half_ops.items()):
            # Nothing may lie between the ops, and an offer of what is there takes no time.
            batch = next((batch for batch, _, seconds in points if not seconds), None)
            if batch is not None and name not in (REST, OpKind.POST):
                raise ProfileError(f"ops.{name} must be above 0 s at {batch} images, got 0")

    @property
    def on_cores(self) -> bool:
        """Whether all devices of this machine share its cores, and take turns."""
        return self.device == "cpu"

    def rate(self, what: str) -> float:
        """The best rate of a microbenchmark whose name begins so.

        Raises:
            ProfileError: there is none.
        """
        rates = [rate.per_second for rate in self.rates if rate.what.startswith(what)]
        if not rates:
            raise ProfileError(f"the calibration has no rate of {what!r}; run it again")
        return max(rates)

    @property
    def crop_side(self) -> int:
        """Side of the crops whose loading was timed; 0 if the file does not say."""
        shapes = [rate.shape for rate in self.rates if rate.what == "image normalise"]
        side = shapes[0].partition(" ")[0] if shapes else ""
        return int(side) if side.isdecimal() else 0

    @property
    def flop_per_s(self) -> float:
        """The highest rate that any product or convolution reached."""
        return max(self.rate("gemm"), self.rate("convolution"))

    def seconds(self, signature: str, images: int, chunk: int, *, replicas: int = 1) -> float:
        """Time of an op on so many images, of which it takes ``chunk`` at a time.

        So many ``replicas`` share the cores: each has its part of the threads, and all do the same
        at a time. The work of two, measured by one beside an idle half, is that of the others.

        Raises:
            ProfileError: nobody measured such an op.
        """
        points = (self.half_ops if replicas > 1 else self.ops).get(signature)
        if points is None:
            raise ProfileError(
                f"the calibration has no measurement of {signature!r}; measure its network with"
                " `alexsim check calibrate --net EDITION --gpus N`, at --batches on both sides of"
                f" {images}"
            )
        seconds = in_chunks(points, images, chunk)
        if replicas == 1:
            return seconds
        busy = min(self.threads, replicas * max(1, self.threads // replicas))
        return seconds * replicas * half_of(self.threads) / busy

    def link(self, what: str, *, journeys: int = 1) -> Link:
        """A link as fast as the transfers of that name, the smallest of which took ``journeys``.

        Raises:
            ProfileError: nobody measured any.
        """
        rates = sorted((r for r in self.rates if r.what == what), key=lambda rate: rate.seconds)
        if not rates:
            raise ProfileError(f"the calibration has no rate of {what!r}; run it again")
        small, large = rates[0], rates[-1]
        sizes = [rate.seconds * rate.per_second for rate in (small, large)]
        taken_s = large.seconds - small.seconds
        # A clock's noise may turn two sizes round: then the large one's rate is all there is.
        rate = (sizes[1] - sizes[0]) / taken_s if taken_s > 0 else large.per_second
        source = f"alexsim check calibrate on {self.machine}: {what}"
        return Link(
            name=what,
            bytes_per_s=Quantity(value=rate, kind="measured", source=source),
            efficiency=Quantity(value=1, kind="measured", source=source),
            latency_s=Quantity(value=small.seconds / journeys, kind="measured", source=source),
        )


def half_of(threads: int) -> int:
    """Threads of each of two processes."""
    return max(1, threads // 2)


def in_chunks(points: Sequence[Point], images: int, chunk: int) -> float:
    """Seconds of an op on ``images``: whole chunks, and one more with what is left.

    Whole chunks of a size that was measured lie on the line through their numbers; a chunk of
    another size on the line through the sizes, beyond them on the nearest line. Twelve images in
    chunks of 8 take what 8 and 4 take, which is more than the middle of 8 and 16: a chunk has costs
    of its own, such as rearranging weights.
    """
    whole: dict[int, dict[int, float]] = {}
    """By size of a chunk, seconds of so many of them, without the rest."""

    def alone(size: int) -> float:
        firsts = ((known, next(iter(counts.items()))) for known, counts in sorted(whole.items()))
        return _on_line([(known, seconds / count) for known, (count, seconds) in firsts], size)

    for measured, size, seconds in points:
        if (measured, size) == (images, chunk):
            return seconds
        count, rest = divmod(measured, size)
        rest_s = (alone(rest) if whole else seconds * rest / measured) if rest else 0.0
        whole.setdefault(size, {}).setdefault(count, max(0.0, seconds - rest_s))
    count, rest = divmod(images, chunk)
    counts = list(whole.get(chunk, {}).items())
    seconds = _on_line(counts, count) if counts else count * alone(chunk)
    return seconds + (alone(rest) if rest else 0.0)


def _on_line(points: Sequence[tuple[int, float]], at: int) -> float:
    """Between neighbours, or on the nearest line; through zero, if there is one point only."""
    if len(points) == 1:
        return points[0][1] * at / points[0][0]
    upper = bisect_left([known for known, _ in points], at)
    upper = min(max(upper, 1), len(points) - 1)
    (low, below), (high, above) = points[upper - 1], points[upper]
    return max(0.0, below + (above - below) * (at - low) / (high - low))


def signature(op: Op, part: Part | None) -> str:
    """What an op's time depends on beside its images: its kind, shapes and algorithm.

    Not for barriers: a device that waits there lets the others compute, and costs nothing.
    """
    if part is None:
        return str(op.kind)
    layer = part.layer
    names = ("size", "stride", "padding", "ties")
    options = "x".join(
        str(getattr(layer, name))
        for name in names
        if hasattr(layer, name) and not (name == "padding" and isinstance(layer, Pool))
    )
    # What few layers have stands there only where they have it.
    usual = {"dilation": 1, "groups": 1, "bias": True}
    if isinstance(layer, Pool):
        usual["padding"] = 0
    for name, value in usual.items():
        if getattr(layer, name, value) != value:
            options += f" {name}={getattr(layer, name)}"
    marks = f"{'+' if op.accumulate else ''}{'*' if op.fused else ''}{'&' if op.epilogue else ''}"
    shapes = f"{part.input_shape}->{part.output_shape}".replace(" ", "")
    algorithm = f" {op.algorithm}" if op.algorithm else ""
    return f"{op.kind}{marks} {type(layer).__name__} {options} {shapes}{algorithm}"


def default_path() -> Path:
    """Where ``alexsim check calibrate`` leaves its measurements."""
    from platformdirs import user_data_path

    return user_data_path("alexsim") / "calibration.json"


def write(calibration: Calibration) -> str:
    """As JSON."""
    document = {"schema": SCHEMA} | asdict(calibration)
    return json_text(document, indent=1)


def read(path: str) -> Calibration:
    """A file that ``alexsim check calibrate`` wrote.

    Raises:
        ProfileError: there is none, or it is malformed.
    """
    make = "`alexsim check calibrate` makes one"
    return load(Calibration, Path(path), "calibration", schema=SCHEMA, hint=make)


def machine_of(calibration: Calibration, network: Link | None = None) -> Machine:
    """This machine as the simulator's records have it; every op's own time is measured.

    Where all devices share its cores, it has as many as one likes. Beyond a network every such
    device is a machine of its own, and of cards there are as many such machines as they need.
    """
    source = f"alexsim check calibrate on {calibration.machine}"

    def measured(value: float) -> Quantity:
        return Quantity(value=value, kind="measured", source=source)

    base = load_machine("gtx580x2")
    device = load_device("gtx580")
    lanes = device.architecture.lanes_per_sm.value
    units, threads = calibration.multiprocessors, calibration.threads
    device = replace(
        device,
        name=calibration.machine,
        note="",
        memory_bytes=measured(calibration.memory_bytes),
        context_bytes=measured(0),
        multiprocessors=measured(units),
        clock_hz=measured(calibration.flop_per_s / (2 * lanes * units)),
        memory_bytes_per_s=measured(calibration.rate("memory copy")),
    )
    if calibration.on_cores:
        links = _between_processes(calibration)
        count, what = 1 if network else _PROCESSES, f"{threads} threads"
    else:
        links = _between_cards(calibration)
        count, what = calibration.cards, f"{calibration.cards} card(s)"
    return replace(
        base,
        **links,
        name=f"this machine ({calibration.machine}, {what})",
        device=device,
        device_name="here",
        network=network,
        devices_per_node=measured(count),
        devices_per_uplink=measured(1),
        # Every thread decodes and crops, in its turn; files come from memory.
        decode_workers=measured(threads),
        decode_images_per_s=measured(calibration.rate("image load")),
        crop_workers=measured(threads),
        crop_images_per_s=measured(calibration.rate("image normalise")),
        disk_bytes_per_s=measured(calibration.rate("memory read")),
        rates_for=calibration.crop_side or base.rates_for,
    )


def _between_processes(calibration: Calibration) -> dict[str, Any]:
    """Two processes sum in two rounds, each to the memory that all share, and from there."""
    link = calibration.link(SUM, journeys=4)
    together = replace(link.bytes_per_s, value=2 * link.bytes_per_s.value)
    return {
        "link": link,
        "uplink": link,
        "host_staging_bytes_per_s": together,
        "collectives": "copies",
    }


def _between_cards(calibration: Calibration) -> dict[str, Any]:
    """Cards have a link to the host and, where copies between them are faster, one of their own."""
    up, down = calibration.link(UP), calibration.link(DOWN)
    raw = max(up.bytes_per_s, down.bytes_per_s, key=lambda rate: rate.value)
    link = replace(
        up,
        bytes_per_s=raw,
        efficiency=replace(raw, value=up.bytes_per_s.value / raw.value),
        return_efficiency=replace(raw, value=down.bytes_per_s.value / raw.value),
    )
    across = calibration.link(ACROSS) if calibration.cards > 1 else None
    if across and across.bytes_per_s.value <= raw.value:
        across = None
    return {
        "link": link,
        "uplink": link,
        "peer_link": across,
        "peer": True,
        # Whatever passes through the host's memory is written and read there.
        "host_staging_bytes_per_s": replace(raw, value=2 * raw.value),
        "collectives": "nccl",
    }


_PROCESSES = 1024
"""More share a machine's cores than anybody asks for."""
