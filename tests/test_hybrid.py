"""Partition hybrid: copies of the convolutions, slices of the fully connected layers, in turns."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from test_plan_memory import assert_sound
from test_ranks import alexsim, assert_near, assert_same, ranks_by_hand, state_of, train
from torch import nn
from torch.nn import functional as F

from alexsim.budget.fit import fit
from alexsim.costs.correction import load_correction
from alexsim.costs.libraries import load_library
from alexsim.editions.load import load_network
from alexsim.errors import NetworkError, PlanError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.machine.machine import Machine, load_machine
from alexsim.network.hybrid import hybrid
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.network.part import letter
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan, representative
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import default_library, on_machine, simulate
from alexsim.simulate.timer import Timer

NET = Network(
    name="small",
    input_shape=(3, 13, 13),
    layers=(
        Convolution(name="conv1", filters=6, size=3, padding=1, weight_std=0.2, bias_init=0.1),
        ReLU(name="relu1"),
        LocalResponseNorm(name="norm1"),
        MaxPool(name="pool1", size=3, stride=2),
        Convolution(name="conv2", filters=5, size=3, reads="all", weight_std=0.2),
        ReLU(name="relu2"),
        Dropout(name="dropout2"),
        FullyConnected(name="fc3", units=11, weight_std=0.1, bias_init=0.2),
        ReLU(name="relu3"),
        Dropout(name="dropout3"),
        FullyConnected(name="fc4", units=2, weight_std=0.3),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
"""Dropout on both sides of the split; units that do not divide; fewer classes than devices."""
BATCH = 12
RATES = Hyperparameters(
    weight_rate=0.05, bias_rate=0.07, momentum=0.8, weight_decay=0.03,
    layer_rates=(("fc3", 0.02), ("conv2", 0.04)),
)  # fmt: skip


def minibatch(network: Network = NET) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    images = torch.randn(BATCH, *network.input_shape, generator=drawn, dtype=torch.float64)
    return images, torch.randint(network.classes, (BATCH,), generator=drawn)


def trained(made: Plan, steps: int = 3) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The state after some steps in float64, and the losses of each, and of a test."""
    executor = Executor(made, dtype=torch.float64, seed=3)
    executor.initialise()
    images, labels = minibatch()
    losses = [
        executor.step(images, labels, step=step, hyperparameters=RATES).losses
        for step in range(steps)
    ]
    tested = executor.evaluate(images, labels)
    return {k: v.clone() for k, v in executor.state().items()}, torch.stack(
        [*losses, tested.losses]
    )


@pytest.fixture(scope="module")
def alone() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    return trained(plan(NET, batch_size=BATCH, backend="aten"))


@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("gpus", [1, 2, 3, 4])
def test_any_number_of_devices_trains_as_one(
    gpus: int, schedule: str, policy: str, alone: tuple[dict[str, torch.Tensor], torch.Tensor]
) -> None:
    made = plan(
        NET, gpus=gpus, partition="hybrid", batch_size=BATCH, schedule=schedule,
        policy=policy, backend="aten",
    )  # fmt: skip
    assert (made.turns, made.images) == (gpus, BATCH)
    assert_sound(made)
    state, losses = trained(made)
    assert state.keys() == alone[0].keys()
    for name, value in alone[0].items():
        torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-13, msg=name)
    torch.testing.assert_close(losses, alone[1], rtol=1e-10, atol=1e-13)


