"""Does a plan fit its cards, and if not, what would?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from alexsim.errors import MemoryBudgetError
from alexsim.plan.choices import POLICIES, Policy
from alexsim.plan.planner import representative
from alexsim.plan.records import Buffer, Plan
from alexsim.units import format_bytes

_MOST_BATCH = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """How much one device is over its budget, and its largest buffers."""

    device: str
    need_bytes: int
    over_bytes: int
    largest: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict; ``largest_batch_size``, of whole minibatches, is 0 where no image fits."""

    budget_bytes: int
    fits: bool
    shortages: tuple[Shortage, ...]
    largest_batch_size: int
    suggestions: tuple[str, ...]

    def error(self) -> MemoryBudgetError:
        """In one line: what is over by how much, in which buffers, and what would fit."""
        worst = max(self.shortages, key=lambda shortage: shortage.over_bytes)
        names = ", ".join(
            f"{buffer.label} {format_bytes(buffer.size_bytes)}" for buffer in worst.largest
        )
        advice = "; ".join(self.suggestions) or "nothing smaller fits either"
        return MemoryBudgetError(
            f"{worst.device} needs {format_bytes(worst.need_bytes)}, its budget is"
            f" {format_bytes(self.budget_bytes)}: {format_bytes(worst.over_bytes)} over"
            f" (largest: {names}); what would fit: {advice}"
        )


def fit(of: Plan, budget_bytes: int, *, context_bytes: int = 0) -> Fit:
    """Compare every device with the budget, and look for the nearest plan that fits."""
    shortages = tuple(
        Shortage(
            device=device.name,
            need_bytes=device.total_bytes + context_bytes,
            over_bytes=device.total_bytes + context_bytes - budget_bytes,
            largest=tuple(
                sorted(
                    (b for b in device.buffers if b.name in device.resident),
                    key=lambda b: -b.size_bytes,
                )[:3]
            ),
        )
        for device in of.devices
        if device.total_bytes + context_bytes > budget_bytes
    )
    room = budget_bytes - context_bytes
    largest = _largest_batch(of, room, of.spec.policy, len(of.devices) * of.alike)
    return Fit(
        budget_bytes=budget_bytes,
        fits=not shortages,
        shortages=shortages,
        largest_batch_size=largest,
        suggestions=tuple(_suggestions(of, room, largest)) if shortages else (),
    )


def _suggestions(of: Plan, room: int, largest: int) -> list[str]:
    found = []
    if largest:
        found.append(f"--batch {largest}")
    devices = len(of.devices) * of.alike
    tighter = POLICIES[POLICIES.index(of.spec.policy) + 1 :]
    for policy in tighter:
        if _fits(of, room, of.images, policy, devices):
            found.append(f"--policy {policy}")
            break
    columns = of.network.columns
    if devices < columns and _fits(of, room, of.images, of.spec.policy, columns):
        found.append(f"--gpus {columns}")
    if not found and tighter:
        batch = _largest_batch(of, room, tighter[-1], devices)
        if batch:
            found.append(f"--policy {tighter[-1]} --batch {batch}")
    return found


def _largest_batch(of: Plan, room: int, policy: Policy, devices: int) -> int:
    """Largest minibatch that fits.

    Memory never shrinks as the batch grows, and grows nearly in proportion: a few straight lines
    through what is known lead there; where they do not, halves do.
    """
    shares = of.spec.shares
    one = _need(of, shares, policy, devices)
    if one > room:
        return 0
    known, images = max(device.total_bytes for device in of.devices), of.images // shares
    guess = 1 + (room - one) * (images - 1) // max(known - one, 1)
    low, high, tried = 1, 2 * _MOST_BATCH, 0
    while high - low > 1:
        tried += 1
        probe = (low + high) // 2 if tried > 8 else min(max(guess, low + 1), high - 1)
        need = _need(of, probe * shares, policy, devices)
        low, high = (probe, high) if need <= room else (low, probe)
        guess = 1 + (room - one) * (probe - 1) // max(need - one, 1)
    return low * shares


def _fits(of: Plan, room: int, batch_size: int, policy: Policy, devices: int) -> bool:
    return _need(of, batch_size, policy, devices) <= room


def _need(of: Plan, batch_size: int, policy: Policy, devices: int) -> int:
    """Bytes of the fullest device."""
    gpus = of.spec.gpus if of.spec.partition == "replicas" else devices
    other = representative(replace(of.spec, gpus=gpus, batch_size=batch_size, policy=policy))
    return max(device.total_bytes for device in other.devices)
