"""``alexsim memory``: bytes per GPU, and whether they fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from alexsim.command import fields
from alexsim.command.answer import Given, give
from alexsim.command.fields import flag, option
from alexsim.command.plan_options import (
    BudgetOptions,
    GpuOptions,
    HybridOptions,
    PlanOptions,
    RuleOptions,
    WhatIfOptions,
)
from alexsim.errors import AlexsimError
from alexsim.plan.choices import PlanPrecision

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alexsim.documents.base import Document


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(
    GpuOptions, PlanOptions, HybridOptions, WhatIfOptions, RuleOptions, BudgetOptions
):
    """What is planned, and for which budget."""

    mem_cap: str | None = option(
        "SIZE",
        "Memory budget of each GPU, as in 3GB (= 3 x 1024^3 bytes). Default: the usable memory of"
        " --machine, or of a GTX 580 with 3 GB.",
    )
    precision: PlanPrecision = option(
        "PRECISION", "`fp32`, or `amp`: types of numbers as PyTorch's autocast has them.", "fp32"
    )
    layers: bool = flag("Also list every layer.")


def memory(context: typer.Context, options: MemoryOptions) -> None:
    """Show what each GPU holds in a step, and if it fits.

    Exit code 3 if it does not; the message says what would.

    Example: alexsim memory --gpus 1 --batch 96 --policy in-place

    Example: alexsim memory --train-only fc8

    Example: alexsim memory --policy reuse --fuse

    Example: alexsim memory --net resnet50 --batch 32 --policy pytorch

    Example: alexsim memory --net resnet50 --machine a100x4 --batch 512

    Example: alexsim memory --net alexnet-owt --partition hybrid --gpus 4 --batch 512
    """
    from alexsim.budget.cards import fit_cards
    from alexsim.command.asked import undone
    from alexsim.ledger.tables import memory_table
    from alexsim.machine.defaults import DEVICE
    from alexsim.machine.device import load_device
    from alexsim.plan.planner import representative

    if options.json:
        fields.refuse(context, "is for the tables: --json has every layer", "layers")
    spec = options.plan_spec(precision=options.precision)
    machine = options.there(spec)
    cards = machine.cards(spec.all_gpus) if machine else (load_device(DEVICE),) * spec.all_gpus
    taken = int(max(card.context_bytes.value for card in cards))
    plan = representative(spec)
    table = memory_table(plan, context_bytes=taken)
    choices = ("schedule", "variable_batch", "optimizer", "fusion", "precision")
    for name, other in undone(spec, *choices).items():
        if memory_table(representative(other), context_bytes=taken) == table:
            raise AlexsimError(f"{name} changes no byte here, with --policy {options.policy}")
    verdicts = fit_cards(plan, cards, options.budget)
    verdict = verdicts[0].verdict

    def document() -> Document:
        from alexsim.documents.plan import memory_document

        return memory_document(plan, verdict, context_bytes=taken, cards=verdicts)

    def tables(_: int) -> RenderableType:
        from alexsim.report.memory import memory_tables

        return memory_tables(plan, verdicts, context_bytes=taken, layers=options.layers)

    give(options, Given(document=document, tables=tables))
    if not verdict.fits:
        raise verdict.error()
