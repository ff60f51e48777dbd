"""``alexsim memory``: bytes per GPU, and whether they fit."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

DEVICE = "gtx580"


def memory(
    net: options.Net = "alexnet-2012",
    batch: options.Batch = 128,
    gpus: options.Gpus = None,
    mem_cap: options.MemCap = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
    partition: options.Partition = "columns",
    variable_batch: options.VariableBatch = False,
    train_only: options.TrainOnly = "",
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer.")] = False,
    json: options.Json = False,
) -> None:
    """Show what each GPU holds during a training step, and whether it fits.

    Exit code 3 if it does not; the message says what would.

    Example: alexsim memory --gpus 1 --batch 96 --policy in-place

    Example: alexsim memory --train-only fc8

    Example: alexsim memory --net alexnet-owt --partition hybrid --gpus 4 --batch 512
    """
    from alexsim.cli.output import print_json
    from alexsim.cli.parse import (
        as_partition,
        as_policy,
        as_schedule,
        budget_of,
        images_per_op,
        trainable,
    )
    from alexsim.machine.device import load_device
    from alexsim.network.editions import load_network
    from alexsim.plan.fit import fit
    from alexsim.plan.planner import plan

    device = load_device(DEVICE)
    context = int(device.context_bytes.value)
    budget = budget_of(mem_cap, device.memory_bytes.value)
    network, split = load_network(net), as_partition(partition)
    made = plan(
        network,
        gpus=gpus,
        partition=split,
        variable_batch=variable_batch,
        batch_size=images_per_op(batch, split, gpus),
        policy=as_policy(policy),
        schedule=as_schedule(schedule),
        trainable=trainable(train_only, network),
    )
    verdict = fit(made, budget, context_bytes=context)
    if json:
        from alexsim.report.documents import memory_document

        print_json(memory_document(made, verdict, context_bytes=context))
    else:
        from alexsim.report.tables import memory_tables

        options.console().print(memory_tables(made, verdict, context_bytes=context, layers=layers))
    if not verdict.fits:
        raise verdict.error()