class Plain(nn.Module):
    """The same network, but for dropout, in plain PyTorch."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.own = nn.ParameterDict(
            {name.replace(".a.", "_"): nn.Parameter(value) for name, value in state.items()}
        )

    def features(self, x: torch.Tensor) -> torch.Tensor:
        own = self.own
        x = F.conv2d(x, own["conv1_weight"], own["conv1_bias"], padding=1).relu()
        x = F.max_pool2d(self.norm(x), 3, 2)
        return F.conv2d(x, own["conv2_weight"], own["conv2_bias"]).relu().flatten(1)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        layer = NET.layers[2]
        assert isinstance(layer, LocalResponseNorm)
        squares = F.pad(x * x, (0, 0, 0, 0, layer.size // 2, layer.size // 2))
        around = sum(squares[:, i : i + x.shape[1]] for i in range(layer.size))
        return x / (layer.k + layer.alpha * around) ** layer.beta

    def head(self, x: torch.Tensor) -> torch.Tensor:
        own = self.own
        x = F.linear(x, own["fc3_weight"], own["fc3_bias"]).relu()
        return F.linear(x, own["fc4_weight"], own["fc4_bias"])


class Sgd:
    """The update rule of 2012, with the rates above."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.own = parameters
        self.speed = {name: torch.zeros_like(one) for name, one in parameters.items()}

    @torch.no_grad()
    def update(self, share: float = 1.0) -> None:
        for name, one in self.own.items():
            layer, _, kind = name.partition("_")
            bias = kind == "bias"
            rate = RATES.bias_rate if bias else RATES.weight_rate_of(layer)
            decay = 0.0 if bias else RATES.weight_decay
            self.speed[name] *= RATES.momentum
            self.speed[name] -= rate * (decay * one + share * one.grad)
            one += self.speed[name]
            one.grad = None


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("gpus", [2, 3])
def test_a_variable_batch_updates_split_layers_after_every_turn(gpus: int, schedule: str) -> None:
    """Against section 4.2 of Krizhevsky 2014 by hand: autograd, turn by turn."""
    network = replace(NET, layers=tuple(la for la in NET.layers if not isinstance(la, Dropout)))
    made = plan(
        network, gpus=gpus, partition="hybrid", variable_batch=True, batch_size=BATCH,
        schedule=schedule, backend="aten",
    )  # fmt: skip
    executor = Executor(made, dtype=torch.float64, seed=3)
    executor.initialise()
    first = {
        name: value.clone()
        for name, value in executor.state().items()
        if not name.endswith("momentum")
    }
    plain = Plain(first)
    convolutions = Sgd({k: v for k, v in plain.own.items() if k.startswith("conv")})
    split = Sgd({k: v for k, v in plain.own.items() if k.startswith("fc")})
    images, labels = minibatch()
    for step in range(3):
        found = executor.step(images, labels, step=step, hyperparameters=RATES)
        features = plain.features(images)
        gradients, losses = [], []
        for turn in torch.arange(BATCH).chunk(gpus):
            own = features[turn].detach().requires_grad_()
            loss = F.cross_entropy(plain.head(own), labels[turn], reduction="none")
            loss.mean().backward()
            split.update()
            gradients.append(own.grad)
            losses.append(loss.detach())
        features.backward(torch.cat(gradients))
        # Every turn's is a mean over its own images.
        convolutions.update(1 / gpus)
        torch.testing.assert_close(found.losses, torch.cat(losses), rtol=1e-10, atol=1e-13)
    for name, value in executor.state().items():
        if not name.endswith("momentum"):
            expected = plain.own[name.replace(".a.", "_")]
            torch.testing.assert_close(value, expected.data, rtol=1e-10, atol=1e-13, msg=name)


def test_what_crosses_is_what_2014_says() -> None:
    """Features of every image to all other devices and their gradients back, outputs of split
    layers likewise, those of the last layer to column a only."""
    gpus, images = 4, 128
    made = plan(load_network("alexnet-owt"), gpus=gpus, partition="hybrid", batch_size=images)
    others = gpus - 1
    gathered = others * images * 9216
    hidden = 2 * others * images * 4096
    outputs = images * (1000 - 250)
    assert made.exchanged_bytes == 2 * 4 * (gathered + hidden + outputs)
    sums = [op for op in made.ops() if op.kind == OpKind.ALL_REDUCE]
    assert {op.layer for op in sums} == {"conv1", "conv2", "conv3", "conv4", "conv5"}
    sent: dict[str, int] = defaultdict(int)
    for exchange in made.exchanges:
        sent[exchange.source] += exchange.size_bytes
    assert sent["gpu1"] == sent["gpu2"] == sent["gpu3"]


