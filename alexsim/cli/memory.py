"""``alexsim memory``: bytes per GPU, and whether they fit."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

DEVICE = "gtx580"


def memory(
    context: typer.Context,
    net: options.Net = "alexnet-2012",
    batch: options.Batch = 128,
    gpus: options.Gpus = None,
    mem_cap: options.MemCap = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
    partition: options.Partition = "columns",
    variable_batch: options.VariableBatch = False,
    fuse: options.Fuse = False,
    train_only: options.TrainOnly = "",
    optimizer: options.PlannedOptimizer = "sgd-2012",
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer.")] = False,
    json: options.Json = False,
) -> None:
    """Show what each GPU holds during a training step, and whether it fits.

    Exit code 3 if it does not; the message says what would.

    Example: alexsim memory --gpus 1 --batch 96 --policy in-place

    Example: alexsim memory --train-only fc8

    Example: alexsim memory --policy reuse --fuse

    Example: alexsim memory --net resnet50 --batch 32 --optimizer adamw

    Example: alexsim memory --net alexnet-owt --partition hybrid --gpus 4 --batch 512
    """
    from alexsim.cli.output import print_json
    from alexsim.cli.parse import (
        as_optimizer,
        as_partition,
        as_policy,
        as_schedule,
        budget_of,
        fused,
        trainable,
        undone,
    )
    from alexsim.errors import AlexsimError
    from alexsim.machine.device import load_device
    from alexsim.network.editions import load_network
    from alexsim.plan.fit import fit
    from alexsim.plan.planner import representative
    from alexsim.plan.spec import PlanSpec
    from alexsim.plan.tables import memory_table

    if json:
        options.refuse(context, "is for the tables: --json has every layer", "layers")
    device = load_device(DEVICE)
    taken = int(device.context_bytes.value)
    budget = budget_of(mem_cap, device.memory_bytes.value)
    network, split = load_network(net), as_partition(partition)
    order, rule = as_schedule(schedule), as_optimizer(optimizer)
    spec = PlanSpec(
        network=network,
        gpus=gpus,
        partition=split,
        variable_batch=variable_batch,
        batch_size=batch,
        policy=as_policy(policy),
        schedule=order,
        trainable=trainable(train_only, network),
        optimizer=rule,
    )
    made = representative(fused(fuse or None, spec))
    table = memory_table(made, context_bytes=taken)
    for option, other in undone(
        made.spec, "schedule", "variable_batch", "optimizer", "fusion"
    ).items():
        if memory_table(representative(other), context_bytes=taken) == table:
            raise AlexsimError(f"{option} changes no byte here, with --policy {policy}")
    verdict = fit(made, budget, context_bytes=taken)
    if json:
        from alexsim.report.documents.plan import memory_document

        print_json(memory_document(made, verdict, context_bytes=taken))
    else:
        from alexsim.report.tables import memory_tables

        options.console().print(memory_tables(made, verdict, context_bytes=taken, layers=layers))
    if not verdict.fits:
        raise verdict.error()
