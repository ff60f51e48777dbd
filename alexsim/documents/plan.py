"""What a plan says as JSON: ``flops --json`` and ``memory --json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from alexsim.budget.advice import Help
from alexsim.budget.cards import CardFit
from alexsim.budget.fit import Fit
from alexsim.documents.base import ABSENT, From, NetworkDocument, Part
from alexsim.ledger.tables import FlopTable, LayerFlops, StepFlops, memory_table, step_flops
from alexsim.machine.machine import Machine
from alexsim.network.not_run import unsupported
from alexsim.network.update_rules import Optimizer
from alexsim.plan.choices import Partition, PlanPrecision, Policy, Products, Schedule
from alexsim.plan.plan import Plan
from alexsim.plan.spec import PlanSpec
from alexsim.report.tables import sharing_text


class NotRun(Part):
    """Calls of an operator of PyTorch that is counted from its shapes: it has no kernel here."""

    operator: Annotated[str, From("target")]
    layers: tuple[str, ...]
    """What those calls are called."""
    mac: int
    """Multiply-adds of one image's forward pass in them all."""
    formula: bool
    """Whether its arithmetic is counted; else its bytes alone."""


NotRunOf = Annotated[tuple[NotRun, ...], From(lambda record: unsupported(record.network))]


class FlopsDocument(NetworkDocument):
    """``alexsim flops --json``; counts are of one image."""

    parameters: Annotated[int, From("network.parameters")]
    neurons: Annotated[int, From("network.neurons")]
    """Without the input."""
    mac: int
    flop: int
    """Of the forward pass."""
    training_flop: int
    """Of the forward and the backward pass."""
    elementwise_flop: Annotated[
        int, From(lambda table: sum(layer.elementwise_flop for layer in table.layers))
    ]
    layers: tuple[LayerFlops, ...]
    not_run: NotRunOf = ()
    """Empty where every layer has a kernel."""
    step: Annotated[
        StepFlops | None, From(lambda table: getattr(table, "step", None) or ABSENT)
    ] = None
    """A step on the GPUs that were asked for; absent where none were."""
    peak_s: Annotated[
        float | None, From(lambda table: getattr(table, "peak_s", None) or ABSENT)
    ] = None
    """Seconds in which the fullest GPU of ``--machine`` does a step's FLOP at its float32 peak; of
    unlike cards, the slowest."""


def flops_document(
    table: FlopTable, spec: PlanSpec | None = None, machine: Machine | None = None
) -> FlopsDocument:
    """``alexsim flops --json``; of a step too where there is a spec."""
    if spec is None:
        return FlopsDocument.of(table)
    step = step_flops(table, spec)
    peak_s = None
    if machine:
        peak_s = step.flop_of_gpu / min(c.flop_per_s for c in machine.cards(spec.all_gpus))
    return FlopsDocument.of(table, step=step, peak_s=peak_s)


class PlanWords(Part):
    """Every choice of a plan that is a word; empty where none was made."""

    partition: Annotated[Partition, From("plan.spec.partition")] = "columns"
    policy: Annotated[Policy, From("plan.spec.policy")]
    schedule: Annotated[Schedule, From("plan.spec.schedule")]
    transport: Annotated[str, From("plan.spec.transport")] = ""
    optimizer: Annotated[Optimizer, From("plan.spec.optimizer")] = "sgd-2012"
    backend: Annotated[str, From("plan.spec.backend")] = ""
    fusion: Annotated[str, From("plan.spec.fusion")] = "none"
    precision: Annotated[PlanPrecision, From("plan.spec.precision")] = "fp32"
    products: Annotated[Products, From("plan.spec.products")] = "fp32"


class Shares(Part):
    """How the GPUs of a plan share its images."""

    gpus: Annotated[int, From("plan.spec.all_gpus")] = 0
    """Those of all replicas; 0 in documents of versions that did not say."""
    images_per_gpu: Annotated[int, From("plan.spec.op_images")] = 0
    """Of the images of a step; 0 in documents of versions that did not say."""
    sharing: Annotated[str, From(lambda of: sharing_text(of.plan.spec))] = ""
    """How several GPUs share a step, in words."""


class DeviceBytes(Part):
    """What a device holds at its fullest op, summed two ways."""

    name: str
    total_bytes: int
    by_category: dict[str, int]
    by_layer: dict[str, int]


class CardBytes(Part):
    """The verdict on the GPUs on one kind of card."""

    card: Annotated[str, From("card.name")]
    gpus: tuple[str, ...]
    budget_bytes: Annotated[int, From("verdict.budget_bytes")]
    fits: Annotated[bool, From("verdict.fits")]
    free_bytes: Annotated[int, From("verdict.free_bytes")]
    """Below 0 where it does not fit."""
    largest_batch_size: Annotated[int, From("verdict.largest_batch_size")]


class MemoryDocument(PlanWords, Shares, NetworkDocument):
    """``alexsim memory --json``."""

    network: Annotated[str, From("plan.network.name")]
    batch_size: Annotated[int, From("plan.images")]
    budget_bytes: Annotated[int, From("verdict.budget_bytes")]
    """Of each device; of unlike cards, of that with the least room, as all here is."""
    cards: tuple[CardBytes, ...] = ()
    """With a machine of unlike cards: the verdict on each kind."""
    fits: Annotated[bool, From("verdict.fits")]
    devices: tuple[DeviceBytes, ...]
    exchanged_bytes_per_step: Annotated[int, From("plan.exchanged_bytes")]
    largest_batch_size: Annotated[int, From("verdict.largest_batch_size")]
    """0 where no image fits."""
    suggestions: Annotated[tuple[str, ...], From("verdict.suggestions")]
    workspace_bytes: Annotated[int | None, From("verdict.workspace_bytes")] = None
    """With policy ``pytorch``: what convolutions may take beyond all this, at most."""
    helps: Annotated[tuple[Help, ...], From("verdict.helps")] = ()
    """With policy ``pytorch``, where it does not fit: what would, and at which cost."""
    not_run: Annotated[tuple[NotRun, ...], From(lambda all_: unsupported(all_.plan.network))] = ()
    """Empty where every layer has a kernel."""


def memory_document(
    plan: Plan, verdict: Fit, *, context_bytes: int, cards: Sequence[CardFit] = ()
) -> MemoryDocument:
    """``alexsim memory --json``; ``cards``: the verdicts by card, that of the document first."""
    devices = memory_table(plan, context_bytes=context_bytes)
    several = cards if len(cards) > 1 else ()
    return MemoryDocument.of(plan=plan, verdict=verdict, devices=devices, cards=several)