def test_every_device_holds_a_slice_of_the_split_layers_and_a_copy_of_the_rest() -> None:
    network = load_network("alexnet-owt")
    made = plan(network, gpus=3, partition="hybrid", batch_size=96)
    rows = dict.fromkeys(("fc6", "fc7", "fc8"), 0)
    for index, device in enumerate(made.devices):
        shapes = {b.name.partition("/")[2]: b.shape for b in device.buffers}
        for layer in rows:
            rows[layer] += shapes[f"{layer}.{letter(index)}.weight"][0]
        assert shapes[f"conv1.{letter(index)}.weight"] == (64, 3, 11, 11)
    assert rows == {"fc6": 4096, "fc7": 4096, "fc8": 1000}
    assert made.network.parameters == network.parameters
    assert made.network.neurons == network.neurons


def test_flop_are_those_of_one_device() -> None:
    network = load_network("alexnet-owt")
    one = plan(network, batch_size=12)
    made = plan(network, gpus=4, partition="hybrid", batch_size=12)
    assert sum(op.count.mac for op in made.ops()) == sum(op.count.mac for op in one.ops())
    # But for what is added on arrival, elementwise work is the same too.
    own = [op for op in made.ops() if op.kind not in (OpKind.REDUCE_SCATTER, OpKind.UPDATE)]
    theirs = [op for op in one.ops() if op.kind != OpKind.UPDATE]
    # A later turn multiplies by the rate and adds once more.
    split = [p for ps in network.parts for p in ps if isinstance(p.layer, FullyConnected)]
    again = 2 * 3 * sum(part.weight_count for part in split)
    assert sum(op.count.elementwise_flop for op in own) == again + sum(
        op.count.elementwise_flop for op in theirs
    )


def test_frozen_convolutions_need_no_gradient_from_the_split_layers() -> None:
    made = plan(
        NET, gpus=2, partition="hybrid", batch_size=8, trainable=frozenset({"fc3", "fc4"}),
        backend="aten",
    )  # fmt: skip
    assert not any(op.kind == OpKind.ALL_REDUCE for op in made.ops())
    assert not any(e.layer == "dropout2" and e.direction == "backward" for e in made.exchanges)
    executor = Executor(made)
    executor.initialise()
    images, labels = minibatch()
    before = executor.state()["conv1.a.weight"].clone()
    executor.step(images[:8].float(), labels[:8], step=0, hyperparameters=RATES)
    assert torch.equal(executor.state()["conv1.a.weight"], before)


def test_the_largest_batch_is_that_of_the_whole_minibatch() -> None:
    made = plan(load_network("alexnet-owt"), gpus=2, partition="hybrid", batch_size=128)
    budget = made.devices[0].total_bytes
    found = fit(made, budget)
    assert found.fits
    assert found.largest_batch_size == 128


@pytest.mark.parametrize(
    ("net", "choices", "says"),
    [
        ("alexnet-2012", {"gpus": 2}, "splits a network of one column, alexnet-2012 is written in"),
        ("alexnet-owt", {"gpus": 2, "replicas": 2}, "replicas are of partition columns"),
        ("alexnet-owt", {"gpus": 2, "backend": "triton"}, "does not go with backend triton"),
    ],
)
def test_what_cannot_be_split_is_refused(net: str, choices: dict, says: str) -> None:
    with pytest.raises((PlanError, NetworkError), match=says):
        plan(load_network(net), partition="hybrid", **choices)


def test_a_variable_batch_is_of_hybrid_only() -> None:
    with pytest.raises(PlanError, match="needs partition hybrid"):
        plan(NET, variable_batch=True)


def test_a_network_without_convolutions_is_refused() -> None:
    flat = replace(NET, layers=NET.layers[7:])
    with pytest.raises(NetworkError, match="small has none"):
        hybrid(flat, 2)


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [("--gpus", 2), ("--gpus", 2, "--schedule", "overlap"), ("--gpus", 2, "--variable-batch")],
)
def test_two_processes_are_the_plan_in_one(more: tuple, folder, tmp_path) -> None:
    here, apart = tmp_path / "here", tmp_path / "apart"
    split = ("--partition", "hybrid", *more)
    one = train("lenet-5", folder, here, *split)
    two = train("lenet-5", folder, apart, *split, "--processes")
    assert two["losses"] == one["losses"]
    assert two["top1"] == one["top1"]
    # A sum of two does not depend on its order.
    assert_same(state_of(apart), state_of(here))
    assert two["exchanged_bytes_per_step"] == one["exchanged_bytes_per_step"] > 0


