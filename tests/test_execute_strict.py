"""A process per virtual GPU: the same bits as in one process, and deaths that are named."""

import os
import signal
import time

import pytest
import torch

from alexsim.errors import MemoryBudgetError, TrainingError
from alexsim.execute.bind import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.runner import Choices
from alexsim.execute.strict import Strict
from alexsim.network.editions import load_network
from alexsim.plan.planner import plan

RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)
NETWORK = load_network("alexnet-2012")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = 60 * torch.randn(2, 3, 224, 224, generator=generator)
    return images, torch.randint(1000, (2,), generator=generator)


def run(executor: Executor | Strict) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    executor.initialise()
    losses = [
        executor.step(*batch(step), step=step, hyperparameters=RATES).losses.cpu()
        for step in range(2)
    ]
    losses.append(executor.evaluate(*batch(9)).losses.cpu())
    return losses, {name: tensor.cpu().clone() for name, tensor in executor.state().items()}


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_processes_train_to_the_same_bits(schedule: str) -> None:
    made = plan(NETWORK, batch_size=2, backend="aten", schedule=schedule)
    threads = torch.get_num_threads()
    wanted, state = run(Executor(made, seed=3, device=DEVICE))
    strict = Strict(made, Choices(seed=3, device=DEVICE), threads=threads)
    try:
        found, other = run(strict)
        assert strict.peak_bytes.keys() == {"gpu0", "gpu1"}
        assert strict.first_not_finite() == ""
        again = {name: torch.zeros_like(tensor) for name, tensor in other.items()}
        strict.load_state(again)
        assert not any(tensor.any() for tensor in strict.state().values())
    finally:
        strict.close()
    for a, b in zip(wanted, found, strict=True):
        assert torch.equal(a, b)
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, other[name]), name


def test_a_device_that_does_not_fit_is_named_wherever_it_lives() -> None:
    made = plan(NETWORK, batch_size=2, backend="aten")
    with pytest.raises(MemoryBudgetError, match="gpu"):
        Strict(made, Choices(budget_bytes=1000, device=DEVICE), threads=1)


@pytest.mark.parametrize("when", ["between steps", "in a step"])
def test_a_process_that_dies_is_named(when: str) -> None:
    made = plan(NETWORK, batch_size=2, backend="aten")
    strict = Strict(made, Choices(seed=3, device=DEVICE), threads=1)
    try:
        strict.initialise()
        child = strict._others[0][1]
        if when == "between steps":
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        else:
            os.kill(child.pid, signal.SIGSTOP)  # it will not come to its first exchange
            pid = os.fork()
            if pid == 0:
                time.sleep(2)
                os.kill(child.pid, signal.SIGKILL)
                os._exit(0)
        with pytest.raises(TrainingError, match="the process of gpu1 died"):
            strict.step(*batch(0), step=0, hyperparameters=RATES)
    finally:
        strict.close()
