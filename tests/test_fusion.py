"""Two layers as one op: what is fused, what it counts and holds, and that it computes the same."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from mixed import some_ops
from test_graph import (
    BATCH,
    GRAPHS,
    RATES,
    SEED,
    assert_trains_as_autograd_does,
    conv,
    minibatch,
    network,
    ours,
)
from test_graph import theirs as by_autograd

from alexsim.costs.correction import UNFITTED
from alexsim.costs.libraries import load_library
from alexsim.costs.measured import machine_of, read
from alexsim.documents.profile import plan_document
from alexsim.editions.load import load_network
from alexsim.errors import PlanError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.machine.machine import load_machine
from alexsim.network.kernel_names import kernel_names
from alexsim.network.layers import (
    Add,
    Concat,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SpatialResponseNorm,
)
from alexsim.network.network import Network
from alexsim.page.steps import layer_table
from alexsim.plan.choices import RUN_POLICIES
from alexsim.plan.plan import Category, OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.step_profile import Ceilings
from alexsim.report.tables import lent_text
from alexsim.simulate.simulator import on_machine, planned, simulate_network
from alexsim.simulate.timer import Timer

PRODUCTS_2012 = {
    "conv2": "relu2", "conv3": "relu3", "conv4": "relu4", "fc6": "relu6", "fc7": "relu7",
}  # fmt: skip
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pool(name: str, size: int = 3, stride: int = 2, **fields: object) -> MaxPool:
    return MaxPool(name=name, size=size, stride=stride, **{"rounding": "ceil"} | fields)


def norm(name: str, **fields: object) -> LocalResponseNorm:
    return LocalResponseNorm(name=name, alpha=0.1, **fields)


MIXED = network(
    conv("c0", 6), ReLU(name="r0"), norm("n0"), pool("p0", ties="all"),
    conv("c1", 5, 3, inputs=("p0",)), ReLU(name="r1"),
    conv("c2", 4, 1, padding=0, inputs=("p0",)), ReLU(name="r2"),
    Concat(name="cat", inputs=("r1", "r2")),
    conv("c3", 7), norm("n3", size=3), pool("p3", 2, 2),
    FullyConnected(name="f4", units=6, weight_std=0.3), ReLU(name="r4"), Dropout(name="d4"),
)  # fmt: skip
LATE = network(
    conv("c0", 6), ReLU(name="r0"),
    conv("cx", 6, inputs=("r0",)),
    conv("other", 6, inputs=("r0",)),
    ReLU(name="rx", inputs=("cx",)),
    Add(name="sum", inputs=("rx", "r0")),
    Add(name="all", inputs=("sum", "other")), pool("p"),
)  # fmt: skip
"""What ends a kernel stands behind a layer that adds to a gradient which it shares by a sum."""


def fused_in(made: Plan) -> dict[str, str]:
    return {op.layer: op.epilogue for op in made.ops() if op.epilogue}


def fused(net: Network | str, **choices: object) -> Plan:
    net = load_network(net) if isinstance(net, str) else net
    return plan(net, **{"batch_size": 4, "fusion": "kernels"} | choices)


@pytest.mark.parametrize("backend", ["", "aten", "triton"])
def test_what_the_backend_has_kernels_for_is_fused(backend: str) -> None:
    """The norm over pixels has no such kernel, nor has a pool before its ReLU."""
    norms = {} if backend == "aten" else {"norm1": "pool1"}
    assert fused_in(fused("alexnet-2012", backend=backend)) == PRODUCTS_2012 | norms
    assert fused_in(fused("alexnet-2012", backend=backend, fusion="none")) == {}


def test_what_others_read_is_not_fused() -> None:
    first = (conv("c0", 6),)
    for layers in (
        # Another layer reads it.
        (*first, ReLU(name="r"), Add(name="a", inputs=("r", "c0"))),
        # Another non-linearity; a norm over pixels; a norm before a pool that its kernel lacks.
        (*first, Dropout(name="d"), ReLU(name="r")),
        (SpatialResponseNorm(name="n"), pool("p")),
        (norm("n"), pool("p", 4, 2)),
        (norm("n"), pool("p", padding=1)),
        # It lies beside another.
        (*first, conv("c1", 6), Concat(name="cat", inputs=("c0", "c1")), ReLU(name="r")),
    ):
        assert not fused_in(fused(network(*layers)))
    # What a norm reads is read by another: its kernel would have to add to that gradient.
    added = network(*first, norm("n"), pool("p"), pool("q", inputs=("c0",)),
                    Add(name="a", inputs=("p", "q")))  # fmt: skip
    assert not fused_in(fused(added, backend="triton"))
    assert fused_in(fused(added)) == {"n": "p"}


def test_what_a_product_reads_as_rows_is_no_kernels_of_ours() -> None:
    def made_by(net: Network, policy: str) -> dict[str, str]:
        ops = fused(net, backend="triton", policy=policy).ops()
        return {op.layer: op.backend for op in ops if op.epilogue}

    # A ReLU's output lies so, and with policy reuse what it overwrites: then ATen does both.
    net = network(conv("c0", 6), ReLU(name="r0"))
    assert made_by(net, "as-released") == {}
    assert made_by(net, "reuse") == {"c0": "aten"}
    pooled = network(norm("n0"), pool("p0"), ReLU(name="r0"))
    assert made_by(pooled, "as-released") == {"n0": "triton"}
    assert made_by(pooled, "reuse") == {}
    # The gradient of what it reads lies so, as a sum passes it on.
    summed = network(conv("c0", 6), conv("c1", 6), ReLU(name="r1"),
                     Add(name="a", inputs=("r1", "c0")))  # fmt: skip
    for policy in ("as-released", "reuse"):
        assert made_by(summed, policy) == {"c1": "aten"}
        assert_trains_as_autograd_does(net, fusion="kernels", policy=policy)


def test_columns_on_one_device_or_two_are_fused_alike() -> None:
    for gpus in (1, 2):
        assert fused_in(fused("alexnet-2012", gpus=gpus)) == PRODUCTS_2012 | {"norm1": "pool1"}
    hybrid = fused("alexnet-owt", gpus=2, partition="hybrid", batch_size=8)
    assert {"conv1", "fc6", "fc7"} <= fused_in(hybrid).keys()


@pytest.mark.parametrize("backend", ["", "aten", "triton"])
@pytest.mark.parametrize(
    "net", ["alexnet-2012", "alexnet-paper", "vgg-m", "squeezenet1_1", "googlenet-heads"]
)
def test_all_arithmetic_is_counted_and_less_is_moved(net: str, backend: str) -> None:
    made, apart = (fused(net, backend=backend, fusion=fusion) for fusion in ("kernels", "none"))
    assert fused_in(made)

    def totals(of: Plan) -> tuple[int, int, int]:
        counts = [op.count for op in of.ops()]
        return tuple(
            sum(getattr(count, name) for count in counts)
            for name in ("mac", "elementwise_flop", "moved_bytes")
        )

    *work, moved = totals(made)
    *same, more = totals(apart)
    assert work == same
    assert moved < more
    assert made.exchanged_bytes == apart.exchanged_bytes


def test_the_traffic_of_each_fused_op() -> None:
    """By hand, in units of what lies between: 4 bytes of each of 4 images' 6 x 9 x 7 values."""
    net = network(conv("c0", 6), ReLU(name="r0"), norm("n0"), pool("p0", 3, 2))
    unit = 4 * 4 * 6 * 9 * 7
    out = 4 * 4 * 6 * 4 * 3
    moved = {op.id: op.count.moved_bytes for op in fused(net).ops()}
    alone = {op.id: op.count.moved_bytes for op in fused(net, fusion="none").ops()}
    assert moved["c0.a.forward"] == alone["c0.a.forward"]
    assert moved["c0.a.grad_weight"] == alone["c0.a.grad_weight"] + unit
    # The norm's input in, the pool's output and two bytes of bits per window out; and back.
    assert moved["n0.a.forward"] == unit + out + out // 2
    assert moved["n0.a.grad_input"] == 2 * unit + out + out // 2
    gone = alone.keys() - moved.keys()
    assert gone == {f"{n}.a.{kind}" for n in ("r0", "p0") for kind in ("forward", "grad_input")}


