"""Predictions of columns, replicas and hybrid on 1 to 64 machines, as docs/partitions.md has them.

    python tests/benchmarks/partitions.py [--images 64,16] [--schedule overlap]

Every GPU has as many images however many there are; a pair of columns has those of two. A cell is
images/s, and the share of a step that sums of gradients and gathering take, hidden or not. Columns
need a network that is written in columns, hybrid one that is not: so the first is alexnet-2012, the
others are alexnet-owt, with nearly as many parameters and nearly as much arithmetic. Prints
Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from alexsim.editions.load import load_network
from alexsim.machine.machine import Machine, load_machine
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulator import on_machine

MACHINES = (("gtx580x2", "10gbe"), ("k20x8", "10gbe"), ("hgx-h200", "100gbe"))
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def configurations(gpus: int, images: int, schedule: str) -> tuple[PlanSpec, ...]:
    """The three partitions over so many GPUs."""
    columns = PlanSpec(
        network=load_network("alexnet-2012"), gpus=2, replicas=gpus // 2,
        batch_size=gpus * images, schedule=schedule,
    )  # fmt: skip
    replicas = replace(
        columns, network=load_network("alexnet-owt"), gpus=gpus, replicas=1, partition="replicas"
    )
    return columns, replicas, replace(replicas, partition="hybrid")


def cell(configuration: PlanSpec, machine: Machine) -> str:
    """Images/s, what collectives take, and whether it fits."""
    found = on_machine(configuration, machine, data="none")
    fits = "" if found.fits else ", too large"
    return f"{found.images_per_s:,.0f} ({100 * found.all_reduce_s / found.step_s:.0f} %{fits})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", default="64,16")
    parser.add_argument("--schedule", default="overlap")
    given = parser.parse_args()
    for name, network in MACHINES:
        machine = load_machine(name, "", network)
        for images in (int(text) for text in given.images.split(",")):
            print(f"\n{machine.name}; {network} between machines; {images} images per GPU:\n")
            print("| machines | GPUs | columns x replicas | replicas | hybrid |")
            print("|---|---|---|---|---|")
            for count in COUNTS:
                gpus = count * int(machine.devices_per_node.value)
                cells = [cell(one, machine) for one in configurations(gpus, images, given.schedule)]
                print(f"| {count} | {gpus} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