def test_more_processes_are_one_within_rounding_and_go_on_as_columns(folder, tmp_path) -> None:
    whole, apart = tmp_path / "whole", tmp_path / "apart"
    train("lenet-5", folder, whole)
    train(
        "lenet-5", folder, apart, "--partition", "hybrid", "--gpus", 3, "--processes", "--steps", 4
    )
    done = alexsim(
        "train", "--resume", apart, "--steps", 8, "--partition", "columns", "--gpus", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert_near(state_of(apart), state_of(whole))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--partition", "hybrid"), "partition hybrid needs a number of GPUs (--gpus N)"),
        (("--partition", "hybrid", "--gpus", 5), "batch of 12 images does not divide over 5 GPUs"),
        (("--partition", "rows"), "--partition must be one of columns, hybrid; got 'rows'"),
        (("--variable-batch",), "a variable batch needs partition hybrid"),
        (("--partition", "hybrid", "--gpus", 2, "--strict"), "--strict runs --partition columns"),
        (
            ("--partition", "hybrid", "--gpus", 2, "--processes", "--replicas", 2),
            "--partition hybrid has as many --gpus as processes",
        ),
    ],
)
def test_what_is_asked_wrongly_is_refused(arguments: tuple, says: str, folder, tmp_path) -> None:
    done = alexsim(
        "train", "--net", "lenet-5", "--batch", 12, "--data", folder, "-o", tmp_path / "run",
        *arguments,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_in_as_many_processes_as_torchrun_begins(folder, tmp_path) -> None:
    """Of one GPU, then hybrid over two ranks, then of one GPU again: nothing but the partition is
    named, and a strict run is none from there on."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    train("lenet-5", folder, whole)
    train("lenet-5", folder, run, "--strict", "--steps", 3)
    base = ("train", "--resume", run, "--json")
    ranks = ranks_by_hand(tmp_path, *[(*base, "--steps", 6, "--partition", "hybrid")] * 2)
    for rank in ranks:
        _, err = rank.communicate(timeout=120)
        assert rank.returncode == 0, err
    assert "without --strict" in err
    done = alexsim(*base, "--steps", 8, "--partition", "columns")
    assert done.returncode == 0, done.stderr
    assert_near(state_of(run), state_of(whole))


def test_a_report_of_a_stopped_run_plans_it_as_it_ran(folder, tmp_path) -> None:
    run = tmp_path / "run"
    train("lenet-5", folder, run, "--partition", "hybrid", "--gpus", 3)
    (run / "profile.json").unlink()
    done = alexsim("report", run, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "lenet-5, hybrid: 3 GPUs, each with" in (tmp_path / "page.html").read_text()


# --- the simulator --------------------------------------------------------------------------------


def hybrid_on(machine: Machine, gpus: int, policy: str = "as-released") -> Simulation:
    configuration = PlanSpec(
        network=load_network("alexnet-owt"), gpus=gpus, partition="hybrid", batch_size=96 * gpus,
        policy=policy,
    )  # fmt: skip
    return on_machine(configuration, machine)


@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
@pytest.mark.parametrize("gpus", [2, 3, 8])
def test_what_is_simulated_is_the_plan_that_is_trained(gpus: int, policy: str) -> None:
    machine = load_machine("k20x8")
    made = plan(
        load_network("alexnet-owt"), gpus=gpus, partition="hybrid", batch_size=96 * gpus,
        policy=policy,
    )  # fmt: skip
    found = hybrid_on(machine, gpus, policy)
    assert (found.batch_size, found.partition) == (96 * gpus, "hybrid")
    context = int(machine.device.context_bytes.value)
    held = [device.total_bytes + context for device in made.devices]
    assert [device.memory_bytes for device in found.devices] == [held[0]] == [max(held)]
    assert sum(exchange.size_bytes for exchange in found.exchanges) == made.exchanged_bytes


@pytest.mark.parametrize("variable_batch", [False, True])
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("gpus", [2, 3, 4, 8])
def test_one_simulated_device_stands_for_all(
    gpus: int, schedule: str, variable_batch: bool
) -> None:
    """The first device alone against every op of every device."""
    machine = load_machine("k20x8")
    timer = Timer(
        machine=machine,
        library=load_library(default_library(machine)),
        correction=load_correction(),
    )
    made = plan(
        load_network("alexnet-owt"), gpus=gpus, partition="hybrid", batch_size=96 * gpus,
        schedule=schedule, variable_batch=variable_batch,
    )  # fmt: skip
    first = representative(made.spec)
    assert (made.stands_for, first.stands_for) == (1, gpus)
    whole, one = (simulate(each, timer, data="none") for each in (made, first))
    # Of uploads over one uplink, each has a latency of its own.
    assert whole.step_s == pytest.approx(one.step_s, rel=2e-4)
    assert whole.devices_count == one.devices_count == gpus
    for name in ("all_reduce_s", "utilisation", "ideal_training_images_per_s"):
        assert getattr(whole, name) == pytest.approx(getattr(one, name), rel=1e-3), name
    assert [(e.name, e.size_bytes) for e in whole.exchanges] == [
        (e.name, e.size_bytes) for e in one.exchanges
    ]


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
@pytest.mark.parametrize("gpus", [1, 2, 3, 5])
def test_the_first_device_is_planned_alone_as_among_the_others(
    gpus: int, policy: str, schedule: str
) -> None:
    made = plan(
        NET, gpus=gpus, partition="hybrid", batch_size=BATCH * 5, policy=policy,
        schedule=schedule, backend="aten",
    )  # fmt: skip
    alone = representative(made.spec)
    (device,) = alone.devices
    first = made.devices[0]
    assert device.buffers == first.buffers
    assert device.blocks == first.blocks
    assert len(device.ops) == len(first.ops)
    for one, other in zip(device.ops, first.ops, strict=True):
        # It waits for what others wait for, too.
        assert replace(one, depends_on=()) == replace(other, depends_on=())
    assert alone.collectives == made.collectives
    assert alone.reduced_bytes == made.reduced_bytes


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_a_device_has_as_many_more_ops_as_there_are_more_devices(schedule: str) -> None:
    counts = [
        len(
            representative(
                NET, gpus=gpus, partition="hybrid", batch_size=gpus, schedule=schedule
            ).devices[0].ops
        )
        for gpus in (4, 5, 6, 32, 33)
    ]  # fmt: skip
    assert counts[1] - counts[0] == counts[2] - counts[1] == counts[4] - counts[3] < 40


def test_what_devices_send_in_a_collective_is_what_others_receive() -> None:
    """Also where a layer has fewer units than there are devices, and some take no part."""
    made = plan(NET, gpus=4, partition="hybrid", batch_size=BATCH)
    for one in made.collectives:
        pairs = list(one.exchanges())
        for ends in (one.sent_by, one.received_by):
            assert sorted(e.name for i in range(4) for e in ends(i)) == sorted(
                e.name for e in pairs
            )
        assert sum(e.size_bytes for e in pairs) == one.exchanged_bytes
        ops = [op for op in made.ops() if op.collective == one.name]
        taking = {e.source for e in pairs} | {e.target for e in pairs}
        assert sorted(op.device for op in ops) == sorted(taking)
    names = {(one.layer, one.direction) for one in made.collectives}
    assert names == {
        (layer, way) for layer in ("dropout2", "dropout3", "fc4") for way in ("forward", "backward")
    }


def test_a_plan_of_one_device_for_many_is_not_run() -> None:
    made = representative(NET, gpus=2, partition="hybrid", batch_size=BATCH, backend="aten")
    with pytest.raises(ValueError, match="one of the devices"):
        Executor(made)
