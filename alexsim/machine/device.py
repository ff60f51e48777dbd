"""Devices and their architectures: what a card's data sheet says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from alexsim.machine.sheet import Count, NotNegative, Positive, Sheet, load_record, names
from alexsim.typed import Named

HalfType = Literal["bf16", "fp16"]
Platform = Literal["cuda", "hip", "cpu"]
PLATFORMS: tuple[Platform, ...] = ("cuda", "hip", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    return load_record(Device, name)
