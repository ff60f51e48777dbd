"""Devices and their architectures: what a card's data sheet says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from alexsim.errors import ProfileError, known_as
from alexsim.machine.link import Link, link_if_any, load_link
from alexsim.machine.own import Table, alike, inherited, load_record, sheet_of, stated
from alexsim.machine.sheet import Count, NotNegative, Positive, Sheet, find, names
from alexsim.typed import Named, read

HalfType = Literal["bf16", "fp16"]
Platform = Literal["cuda", "hip", "cpu"]
PLATFORMS: tuple[Platform, ...] = ("cuda", "hip", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Architecture(Sheet):
    """What a multiprocessor can do in one clock, and the limits of a block on it.

    Of AMD's GPUs a multiprocessor is a compute unit, of a CPU a core.
    Sources: the CUDA C programming guide's compute capability tables, and the white papers.
    """

    name: str
    note: str
    platform: Platform = "cuda"
    """Whose libraries run on it."""
    lanes_per_sm: Positive
    """Float32 multiply-adds per clock."""
    issue_warps_per_clock: Positive
    """Warp instructions issued per clock, without dual issue."""
    dual_issue: Positive | None = None
    """Instructions that a scheduler can dispatch at once, where the second may be a load but
    no multiply-add; None: one."""
    load_store_lanes_per_sm: Positive
    """Lanes that serve shared-memory loads, per clock."""
    bank_bytes: Positive | None = None
    """What a bank of shared memory delivers per clock; None: 4."""
    blocks_per_sm: Positive
    registers_per_thread: Positive
    fp16_flop_per_clock: NotNegative
    """FP16 arithmetic outside tensor cores, per multiprocessor; 0: none, only storage."""
    matrix_fp32_flop_per_clock: Positive | None = None
    """Float32 in matrix units, per multiprocessor; None: products run on the lanes."""
    tensor_fp16_flop_per_clock: NotNegative
    """FP16 with float32 accumulation, per multiprocessor."""
    tensor_tf32_flop_per_clock: NotNegative
    sustained_flop_per_joule: Positive | None = None
    """Float32 FLOP per joule of long products, where the power limit sets the clock; None: cards
    hold their clock."""

    @property
    def generation(self) -> str:
        """The name without the chip's."""
        return self.name.partition("-")[0]