@pytest.mark.parametrize("policy", RUN_POLICIES)
def test_what_lies_between_is_in_no_memory(policy: str) -> None:
    made = fused("alexnet-2012", policy=policy)
    names = {buffer.name.partition("/")[2] for d in made.devices for buffer in d.buffers}
    for first in fused_in(made):
        assert (
            not {f"{first}.a.{what}" for what in ("activation", "activation_grad", "norm")} & names
        )
    assert "pool1.a.winners" in names
    bits = next(b for b in made.devices[0].buffers if b.name == "gpu0/pool1.a.winners")
    assert bits.category == Category.NORM
    assert bits.size_bytes == 2 * 4 * 48 * 27 * 27
    for device in made.devices:
        known = {buffer.name for buffer in device.buffers}
        assert all(not buffer.shares or buffer.shares in known for buffer in device.buffers)
    apart = fused("alexnet-2012", policy=policy, fusion="none")
    for one, other in zip(made.devices, apart.devices, strict=True):
        assert one.total_bytes < other.total_bytes


def test_layers_that_another_backend_runs_are_named() -> None:
    apart = fused("alexnet-2012", backend="triton", fusion="none")
    made = fused("alexnet-2012", backend="triton")
    assert set(apart.lent) - set(made.lent) == set(PRODUCTS_2012.values())
    assert lent_text(made) == "4 of 24 layers by aten: relu1, relu5, dropout6, dropout7"
    assert not fused("alexnet-2012", backend="aten").lent
    assert not fused("alexnet-2012").lent


