"""Does a plan fit its cards, and if not, what would?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from alexsim.budget.advice import Help, recomputation
from alexsim.budget.policies import policy_words
from alexsim.budget.workspace import workspace_bytes
from alexsim.errors import MemoryBudgetError
from alexsim.plan.choices import Policy
from alexsim.plan.plan import Buffer, DevicePlan, Plan
from alexsim.plan.planner import representative
from alexsim.units import format_bytes

_MOST_BATCH = 1 << 16
_TIGHTER: dict[Policy, tuple[Policy, ...]] = {
    "as-released": ("in-place", "reuse"),
    "in-place": ("reuse",),
    "reuse": (),
    "pytorch": ("reuse",),
}
"""Policies that hold less, the nearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """How much one device is over its budget, and its largest buffers."""

    device: str
    need_bytes: int
    over_bytes: int
    live_bytes: int
    """What is needed without alignment and gaps."""
    largest: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict; ``largest_batch_size``, of whole minibatches, is 0 where no image fits."""

    budget_bytes: int
    fits: bool
    free_bytes: int
    """Of the fullest device; below 0 where it does not fit."""
    shortages: tuple[Shortage, ...]
    largest_batch_size: int
    suggestions: tuple[str, ...]
    workspace_bytes: int | None = None
    """What convolutions may take beyond what was compared with the budget, at most: with policy
    ``pytorch``, where nobody knows before (see ``alexsim.budget.workspace``); else None."""
    helps: tuple[Help, ...] = ()
    """With policy ``pytorch``, what would fit, beside smaller minibatches."""

    @property
    def words(self) -> str:
        """The verdict on what fits, in a sentence."""
        more_fit = self.largest_batch_size >= _MOST_BATCH
        largest = f"at least {_MOST_BATCH}" if more_fit else self.largest_batch_size
        words = f"fits; the largest batch that does is {largest}"
        if not self.workspace_bytes:
            return words
        more = f"convolutions may take up to {format_bytes(self.workspace_bytes)} more"
        fits = self.workspace_bytes <= self.free_bytes
        return f"{words}\n{more} as workspace: {'it fits even so' if fits else 'no fit then'}"

    def or_by(self, policies: Mapping[Policy, int]) -> Fit:
        """The same that suggests these policies, with their bytes, where it does not fit; what was
        suggested with what it saves stays so."""
        new = {words.partition(" (")[0]: words for words in policy_words(policies)}
        said = [new.pop(option, option) for option in self.suggestions]
        known = {option.partition(" (")[0] for option in said}
        more = [words for option, words in new.items() if option not in known]
        return self if self.fits else replace(self, suggestions=(*said, *more))

    def error(self) -> MemoryBudgetError:
        """In one line: what is over by how much, in which buffers, and what would fit."""
        worst = max(self.shortages, key=lambda shortage: shortage.over_bytes)
        names = ", ".join(
            f"{buffer.label} {format_bytes(buffer.size_bytes)}" for buffer in worst.largest
        )
        gaps = ""
        if self.workspace_bytes is not None:
            gaps = f", {format_bytes(worst.live_bytes)} of it tensors and context"
        advice = "; ".join(self.suggestions) or "nothing smaller fits either"
        return MemoryBudgetError(
            f"{worst.device} needs {format_bytes(worst.need_bytes)}{gaps}, its budget is"
            f" {format_bytes(self.budget_bytes)}: {format_bytes(worst.over_bytes)} over"
            f" (largest: {names}); what would fit: {advice}"
        )


def fit(
    plan: Plan, budget_bytes: int, *, context_bytes: int = 0, on: frozenset[int] = frozenset()
) -> Fit:
    """Compare every device with the budget, and look for the nearest plan that fits.

    Args:
        plan: of devices that do alike, one is enough.
        budget_bytes: of each device.
        context_bytes: what the driver takes of it.
        on: places of the devices that have this budget, of which alone the verdict is; empty: all.
    """
    shortages = tuple(
        Shortage(
            device=device.name,
            need_bytes=device.total_bytes + context_bytes,
            over_bytes=device.total_bytes + context_bytes - budget_bytes,
            live_bytes=device.live_peak_bytes + device.scratch_bytes + context_bytes,
            largest=tuple(
                sorted(
                    (b for b in device.buffers if b.name in device.resident),
                    key=lambda b: -b.size_bytes,
                )[:3]
            ),
        )
        for device in _those(plan, on)
        if device.total_bytes + context_bytes > budget_bytes
    )
    room = budget_bytes - context_bytes
    devices = len(plan.devices) * plan.alike
    largest = _largest_batch(plan, room, plan.spec.policy, devices, on)
    eager = plan.spec.policy == "pytorch"
    helps = tuple(_helps(plan, room)) if eager and shortages else ()
    suggestions = _suggestions(plan, room, largest, on) if shortages else []
    if helps:
        batches = (option for option in suggestions if not option.startswith("--policy"))
        suggestions = [*batches, *(help_.words for help_ in helps)]
    return Fit(
        budget_bytes=budget_bytes,
        fits=not shortages,
        free_bytes=room - _fullest(plan, on),
        shortages=shortages,
        largest_batch_size=largest,
        suggestions=tuple(suggestions),
        workspace_bytes=workspace_bytes(plan) if eager else None,
        helps=helps,
    )


def _helps(plan: Plan, room: int) -> Iterator[Help]:
    """What would make a step in eager PyTorch fit, this minibatch and all."""
    (device,) = plan.devices
    if plan.spec.precision == "fp32":
        half = representative(replace(plan.spec, precision="amp"))
        if (need := max(each.total_bytes for each in half.devices)) <= room:
            yield Help(option="--precision amp", saved_bytes=device.total_bytes - need)
    if help_ := recomputation(plan, room):
        yield help_
    if (need := _need(plan, plan.images, "reuse", 1, frozenset())) <= room:
        yield Help(option="--policy reuse", saved_bytes=device.total_bytes - need)


def _suggestions(plan: Plan, room: int, largest: int, on: frozenset[int]) -> list[str]:
    suggestions = []
    if largest:
        suggestions.append(f"--batch {largest}")
    devices = len(plan.devices) * plan.alike
    tighter = _TIGHTER[plan.spec.policy]
    for policy in tighter:
        if _fits(plan, room, plan.images, policy, devices, on):
            suggestions.append(f"--policy {policy}")
            break
    columns = plan.network.columns
    splits = devices < columns and plan.spec.policy != "pytorch"
    if splits and _fits(plan, room, plan.images, plan.spec.policy, columns, frozenset()):
        suggestions.append(f"--gpus {columns}")
    if not suggestions and tighter:
        batch = _largest_batch(plan, room, tighter[-1], devices, on)
        if batch:
            suggestions.append(f"--policy {tighter[-1]} --batch {batch}")
    return suggestions


def _largest_batch(plan: Plan, room: int, policy: Policy, devices: int, on: frozenset[int]) -> int:
    """Largest minibatch that fits.

    Memory never shrinks as the batch grows, and grows nearly in proportion: a few linear
    interpolations lead there; where they do not, bisection does.
    """
    shares = plan.spec.shares
    least = _need(plan, shares, policy, devices, on)
    if least > room:
        return 0
    known, images = _fullest(plan, on), plan.images // shares
    guess = 1 + (room - least) * (images - 1) // max(known - least, 1)
    low, high, tried = 1, 2 * _MOST_BATCH, 0
    while high - low > 1:
        tried += 1
        probe = (low + high) // 2 if tried > 8 else min(max(guess, low + 1), high - 1)
        need = _need(plan, probe * shares, policy, devices, on)
        low, high = (probe, high) if need <= room else (low, probe)
        guess = 1 + (room - least) * (probe - 1) // max(need - least, 1)
    return low * shares


def _fits(
    plan: Plan, room: int, batch_size: int, policy: Policy, devices: int, on: frozenset[int]
) -> bool:
    return _need(plan, batch_size, policy, devices, on) <= room


def _need(plan: Plan, batch_size: int, policy: Policy, devices: int, on: frozenset[int]) -> int:
    """Bytes of the fullest device."""
    gpus = plan.spec.gpus if plan.spec.partition == "replicas" else devices
    candidate = representative(replace(plan.spec, gpus=gpus, batch_size=batch_size, policy=policy))
    return _fullest(candidate, on)


def _fullest(plan: Plan, on: frozenset[int]) -> int:
    return max(device.total_bytes for device in _those(plan, on))


def _those(plan: Plan, on: frozenset[int]) -> tuple[DevicePlan, ...]:
    """The devices in those places; all, where none is said."""
    return tuple(device for device in plan.devices if not on or device.index in on)
