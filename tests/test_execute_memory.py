"""Budgets and allocations: what the ledger refuses, and that a step allocates what it declares."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alexsim.editions.load import load_network
from alexsim.errors import MemoryBudgetError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.memory import Ledger
from alexsim.plan.planner import plan
from alexsim.units import MIB

GIB3 = 3 * 1024**3


class Allocations(TorchDispatchMode):
    """Bytes of the storages that operators make and that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        given = {
            leaf.untyped_storage().data_ptr()
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage.data_ptr() not in given and storage.nbytes():
                    self.live[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {key: held for key, held in self.live.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def executor_and_batch(batch: int, **choices: Any) -> tuple[Executor, torch.Tensor, torch.Tensor]:
    network = load_network(choices.pop("net", "alexnet-2012"))
    choices = {"backend": "aten", "threads": torch.get_num_threads()} | choices
    executor = Executor(plan(network, batch_size=batch, **choices))
    executor.initialise()
    images = torch.randn(batch, *network.input_shape)
    labels = torch.randint(0, network.classes, (batch,))
    return executor, images, labels


@pytest.mark.parametrize(
    ("net", "choices"),
    [
        ("alexnet-2012", {}),
        ("alexnet-2012", {"gpus": 1, "policy": "reuse"}),
        ("alexnet-paper", {"policy": "in-place"}),
        ("alexnet-6conv", {}),
        ("alexnet-owt", {"policy": "reuse"}),
        ("alexnet-2012", {"fusion": "kernels"}),
        ("alexnet-owt", {"policy": "reuse", "fusion": "kernels"}),
        ("lenet-5", {}),
        ("alexnet-2012", {"backend": "native"}),
        ("alexnet-owt", {"backend": "native", "policy": "reuse", "fusion": "kernels"}),
        ("lenet-5", {"backend": "native"}),
    ],
)
def test_no_op_allocates_more_than_it_declares(net: str, choices: dict) -> None:
    assert not undeclared(*executor_and_batch(16, net=net, **choices))


def undeclared(
    executor: Executor, images: torch.Tensor, labels: torch.Tensor
) -> list[tuple[str, int, int]]:
    """Ops that allocate more than they declare: the bytes that they do, and those declared."""
    executor.step(images, labels, step=0, hyperparameters=Hyperparameters())
    over: list[tuple[str, int, int]] = []
    for runner in executor.runners:
        for index, (op, run) in enumerate(runner._ops):
            if run is None:
                continue

            def watched(context, op=op, run=run) -> None:
                with Allocations() as seen:
                    run(context)
                # A megabyte covers losses, masks of a layer and the like.
                if seen.peak > op.scratch_bytes + MIB:
                    over.append((op.id, seen.peak, op.scratch_bytes))

            runner._ops[index] = (op, watched)
    executor.step(images, labels, step=1, hyperparameters=Hyperparameters())
    return over


def storages() -> dict[int, int]:
    """Bytes of every distinct storage that a live tensor holds."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():
        # isinstance would ask lazy modules of torch for their class, and they warn.
        if issubclass(type(thing), FakeTensor):
            continue  # of a module that was traced: it has no memory
        if issubclass(type(thing), torch.Tensor) and thing.layout == torch.strided:
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found


@pytest.mark.parametrize(
    ("policy", "fusion", "backend"),
    [
        ("as-released", "none", "aten"), ("as-released", "none", "native"),
        ("reuse", "none", "aten"), ("reuse", "kernels", "aten"), ("reuse", "kernels", "native"),
    ],
)  # fmt: skip
def test_measured_memory_is_the_plan_s(policy: str, fusion: str, backend: str) -> None:
    """Live storages and the allocations seen in a step, against the plan: within a half percent."""
    before = storages()
    executor, images, labels = executor_and_batch(32, policy=policy, fusion=fusion, backend=backend)
    held = {key: size for key, size in storages().items() if key not in before}
    for tensor in (images, labels):
        held.pop(tensor.untyped_storage().data_ptr())
    with Allocations() as seen:
        executor.step(images, labels, step=0, hyperparameters=Hyperparameters())
    measured = sum(held.values()) + seen.peak
    # ATen's scratch is free again before the other device's turn; that of our kernels is shared.
    planned = sum(device.arena_bytes for device in executor.plan.devices) + max(
        device.scratch_bytes for device in executor.plan.devices
    )
    assert measured == pytest.approx(planned, rel=0.005)
    for device in executor.plan.devices:
        assert executor.peak_bytes[device.name] == device.total_bytes


def test_exchanged_bytes_are_the_plan_s() -> None:
    executor, images, labels = executor_and_batch(128, policy="reuse", backend="native")
    executor.step(images, labels, step=0, hyperparameters=Hyperparameters())
    assert executor.transport.exchanged_bytes == 57.25 * MIB
    executor.evaluate(images, labels)
    assert executor.transport.exchanged_bytes == (57.25 + 28.625) * MIB


def test_the_ledger_refuses_before_anything_is_taken() -> None:
    ledger = Ledger("gpu0", 100)
    ledger.reserve("a", 60)
    with pytest.raises(MemoryBudgetError, match=r"gpu0: b would take .* 101 B, .* 100 B; .* x"):
        ledger.reserve("b", 101, "x")
    assert ledger.peak_bytes == 60
    ledger.reserve("b", 100)


def test_a_plan_over_budget_is_refused_without_allocating() -> None:
    network = load_network("alexnet-2012")
    whole = plan(network, gpus=1, backend="aten")
    before = storages()
    with pytest.raises(MemoryBudgetError, match=r"would take .* 3\.00 GiB.*--batch \d+"):
        Executor(whole, budget_bytes=GIB3)
    assert storages().keys() <= before.keys()
    (device,) = whole.devices
    with pytest.raises(MemoryBudgetError, match="scratch"):
        Executor(whole, budget_bytes=device.total_bytes - 1)
    Executor(whole, budget_bytes=device.total_bytes)


def test_a_plan_without_scratch_is_not_run() -> None:
    with pytest.raises(ValueError, match="backend must be one of aten, native, triton"):
        Executor(plan(load_network("lenet-5")))


def test_evaluation_scales_instead_of_dropping_and_changes_nothing() -> None:
    executor, images, labels = executor_and_batch(8)
    before = {name: tensor.clone() for name, tensor in executor.state().items()}
    first = executor.evaluate(images, labels).losses.clone()
    second = executor.evaluate(images, labels).losses
    assert torch.equal(first, second)
    for name, tensor in executor.state().items():
        assert torch.equal(tensor, before[name])
    memory = executor.runners[0].memory
    relu, dropped = (memory.buffer(f"gpu0/{n}.a.activation") for n in ("relu6", "dropout6"))
    assert torch.equal(dropped, relu * 0.5)


def test_equal_guesses_share_the_credit() -> None:
    executor, images, labels = executor_and_batch(4, net="lenet-5")
    for name, tensor in executor.state().items():
        if name.startswith("fc5"):
            tensor.zero_()
    context = executor.evaluate(images, labels)
    # Ten equal guesses: the right one is first in a tenth, among five in half of the cases.
    assert context.top1.tolist() == pytest.approx([0.9] * 4)
    assert context.top5.tolist() == pytest.approx([0.5] * 4)


def test_state_round_trips_and_names_what_is_wrong() -> None:
    executor, *_ = executor_and_batch(1, net="lenet-5")
    state = {name: tensor.clone() for name, tensor in executor.state().items()}
    executor.load_state(state)
    state["x"] = state.pop("fc5.a.bias")
    with pytest.raises(ValueError, match=r"missing \['fc5.a.bias'\], unknown \['x'\]"):
        executor.load_state(state)
