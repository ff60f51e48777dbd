"""Devices and their architectures: what a card's data sheet says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from alexsim.errors import ProfileError
from alexsim.machine.sheet import Quantity, amiss, check, find, names

_CAN_BE_ZERO = ("context_bytes", "tensor_fp16_flop_per_clock", "tensor_tf32_flop_per_clock")
_OPTIONAL = ("note", "price_usd")
_WHOLE = ("multiprocessors", "registers_per_sm", "threads_per_sm")


def _numbers(record: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(record) if str(field.type).startswith("Quantity"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Architecture:
    """What a multiprocessor can do in one clock, and the limits of a block on it.

    Sources: the CUDA C programming guide's compute capability tables, and the white papers.
    """

    name: str
    note: str
    lanes_per_sm: Quantity
    """Float32 multiply-adds per clock."""
    issue_warps_per_clock: Quantity
    """Warp instructions issued per clock, without dual issue."""
    load_store_lanes_per_sm: Quantity
    """Lanes that serve shared-memory loads, per clock."""
    blocks_per_sm: Quantity
    registers_per_thread: Quantity
    tensor_fp16_flop_per_clock: Quantity
    """FP16 with float32 accumulation, per multiprocessor."""
    tensor_tf32_flop_per_clock: Quantity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Device:
    """One card, or one die of a card with two.

    ``memory_bytes`` is what programs can use, ``context_bytes`` what the driver takes of it.
    ``clock_hz`` is the clock of the float32 lanes under load (Fermi: the shader clock). Two devices
    are equal only if they are one: cost models remember what they worked out for each.
    """

    name: str
    year: int
    compute_capability: str
    note: str
    architecture: Architecture
    memory_bytes: Quantity
    context_bytes: Quantity
    multiprocessors: Quantity
    clock_hz: Quantity
    memory_bytes_per_s: Quantity
    l2_bytes: Quantity
    shared_bytes_per_sm: Quantity
    registers_per_sm: Quantity
    threads_per_sm: Quantity
    power_w: Quantity
    price_usd: Quantity | None = None
    """What the maker asked for one when it came out, in dollars of that year; None: not stated."""

    @property
    def flop_per_s(self) -> float:
        """Float32 peak: two FLOP per lane and clock."""
        lanes = self.multiprocessors.value * self.architecture.lanes_per_sm.value
        return 2 * lanes * self.clock_hz.value

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

    def changed(self, **values: float) -> Device:
        """The same card with some of its numbers replaced.

        Raises:
            ProfileError: there is no such number, or it would not be positive.
        """
        numbers: dict[str, Any] = {}
        for key, value in values.items():
            if key not in _numbers(Device):
                raise ProfileError(
                    f"a device has no {key!r} (it has {', '.join(_numbers(Device))})"
                )
            if fault := amiss(value, zero=key in _CAN_BE_ZERO, whole=key in _WHOLE):
                raise ProfileError(f"device.{key} must be {fault}")
            numbers[key] = Quantity(value=value, kind="spec", source="set by the user")
        return replace(self, **numbers)


def device_names() -> tuple[str, ...]:
    """Names that ``load_device`` accepts, sorted."""
    return names("devices")


def load_device(name: str) -> Device:
    """The sheet ``devices/<name>.toml`` of ``alexsim_profiles``, or the TOML file at a path.

    Raises:
        ProfileError: there is none, or its keys are not Device's fields.
    """
    table, where = find("devices", name, what="device")
    return device_from(table, where=where)


def device_from(table: Mapping[str, Any], *, where: str) -> Device:
    """Check a sheet's keys exactly, and make the record.

    Raises:
        ProfileError: a key is missing or unknown, or a number is not positive.
    """
    quantities = check(
        table,
        texts={
            "name": str, "year": int, "architecture": str, "compute_capability": str, "note": str,
        },
        numbers=_numbers(Device),
        where=where,
        can_be_zero=_CAN_BE_ZERO,
        whole=_WHOLE,
        optional=_OPTIONAL,
    )  # fmt: skip
    return Device(
        name=table["name"],
        year=table["year"],
        compute_capability=table["compute_capability"],
        note=table.get("note", ""),
        architecture=load_architecture(table["architecture"]),
        **quantities,
    )


def load_architecture(name: str) -> Architecture:
    """The sheet ``architectures/<name>.toml``.

    Raises:
        ProfileError: there is none, or its keys are not Architecture's fields.
    """
    table, where = find("architectures", name, what="architecture")
    quantities = check(
        table,
        texts={"name": str, "note": str},
        numbers=_numbers(Architecture),
        where=where,
        can_be_zero=_CAN_BE_ZERO,
    )
    return Architecture(name=table["name"], note=table["note"], **quantities)