def load_architecture(name: str) -> Architecture:
    """The sheet ``architectures/<name>.toml``.

    Raises:
        ProfileError: there is none, or its keys are not Architecture's fields.
    """
    return load_record(Architecture, name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Device(Sheet):
    """One card, or one die of a card with two.

    ``memory_bytes`` is what programs can use, ``context_bytes`` what the driver takes of it.
    ``clock_hz`` is the clock of the float32 lanes under load (Fermi: the shader clock). Two devices
    are equal only if they are one: cost models remember what they worked out for each.
    """

    name: str
    year: int
    compute_capability: str
    note: str = ""
    architecture: Annotated[Architecture, Named(load_architecture)]
    memory_bytes: Positive
    context_bytes: NotNegative
    multiprocessors: Count
    clock_hz: Positive
    memory_bytes_per_s: Positive
    l2_bytes: Positive
    shared_bytes_per_sm: Positive
    registers_per_sm: Count
    threads_per_sm: Count
    power_w: Positive
    price_usd: Positive | None = None
    """What the maker asked for one when it came out, in dollars of that year; None: not stated."""
    link: Annotated[Link | None, Named(load_link)] = None
    """Of its slot, where no machine says another; None: that of its year."""
    peer: bool = True
    """Devices of this kind may read each other's memory over it."""
    peer_link: Annotated[Link | None, Named(link_if_any)] = None
    """What joins such cards directly in the boards that they are made for; None: nothing does."""

    @property
    def flop_per_s(self) -> float:
        """Float32 peak: two FLOP per lane and clock."""
        lanes = self.multiprocessors.value * self.architecture.lanes_per_sm.value
        return 2 * lanes * self.clock_hz.value

    @property
    def basis(self) -> Device:
        """The device as its sheet has it, where numbers of this one were changed."""
        return self

    def changed(self, **values: float) -> Device:
        """As ``Sheet.changed``; what is known of the sheet's kernels still applies to it."""
        other = Sheet.changed(self, **values)
        if isinstance(other, ChangedDevice):
            return other
        kept = {field.name: getattr(other, field.name) for field in fields(other)}
        return ChangedDevice(**kept, sheet=self)

    @property
    def sustained_flop_per_s(self) -> float:
        """Float32 rate at the clock that the power limit leaves under long products.

        Its share of the peak is the sheet's, whatever numbers were changed.
        """
        sheet = self.basis
        per_joule = sheet.architecture.sustained_flop_per_joule
        if per_joule is None:
            return self.flop_per_s
        share = per_joule.value * sheet.power_w.value / sheet.flop_per_s
        return self.flop_per_s * min(1.0, share)

    @property
    def product_flop_per_s(self) -> float:
        """Float32 peak of matrix products: that of the matrix units where they have float32."""
        per_clock = self.architecture.matrix_fp32_flop_per_clock
        if per_clock is None:
            return self.flop_per_s
        return self.multiprocessors.value * per_clock.value * self.clock_hz.value

    @property
    def fp16_flop_per_s(self) -> float:
        """FP16 peak outside tensor cores; 0 where FP16 is computed as float32."""
        per_clock = self.architecture.fp16_flop_per_clock.value
        return self.multiprocessors.value * per_clock * self.clock_hz.value

    @property
    def slow_in_half(self) -> bool:
        """Whether half-precision arithmetic runs at a small share of the float32 rate, as on
        GeForce cards of Pascal, which are for trying programs."""
        return 0 < self.fp16_flop_per_s < self.flop_per_s / 2

    @property
    def tensor_fp16_flop_per_s(self) -> float:
        """FP16 tensor-core peak; 0 without tensor cores."""
        per_clock = self.architecture.tensor_fp16_flop_per_clock.value
        return self.multiprocessors.value * per_clock * self.clock_hz.value

    @property
    def tensor_tf32_flop_per_s(self) -> float:
        """TF32 tensor-core peak; 0 without."""
        per_clock = self.architecture.tensor_tf32_flop_per_clock.value
        return self.multiprocessors.value * per_clock * self.clock_hz.value

    @property
    def half_type(self) -> HalfType:
        """The half precision of mixed precision: bfloat16 on tensor cores that have it, which came
        with TF32 (Ampere); else float16."""
        return "bf16" if self.tensor_tf32_flop_per_s else "fp16"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ChangedDevice(Device):
    """A device of which some numbers were changed."""

    sheet: Device

    @property
    def basis(self) -> Device:
        """The device before any change."""
        return self.sheet


def device_names() -> tuple[str, ...]:
    """Names that ``load_device`` accepts, sorted."""
    return names("devices")


def load_device(name: str) -> Device:
    """The sheet ``devices/<name>.toml`` of ``alexsim_profiles``, or the TOML file at a path.

    Raises:
        ProfileError: there is none, or its keys are not Device's fields.
    """
    return read(Device, *device_sheet(name))


def device_sheet(name: str) -> tuple[Table, str]:
    """The table that ``load_device`` reads, every number with its source's text, and its place.

    A file says what it is ``like``, or its memory, rates and architecture: what it leaves out is
    then that of the card of this architecture with the nearest float32 rate.

    Raises:
        ProfileError: there is none, or it is malformed.
    """
    if name.endswith(".toml"):
        table, where = find("devices", name, what="device")
        table = _completed(stated(Device, table, where, more=("flop_per_s",)), where)
    else:
        table, where = sheet_of(Device, name)
    year = table.get("year")
    if "link" not in table and isinstance(year, int):
        bus = 2 if year < 2012 else 3 if year < 2020 else 4
        table["link"] = f"pcie{bus}-x16"
    return table, where


_BY_RATE = {"clock_hz", "multiprocessors"}


def _completed(table: Table, where: str) -> Table:
    """A file's table with all that it inherits; its ``flop_per_s`` as a clock of whole
    multiprocessors."""
    rate = table.pop("flop_per_s", None)
    value = _value(rate)
    if rate is not None and (not value or "clock_hz" in table):
        why = "clock_hz follows from it; leave one out" if value else "it must be a positive number"
        raise ProfileError(f"{where}: flop_per_s: {why}")
    base, whose = alike(table, where, device_sheet)
    if not whose and {field.name for field in fields(Device)} - _OPTIONAL - table.keys():
        base, whose = _nearest(table, value, where)
    whole = inherited(Device, table, where, base, whose)
    count, clock = _value(whole.get("multiprocessors")), _value(whole.get("clock_hz"))
    if not value or not count or not clock:
        return whole
    per_clock = 2 * _lanes(whole["architecture"], where)
    if "multiprocessors" not in table:
        count = max(1, round(value / per_clock / clock))
        source = f"as many as its flop_per_s takes at about the clock of {whose or 'its sheet'}"
        whole["multiprocessors"] = {"value": count, "kind": "spec", "source": source}
    source = f"that of its flop_per_s: {rate.get('source')}"
    return whole | {"clock_hz": {**rate, "value": value / per_clock / count, "source": source}}


def _lanes(architecture: Any, where: str) -> float:
    """Float32 multiply-adds per clock of a multiprocessor."""
    if not isinstance(architecture, str):
        raise ProfileError(f"{where}: architecture must be a text, got {architecture!r}")
    try:
        return load_architecture(architecture).lanes_per_sm.value
    except ProfileError as error:
        raise ProfileError(f"{where}: architecture: {error}") from error


_OPTIONAL = {"name", "note", "price_usd", "link", "peer", "peer_link"}
_ALONE = "architecture", "memory_bytes", "memory_bytes_per_s"


def _nearest(table: Table, flop_per_s: float, where: str) -> tuple[Table, str]:
    """The shipped sheet of a device's architecture with the nearest rate, and its name."""
    missing = [key for key in _ALONE if key not in table]
    if not flop_per_s and not table.keys() >= _BY_RATE:
        missing.append("flop_per_s")
    if missing:
        raise ProfileError(
            f"{where}: missing keys {missing}; without like, the name of another card, a card has"
            " architecture, memory_bytes (or memory_gib), memory_bytes_per_s (or memory_gb_per_s)"
            " and flop_per_s (or tflop_per_s)"
        )
    written = table["architecture"]
    lanes = _lanes(written, where)
    cards = {name: load_device(name) for name in device_names() if _is_of(name, written)}
    if not cards:
        raise ProfileError(f"{where}: no card of architecture {written!r} ships; say like")
    rate = flop_per_s or (2 * lanes * _value(table["multiprocessors"]) * _value(table["clock_hz"]))
    name = min(cards, key=lambda each: abs(math.log(cards[each].flop_per_s / (rate or 1))))
    # How boards join their cards follows from no architecture.
    return {**device_sheet(name)[0], "peer_link": ""}, name


def _is_of(name: str, architecture: str) -> bool:
    listed = known_as(architecture, names("architectures"))
    return bool(listed) and find("devices", name, what="device")[0]["architecture"] == listed


def _value(entry: Any) -> float:
    """A number of a table that is not read yet; 0 where it is none."""
    value = entry.get("value") if isinstance(entry, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return value if 0 < value < math.inf else 0.0


def gpu_names() -> tuple[str, ...]:
    """Those of GPUs, and of no CPU."""
    return tuple(
        name for name in device_names() if load_device(name).architecture.platform != "cpu"
    )
