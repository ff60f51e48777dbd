"""Predictions of columns, replicas and hybrid on 1 to 64 machines, as docs/partitions.md has them.

    python tests/benchmarks/partitions.py [--images 128] [--schedule overlap]

Every GPU has as many images however many there are. Columns need a network that is written in
columns, hybrid one that is not: so the first is alexnet-2012, the others are alexnet-owt, with
nearly as many parameters and nearly as much arithmetic. Prints Markdown.
"""

from __future__ import annotations

import argparse

from alexsim.errors import PlanError
from alexsim.machine.machine import Machine, load_machine
from alexsim.network.editions import load_network
from alexsim.simulate.simulator import Configuration, on_machine

MACHINES = (("gtx580x2", "10gbe"), ("k20x8", "10gbe"), ("hgx-h200", "100gbe"))
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def configurations(machine: Machine, count: int, images: int) -> dict[str, Configuration]:
    """The three partitions of so many machines."""
    gpus = count * int(machine.devices_per_node.value)
    columns = load_network("alexnet-2012")
    single = load_network("alexnet-owt")
    common = {"batch_size": gpus * images, "schedule": SCHEDULE}
    return {
        "columns": Configuration(network=columns, gpus=2, replicas=gpus // 2, **common),
        "replicas": Configuration(network=single, gpus=gpus, partition="replicas", **common),
        "hybrid": Configuration(network=single, gpus=gpus, partition="hybrid", **common),
    }


def main() -> None:
    global SCHEDULE
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--schedule", default="overlap")
    given = parser.parse_args()
    SCHEDULE = given.schedule
    for name, network in MACHINES:
        machine = load_machine(name, "", network)
        print(f"\n{machine.name}; between machines {network}; {given.images} images per GPU\n")
        print("| machines | GPUs | columns x replicas | replicas | hybrid |")
        print("|---|---|---|---|---|")
        for count in COUNTS:
            cells = []
            for one in configurations(machine, count, given.images).values():
                try:
                    found = on_machine(one, machine)
                except PlanError as error:
                    cells.append(str(error))
                    continue
                memory = max(device.memory_bytes for device in found.devices)
                fits = "" if found.fits else " (too large)"
                share = found.all_reduce_s / found.step_s
                cells.append(
                    f"{found.images_per_s:,.0f}/s, {100 * share:.0f} %,"
                    f" {memory / 2**30:.2f} GiB{fits}"
                )
            print(f"| {count} | {found.devices_count} | {' | '.join(cells)} |", flush=True)


SCHEDULE = "overlap"

if __name__ == "__main__":
    main()
