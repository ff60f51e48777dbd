"""What ``alexsim check bench`` times, case by case, for pytest-benchmark: ours and the reference.

Timed with

    python -m pytest tests/benchmarks --benchmark-enable

With the other tests one case runs, once; ``test_bench.py`` runs both sides of all.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch

from alexsim.bench.timed import cases
from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.plan.planner import plan

CASES = {case.name: case for case in cases(load_network("alexnet-2012"), 8)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "side" in metafunc.fixturenames:
        timed = metafunc.config.getoption("benchmark_enable")
        metafunc.parametrize("name", CASES if timed else ["plan"])
        metafunc.parametrize("side", ["ours", "reference"])


def test_case(benchmark: Any, name: str, side: str) -> None:
    """One side of one case, grouped with the other."""
    benchmark.group = name
    case = CASES[name]
    with ExitStack() as stack:
        ours, reference = case.make(stack)
        benchmark(ours if side == "ours" else reference)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "aten"])
def test_a_step_on_a_card(benchmark: Any, backend: str) -> None:
    """All kernels together; ``kernels/bench/layers.py`` times them one by one."""
    network = load_network("alexnet-2012")
    executor = Executor(plan(network, batch_size=128, backend=backend), device="cuda")
    executor.initialise()
    images, labels = torch.randn(128, *network.input_shape), torch.arange(128)
    benchmark.group = "step on a card"

    def step() -> None:
        executor.step(images, labels, step=0, hyperparameters=Hyperparameters(weight_rate=1e-20))
        torch.cuda.synchronize()

    benchmark(step)