@pytest.mark.parametrize("policy", ["as-released", "reuse"])
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("name", [*GRAPHS, "mixed", "late"])
def test_aten_computes_the_same_bits(name: str, policy: str, schedule: str) -> None:
    net = GRAPHS.get(name) or {"mixed": MIXED, "late": LATE}[name]
    choices = {"policy": policy, "schedule": schedule}
    losses, _, state = ours(net, fusion="kernels", **choices)
    wanted_losses, _, wanted = ours(net, **choices)
    assert losses == wanted_losses
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("gpus", [1, 2])
def test_aten_computes_the_same_bits_of_alexnet(gpus: int) -> None:
    """Winograd's method, pieces of images, columns in one block."""
    found = []
    for fusion in ("kernels", "none"):
        made = fused("alexnet-2012", backend="aten", gpus=gpus, policy="reuse", fusion=fusion)
        executor = Executor(made, seed=3)
        executor.initialise()
        generator = torch.Generator().manual_seed(1)
        images = 60 * torch.randn(4, 3, 224, 224, generator=generator)
        labels = torch.arange(4)
        losses = executor.step(
            images, labels, step=0, hyperparameters=Hyperparameters()
        ).losses.clone()
        found.append((losses, executor.evaluate(images, labels).losses, executor.state()))
    (losses, test, state), (wanted, wanted_test, other) = found
    assert torch.equal(losses, wanted)
    assert torch.equal(test, wanted_test)
    assert all(torch.equal(state[key], other[key]) for key in other)


@pytest.mark.parametrize("choices", [{}, {"policy": "reuse", "schedule": "overlap"}])
@pytest.mark.parametrize("net", [MIXED, LATE], ids=["mixed", "late"])
def test_triton_s_fused_kernels_train_as_autograd_does(net: Network, choices: dict) -> None:
    """In the interpreter where there is no card: both passes of every fused kernel."""
    made = plan(net, batch_size=BATCH, backend="triton", fusion="kernels", **choices)
    both = {op.layer for op in made.ops() if op.epilogue and op.kind == OpKind.GRAD_INPUT}
    assert both
    assert_kernels_train(net, made)


@pytest.mark.parametrize("fusion", ["none", "kernels"])
@pytest.mark.parametrize(("seed", "policy"), [*enumerate(RUN_POLICIES)])
def test_a_step_that_aten_and_triton_share_trains_as_autograd_does(
    seed: int, fusion: str, policy: str
) -> None:
    """What an op of one leaves for an op of the other, in either order."""
    choices = {"batch_size": BATCH, "fusion": fusion, "policy": policy}
    for net in (MIXED, LATE):
        made = plan(net, backend="aten", triton_ops=some_ops(net, seed), **choices)
        assert {op.backend for op in made.ops()} == {"aten", "triton"}
        assert_kernels_train(net, made)


def test_both_passes_of_two_layers_are_fused_where_all_their_kernels_are_ours() -> None:
    def passes(*left: str) -> dict[str, int]:
        """Ops that do two layers, by the first, where kernels of these kinds are ATen's."""
        names = tuple(n for n in sorted(kernel_names(MIXED)) if not n.startswith(left or ("-",)))
        ops = [op for op in fused(MIXED, backend="aten", triton_ops=names).ops() if op.epilogue]
        return {name: sum(op.layer == name for op in ops) for name in dict.fromkeys(fused_in(made))}

    made = fused(MIXED, backend="triton")
    both = {"c0": 2, "n0": 2, "c1": 3, "c2": 3, "f4": 3}
    assert passes() == both
    # ATen's forward pass can end with a ReLU.
    assert passes("convolution forward") == both
    assert passes("linear grad_weight") == both | {"f4": 1}
    assert passes("convolution grad_input") == both | {"c1": 1, "c2": 1}
    for pass_ in ("forward", "grad_input"):
        assert passes(f"norm and max-pool {pass_}") == both | {"n0": 0}


