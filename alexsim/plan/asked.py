"""GPUs and partition that go together, where a question leaves one of them out."""

from __future__ import annotations

from alexsim.machine.counted import devices_in
from alexsim.network.network import Network
from alexsim.plan.choices import Partition
from alexsim.plan.spec import usual_partition


def gpus_and_partition(
    network: Network,
    *,
    gpus: int | None,
    partition: Partition | None,
    replicas: int = 1,
    machine: str = "",
) -> tuple[int | None, Partition]:
    """Both of them, where one or both were not said.

    A machine's name that counts its devices, as ``a100x4`` does, means all of them where the
    network can have as many; and several of them are the ``usual_partition``.
    """
    count = devices_in(machine) if gpus is None and replicas == 1 else None
    if count is not None:
        of_columns = partition != "columns" and network.columns == 1
        copies = partition in ("replicas", "hybrid")
        gpus = count if of_columns or copies or count in (1, network.columns) else None
    return gpus, partition or usual_partition(network, gpus)
