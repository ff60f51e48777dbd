"""How long a simulated configuration takes, planning included.

python tests/benchmarks/simulate_speed.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from alexsim.costs.correction import load_correction
from alexsim.costs.libraries import load_library
from alexsim.editions.load import load_network
from alexsim.explore.axes import combinations
from alexsim.explore.sweep import sweep
from alexsim.machine.machine import load_machine
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulator import simulate_network
from alexsim.simulate.timer import Timer


def milliseconds(run: Callable[[int], object], times: int) -> float:
    """Median of single runs."""
    seconds = []
    for index in range(times):
        started = time.perf_counter()
        run(index)
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds)


def main() -> None:
    """Print the figures."""
    network = load_network("alexnet-2012")
    timer = Timer(
        machine=load_machine("gtx580x2"),
        library=load_library("cuda-convnet"),
        correction=load_correction(),
    )

    def one(batch: int) -> object:
        return simulate_network(PlanSpec(network=network, batch_size=batch), timer)

    one(1)
    print(f"one configuration, plan made anew: {milliseconds(lambda i: one(100 + i), 50):.1f} ms")
    print(f"one configuration, plan known:     {milliseconds(lambda _: one(128), 50):.1f} ms")
    axes = {
        "batch": tuple(str(n) for n in range(32, 1032, 8)),
        "machine": ("gtx580x2", "titan-x-maxwell", "k40", "p100"),
        "library": ("cuda-convnet", "cudnn-v4"),
    }
    settings = list(combinations(axes, {"net": "alexnet-2012"}))
    started = time.perf_counter()
    points = sweep(settings, images=1_281_167, epochs=90)
    elapsed = time.perf_counter() - started
    assert not any(point.error for point in points)
    print(f"{len(points)} configurations, two devices each: {elapsed:.2f} s")
    command = [sys.executable, "-m", "alexsim", "simulate", "--json"]
    shell = milliseconds(lambda _: subprocess.run(command, check=True, capture_output=True), 7)
    print(f"alexsim simulate from the shell: {shell:.0f} ms")


if __name__ == "__main__":
    main()
