"""Replicas of a run: how many were asked for, and by how many processes they are made."""

from __future__ import annotations

from alexsim.errors import PlanError
from alexsim.network.network import Network
from alexsim.plan.plan import Plan
from alexsim.plan.spec import usual_partition
from alexsim.processes.world import Place


def data_parallel(
    network: Network, gpus: int, replicas: int | None, *, together: bool
) -> tuple[int, int | None]:
    """GPUs of a replica, and replicas: several GPUs of a network in one column have one each.

    Args:
        network: what is trained, with no partition named.
        gpus: as they were asked for.
        replicas: as they were; None if not.
        together: one process has all of them.

    Raises:
        PlanError: another number of replicas was asked for; or there are no processes for them.
    """
    if usual_partition(network, gpus) == "columns":
        return gpus, replicas
    said = f"--gpus {gpus}: {network.name} is written in one column, so each GPU has a replica"
    if replicas not in (None, gpus):
        raise PlanError(f"{said}; --replicas {replicas} says otherwise")
    if together:
        raise PlanError(
            f"{said} (--replicas {gpus}), in a process of its own: add --processes, or use torchrun"
        )
    return 1, gpus


def replicas_of(given: int | None, made: Plan, place: Place | None, *, processes: bool) -> int:
    """Copies of all columns: as many as the processes make, or as were asked for.

    Args:
        given: as they were asked for; None if not.
        made: the plan of one.
        place: where torchrun began this process; None if it did not.
        processes: whether a process per GPU is to begin.

    Raises:
        PlanError: there are no processes for them; or the batch or the partition does not allow
            as many.
    """
    columns, batch = len(made.devices), made.spec.batch_size
    if place is None:
        if given not in (None, 1) and not processes:
            raise PlanError(f"--replicas {given} needs a process per GPU: --processes, or torchrun")
        copies = given or 1
    else:
        copies, left = divmod(place.size, columns)
        if left or not copies or given not in (None, copies):
            asked = f"{given} replicas" if given else "whole replicas"
            raise PlanError(f"{place.size} processes do not make {asked} of {columns} GPU(s)")
    if copies > 1 and made.spec.partition == "hybrid":
        raise PlanError(
            f"--partition hybrid has as many --gpus as processes, not {copies} replicas"
        )
    if batch % copies:
        raise PlanError(f"--batch {batch} does not divide over {copies} replicas")
    return copies
