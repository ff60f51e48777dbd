"""The table of docs/history.md: what each network counts, holds and takes, by the commands.

Usage: python tests/benchmarks/history.py
"""

from __future__ import annotations

import json
import subprocess
import sys

NETWORKS = {
    "lenet-5": 1998,
    "alexnet-2012": 2012,
    "vgg16": 2014,
    "googlenet": 2014,
    "inception_v3": 2015,
    "resnet18": 2015,
    "resnet50": 2015,
    "squeezenet1_1": 2016,
    "densenet121": 2016,
    "mobilenet_v2": 2018,
    "efficientnet_b0": 2019,
}
MACHINES = ("k40", "h200")


def answer(*words: str) -> dict:
    command = [sys.executable, "-m", "alexsim", *words, "--json"]
    # `memory` ends with 3 where the budget is smaller, and answers all the same.
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


def main() -> None:
    print("| edition | year | parameters | MMAC | held, MiB |", end="")
    print("".join(f" {machine}, ms | images/s |" for machine in MACHINES))
    print("|---|---|---|---|---|" + "---|---|" * len(MACHINES))
    for name, year in NETWORKS.items():
        counted = answer("flops", "--net", name)
        batch = ("--net", name, "--batch", "32", "--policy", "reuse", "--gpus", "1")
        held = answer("memory", *batch)["devices"][0]["total_bytes"] / 2**20
        cells = [
            f"`{name}`", f"{year}", f"{counted['parameters']:,}", f"{counted['mac'] / 1e6:,.1f}",
            f"{held:,.0f}",
        ]  # fmt: skip
        for machine in MACHINES:
            step = answer("simulate", *batch, "--machine", machine)
            cells += [f"{1e3 * step['step_s']:,.1f}", f"{step['images_per_s']:,.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
