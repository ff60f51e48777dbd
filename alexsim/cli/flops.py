"""``alexsim flops``: FLOPs and parameters per layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.answer import Given, give
from alexsim.command.fields import flag
from alexsim.command.plan_options import GpuOptions, LayerOptions
from alexsim.errors import AlexsimError, GateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alexsim.counters.comparison import Comparison
    from alexsim.documents.base import Document
    from alexsim.ledger.tables import FlopTable
    from alexsim.network.network import Network
    from alexsim.plan.spec import PlanSpec

_OF_STEP = ("gpus", "partition", "replicas", "machine", "network")


@dataclass(frozen=True, kw_only=True)
class FlopsOptions(GpuOptions, LayerOptions):
    """What is counted, and of a step on which GPUs."""

    compare: bool = flag("Run the FLOP counters that are installed, and explain each of them.")
    strict: bool = flag(
        "With --compare: fail (exit code 4) if a difference is unexplained or an op of the plan has"
        " no formula."
    )


def flops(context: typer.Context, options: FlopsOptions) -> None:
    """Count FLOPs and parameters, layer by layer.

    MAC (multiply-adds) and FLOP are those of convolutions and fully connected layers, per image;
    everything else is counted apart as elementwise. --gpus, --partition, --replicas and --machine
    add a step of --batch images: each GPU's share, the gradients that are summed, and the time at
    the machine's peak. Without them --batch is for the bytes in --json. --compare needs PyTorch
    alone; pip install "alexsim[counters]" adds other people's counters.

    Example: alexsim flops --net alexnet-owt

    Example: alexsim flops --net resnet50 --machine a100x4 --batch 256

    Example: alexsim flops --compare --strict
    """
    from alexsim.editions.load import load_network
    from alexsim.ledger.tables import flop_table
    from alexsim.report.tables import flops_tables

    if options.strict and not options.compare:
        raise AlexsimError("--strict needs --compare")
    of_step = fields.given(context, *_OF_STEP)
    if not options.json and not of_step:
        fields.refuse(context, "changes only a step, and the bytes that --json has", "batch")
    network = load_network(options.net)
    if options.train_only and options.compare:
        raise AlexsimError("--compare counts whole training steps: leave --train-only out")
    if of_step and options.compare:
        raise AlexsimError(f"--compare counts single images: leave {of_step[0]} out")
    spec = _spec(options, network) if of_step else None
    machine = options.there(spec) if spec else None
    table = flop_table(network, options.batch, trainable=options.trainable(network))
    comparison = _compared(table) if options.compare else None

    def document() -> Document:
        if comparison:
            from alexsim.documents.counters import compared_flops_document

            return compared_flops_document(table, comparison)
        from alexsim.documents.plan import flops_document

        return flops_document(table, spec, machine)

    def tables(_: int) -> RenderableType:
        cards = machine.cards(spec.all_gpus) if machine and spec else ()
        slowest = min(cards, key=lambda card: card.flop_per_s, default=None)
        counted = flops_tables(table, spec, slowest)
        if not comparison:
            return counted
        from rich.console import Group

        from alexsim.report.counters import counters_tables

        return Group(counted, "", counters_tables(comparison))

    give(options, Given(document=document, tables=tables), soft_wrap=comparison is not None)
    if options.strict and comparison and comparison.complaints:
        raise GateError("; ".join(comparison.complaints))


def _compared(table: FlopTable) -> Comparison:
    from alexsim.counters.comparison import compare
    from alexsim.counters.tools import COUNTERS

    with shared.counting("counting", len(COUNTERS), at_once=True) as done:
        return compare(table, COUNTERS, done)


def _spec(options: FlopsOptions, network: Network) -> PlanSpec:
    from alexsim.plan.spec import PlanSpec

    gpus, partition = options.split(network)
    return PlanSpec(
        network=network,
        gpus=gpus,
        partition=partition,
        replicas=options.replicas,
        batch_size=options.batch,
        trainable=options.trainable(network),
    )