@pytest.mark.parametrize("net", ["alexnet-2012", "alexnet-owt", "vgg-m", "googlenet-heads"])
@pytest.mark.parametrize("fusion", ["none", "kernels"])
def test_all_ops_by_triton_are_triton_s_plan(net: str, fusion: str) -> None:
    names = tuple(sorted(kernel_names(load_network(net))))
    for policy in RUN_POLICIES:
        made = fused(net, backend="aten", triton_ops=names, fusion=fusion, policy=policy)
        assert made.devices == fused(net, backend="triton", fusion=fusion, policy=policy).devices


def assert_kernels_train(net: Network, made: Plan) -> None:
    """Losses, and what two steps change, are those of autograd in float64."""
    executor = Executor(made, seed=SEED, device=DEVICE)
    executor.initialise()
    first = {name: tensor.clone().double().cpu() for name, tensor in executor.state().items()}
    losses = []
    for step in range(2):
        images, labels = minibatch(net, step)
        context = executor.step(images.float(), labels, step=step, hyperparameters=RATES)
        losses.append(context.losses.mean().double().cpu())
    images, labels = minibatch(net, 99)
    losses.append(executor.evaluate(images.float(), labels).losses.mean().double().cpu())
    wanted_losses, wanted = by_autograd(net, first, steps=2)
    torch.testing.assert_close(
        torch.stack(losses), torch.stack(wanted_losses), rtol=1e-5, atol=1e-6
    )
    for name, tensor in executor.state().items():
        change, exact = tensor.double().cpu() - first[name], wanted[name] - first[name]
        assert (change - exact).norm() <= 1e-4 * exact.norm() + 1e-6, name


def test_gradients_that_go_into_no_momentum_are_masked_too() -> None:
    """Another rule needs the gradient of a fully connected layer itself."""
    states = []
    for backend, fusion in (("triton", "kernels"), ("aten", "none")):
        made = plan(MIXED, batch_size=BATCH, backend=backend, fusion=fusion, optimizer="sgd")
        (op,) = (op for op in made.ops() if op.id == "f4.a.grad_weight")
        assert (op.backend, op.fused) == (backend, False)
        executor = Executor(made, seed=SEED, device=DEVICE if backend == "triton" else "cpu")
        executor.initialise()
        first = {name: tensor.clone().cpu() for name, tensor in executor.state().items()}
        images, labels = minibatch(MIXED, 0)
        executor.step(images.float(), labels, step=0, hyperparameters=RATES)
        states.append({name: tensor.cpu() for name, tensor in executor.state().items()})
    for name, start in first.items():
        change = (states[1][name] - start).norm()
        assert (states[0][name] - states[1][name]).norm() <= 1e-4 * change + 1e-6, name


def test_another_word_is_refused() -> None:
    with pytest.raises(PlanError, match="fusion must be one of none, kernels"):
        plan(load_network("lenet-5"), fusion="all")


def test_a_fused_step_is_predicted_shorter_and_stands_on_a_page() -> None:
    spec = PlanSpec(network=load_network("alexnet-2012"), fusion="kernels")
    machine = load_machine("gtx580x2")
    found = on_machine(spec, machine)
    assert found.step_s < on_machine(replace(spec, fusion="none"), machine).step_s
    names = {layer.name for layer in found.layers}
    assert not names & {*PRODUCTS_2012.values(), "pool1"}
    document = plan_document(planned(spec, machine), found, Ceilings(flop_per_s=1, bytes_per_s=1))
    assert document.fused == PRODUCTS_2012 | {"norm1": "pool1"}
    rows = {row[0]: row[1] for row in layer_table(document).rows}
    assert rows["relu2"] == rows["pool1"] == ""
    assert rows["norm1"] == "memory"


def test_a_calibration_has_no_times_of_fused_layers() -> None:
    path = files("alexsim_profiles") / "baselines" / "cpu-2-cores" / "calibration.json"
    known = read(str(path))
    timer = Timer(
        machine=machine_of(known),
        library=load_library("measured"),
        correction=UNFITTED,
        calibration=known,
    )
    spec = PlanSpec(network=load_network("alexnet-2012"), fusion="kernels")
    with pytest.raises(PlanError, match="no times of layers that are fused"):
        simulate_network(spec, timer)
