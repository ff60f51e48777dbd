"""What each device holds in a step, as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.budget.cards import CardFit
from alexsim.ledger.tables import memory_table
from alexsim.plan.plan import Category, Plan
from alexsim.report.not_run import not_run_lines
from alexsim.report.tables import plain_table, sharing_text
from alexsim.units import format_bytes, mib

_NAMES = {
    Category.INPUT: "input, two minibatches",
    Category.ACTIVATION: "activations",
    Category.ACTIVATION_GRAD: "activation gradients",
    Category.NORM: "norm denominators",
    Category.MASK: "dropout masks",
    Category.REMOTE: "copies of other GPU's activations",
    Category.REMOTE_GRAD: "their gradients",
    Category.WEIGHT: "weights",
    Category.MOMENTUM: "momentum",
    Category.WEIGHT_GRAD: "weight and bias gradients",
    Category.PARTIAL_SUM: "weight-gradient partial sums",
    Category.WORKSPACE: "workspace",
    Category.PADDING: "alignment and packing gaps",
    Category.CONTEXT: "device context",
}

_NAMES_IN_PYTORCH = {
    Category.INPUT: "images and labels",
    Category.NORM: "kept by norms",
    Category.MOMENTUM: "optimizer state",
    Category.WORKSPACE: "made by the update",
    Category.PADDING: "rounding, gaps in segments",
}


def memory_tables(
    plan: Plan, verdicts: Sequence[CardFit], *, context_bytes: int, layers: bool
) -> RenderableType:
    """Bytes per device by category (and by layer), against the budgets of their cards; with several
    kinds of cards the verdict on each."""
    # Of the cards that a device stands for, that with the least room: they come in that order.
    budgets = [
        next(each.verdict.budget_bytes for each in verdicts if device.index in each.places(plan))
        for device in plan.devices
    ]
    devices = memory_table(plan, context_bytes=context_bytes)
    split = "" if plan.spec.partition == "columns" else f", {plan.spec.partition}"
    split += ", fused" if plan.spec.fusion != "none" else ""
    split += ", amp" if plan.spec.precision == "amp" else ""
    title = f"{plan.network.name}, batch {plan.images}, {plan.spec.policy}{split}: MiB per device"
    out = plain_table(title, "", *(device.name for device in devices))
    names = _NAMES | (_NAMES_IN_PYTORCH if plan.spec.policy == "pytorch" else {})
    for category, name in names.items():
        values = [device.by_category[category] for device in devices]
        if any(values):
            out.add_row(name, *(mib(value) for value in values))
    out.add_section()
    out.add_row("total", *(mib(device.total_bytes) for device in devices))
    out.add_row("budget", *map(mib, budgets))
    free = [budget - each.total_bytes for budget, each in zip(budgets, devices, strict=True)]
    out.add_row("free", *(mib(value) for value in free))
    sharing = sharing_text(plan.spec)
    told = [_told(each, len(verdicts) > 1, context_bytes) for each in verdicts]
    parts: list[RenderableType] = [*([Text(sharing)] if sharing else ()), *told, out]
    if layers:
        by_layer = plain_table("MiB by layer", "layer", *(device.name for device in devices))
        for name in {name: None for device in devices for name in device.by_layer}:
            values = [device.by_layer.get(name, 0) for device in devices]
            if any(values):
                by_layer.add_row(name, *(f"{value / 1024**2:,.2f}" for value in values))
        parts.append(by_layer)
    if exchanges := len(plan.transfers):
        parts.append(
            Text(
                f"{format_bytes(plan.exchanged_bytes)} cross between the GPUs per step,"
                f" in {exchanges} exchanges"
            )
        )
    if plan.stands_for > 1 and len(devices) == 1:
        parts.append(Text(f"{devices[0].name} holds as much as any of {plan.stands_for} GPUs"))
    elif plan.replicas > 1:
        parts.append(Text(f"each of {plan.replicas} replicas holds as much"))
    if lines := not_run_lines(plan.network):
        parts.append(Text("\n".join(lines)))
    return Group(*parts)


def _told(fitted: CardFit, of_several: bool, context_bytes: int) -> Text:
    """The verdict on the devices of a kind of card; whose it is, where there are several."""
    verdict = fitted.verdict
    whose = f"{', '.join(fitted.gpus)} on {fitted.card.name}: " if of_several else ""
    held = format_bytes(verdict.budget_bytes - verdict.free_bytes)
    included = ", context included" if context_bytes else ""
    told = verdict.words if verdict.fits else "does not fit"
    return Text(f"{whose}{held} of {format_bytes(verdict.budget_bytes)}{included}: {told}")
