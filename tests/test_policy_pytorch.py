"""Policy ``pytorch``: the memory of eager training, against PyTorch's own tracker and allocator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
import torch_models
from eager_reference import Written, tracked, trained
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

import alexsim
from alexsim.budget.advice import named_blocks
from alexsim.budget.fit import fit
from alexsim.budget.workspace import convolution_bytes
from alexsim.editions.load import load_network
from alexsim.errors import PlanError
from alexsim.ledger.tables import memory_table
from alexsim.network import layers as la
from alexsim.network.layers import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    ReLU,
    SiLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan import caching_allocator as ca
from alexsim.plan.autograd import Tape
from alexsim.plan.caching_allocator import CachingAllocator
from alexsim.plan.eager import live_peak
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.plan.steps import StepList
from alexsim.plan.tensors import CARD, CPU, Eager

MIB = 1 << 20
TRACKED = Eager(byte_masks=False, state_beside=False, sums_in_place=False)
"""A card's rules, but fake tensors are a CPU's, and a tracker keeps sums from being in place."""


def tape(net: Network, batch: int, rule: str = "sgd", eager: Eager = TRACKED, **fields) -> Tape:
    chosen = {"optimizer": rule, "policy": "pytorch", "batch_size": batch, "gpus": 1}
    steps = StepList(spec=PlanSpec(network=net, **chosen | fields))
    steps.build()
    return Tape(steps=steps, eager=eager)


def by_kind(made: Tape) -> dict[str, int]:
    """The peak in MemTracker's words; it calls a gradient of a parameter ``Temp`` at first."""
    _, alive = live_peak(made)
    names = {
        "activation": "Activation", "norm": "Activation", "mask": "Activation",
        "activation_grad": "Gradient+Temp", "weight_grad": "Gradient+Temp",
        "weight": "Parameter+Buffer", "momentum": "Optstate", "workspace": "Optstate",
        "input": "Other",
    }  # fmt: skip
    sums = dict.fromkeys(names.values(), 0)
    for held in alive:
        sums[names[held.piece.category]] += held.piece.size_bytes
    return sums


def assert_as_tracked(theirs: dict[str, int], made: Tape) -> None:
    peak, _ = live_peak(made)
    assert peak == pytest.approx(theirs["Total"], rel=1e-3)
    for words, ours in by_kind(made).items():
        assert ours == pytest.approx(
            sum(theirs[word] for word in words.split("+")), rel=0.02, abs=1e-3 * peak
        ), words


# The modules that follow are written as anybody would write them.


class Block(nn.Module):
    """A basic block of a ResNet, as torchvision has it."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Sequential()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.downsample(x)
        return self.relu(out)


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2),
                  (256, 256, 1), (256, 512, 2), (512, 512, 1))  # fmt: skip
        self.blocks = nn.Sequential(*(Block(*each) for each in widths))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one = nn.Conv2d(squeezed, expanded, 1)
        self.three = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x), inplace=True)
        both = (F.relu(self.one(x), inplace=True), F.relu(self.three(x), inplace=True))
        return torch.cat(both, 1)


def squeezenet() -> nn.Module:
    shrink = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True), shrink,
        Fire(64, 16, 64), Fire(128, 16, 64), shrink,
        Fire(128, 32, 128), Fire(256, 32, 128), shrink,
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000),
    )  # fmt: skip


def vgg16() -> nn.Module:
    layers, inputs = [], 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(),
        nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000),
    )  # fmt: skip


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten(),
        nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip


BY_HAND: dict[str, Callable[[], nn.Module]] = {
    "resnet18": ResNet18, "squeezenet1_1": squeezenet, "alexnet-owt": alexnet,
    "vgg16": vgg16, "lenet-5": lenet,
}  # fmt: skip
BY_LAYER = ("resnet50", "mobilenet_v2", "efficientnet_b0", "googlenet-heads", "inception_v3",
            "densenet121", "alexnet-caffe", "vgg-m")  # fmt: skip


def _marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    return () if name in ("alexnet-caffe", "vgg-m") else (pytest.mark.slow,)


def module(name: str) -> Callable[[], nn.Module]:
    return BY_HAND.get(name, lambda: Written(load_network(name)))


@pytest.mark.parametrize(
    "name", [*BY_HAND, *(pytest.param(name, marks=_marks(name)) for name in BY_LAYER)]
)
def test_the_peak_is_the_tracker_s(name: str) -> None:
    """Thirteen networks, at a batch where the update is fullest or nearly, and a large one."""
    net = load_network(name)
    for batch, rule in ((2, "adamw"), (96, "sgd")):
        theirs = tracked(module(name), rule, (batch, *net.input_shape))
        assert_as_tracked(theirs, tape(net, batch, rule))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["lenet-5", "alexnet-owt", "resnet18", "squeezenet1_1"])
def test_real_training_on_a_cpu_holds_as_much(name: str, rule: str) -> None:
    net = load_network(name)
    for batch in (2, 8):
        peak, _ = live_peak(tape(net, batch, rule, CPU))
        assert peak == pytest.approx(
            trained(module(name), rule, (batch, *net.input_shape)), rel=0.02
        )


@pytest.mark.parametrize("name", ["resnet18", "alexnet-owt"])
def test_the_peak_under_autocast_is_the_tracker_s(name: str) -> None:
    """Halves of what convolutions and products read and write, and copies of their weights."""
    net = load_network(name)
    for batch, rule in ((2, "adamw"), (96, "sgd")):
        theirs = tracked(module(name), rule, (batch, *net.input_shape), amp=True)
        peak, _ = live_peak(tape(net, batch, rule, precision="amp"))
        assert peak == pytest.approx(theirs["Total"], rel=0.001)


def small(*layers: Layer) -> Network:
    end = (FullyConnected(name="fc", units=10), SoftmaxCrossEntropy(name="softmax"))
    return Network(name="small", input_shape=(3, 32, 32), layers=(*layers, *end))


def test_real_training_of_a_small_network_on_a_cpu() -> None:
    net = small(
        conv(1), BatchNorm(name="bn"), ReLU(name="relu"), Dropout(name="dropout", rescaled=True),
        conv(2), Add(name="sum", inputs=("conv2", "dropout"), in_place=True),
        MaxPool(name="pool", size=2, stride=2), SiLU(name="silu", in_place=True), conv(3),
    )  # fmt: skip
    for rule in ("sgd", "adamw"):
        peak, _ = live_peak(tape(net, 32, rule, CPU))
        theirs = trained(lambda: Written(net), rule, (32, *net.input_shape))
        assert peak == pytest.approx(theirs, rel=0.01)


def conv(index: int, filters: int = 16) -> Convolution:
    return Convolution(name=f"conv{index}", filters=filters, size=3, padding=1)


KINDS = (la.ReLU, la.ReLU6, la.LeakyReLU, la.ELU, la.SiLU, la.HardSwish, la.HardSigmoid)
OTHERS = (la.Sigmoid, la.Tanh, la.GELU, la.Softmax, BatchNorm, LocalResponseNorm,
          la.SpatialResponseNorm)  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, Dropout, *OTHERS])
def test_what_a_layer_saves_is_what_pytorch_saves(kind: type[Layer]) -> None:
    """Between convolutions, first and last: each place shows other tensors at the peak."""
    for in_place in (False, True) if kind in (*KINDS, Dropout) else (False,):
        k1, k2 = (kind(name=name, in_place=in_place) for name in ("k1", "k2"))
        for net in (small(conv(1), k1, conv(2), k2), small(k1, conv(1)), small(conv(1), k1)):
            theirs = tracked(lambda net=net: Written(net), "sgd", (8, *net.input_shape))
            assert_as_tracked(theirs, tape(net, 8))


GRAPHS: dict[str, tuple[Layer, ...]] = {
    "pools": (
        conv(1), MaxPool(name="max", size=2, stride=2), AveragePool(name="mean", size=2, stride=2),
        conv(2), la.AdaptiveAveragePool(name="adaptive", size=4),
    ),
    "squeeze": (
        conv(1), la.AdaptiveAveragePool(name="global"),
        Convolution(name="conv2", filters=16, size=1), la.Sigmoid(name="factors"),
        Multiply(name="product", inputs=("conv1", "factors")), conv(3),
    ),
    "product": (conv(1), conv(2), Multiply(name="product", inputs=("conv2", "conv1")), conv(3)),
    "sums": (
        conv(1), conv(2), Add(name="sum1", inputs=("conv2", "conv1")), conv(3),
        Add(name="sum2", inputs=("conv3", "conv1")), Add(name="sum3", inputs=("sum2", "sum1")),
    ),
    "dense": (
        conv(1), conv(2), Concat(name="cat1", inputs=("conv1", "conv2")), conv(3),
        Concat(name="cat2", inputs=("cat1", "conv3")), conv(4),
        Concat(name="cat3", inputs=("conv1", "cat2", "conv4")),
    ),
    # Fullest where a gradient is added to that has two holders, or is a slice.
    "passed twice": (
        conv(1), conv(2), Add(name="sum1", inputs=("conv2", "conv1")),
        Add(name="sum2", inputs=("sum1", "conv1")), la.AdaptiveAveragePool(name="global"),
    ),
    "slices": (
        conv(1), la.Sigmoid(name="sigmoid"), conv(2),
        Concat(name="cat", inputs=("sigmoid", "conv2")), la.AdaptiveAveragePool(name="global"),
    ),
    "both": (
        conv(1), conv(2), Concat(name="cat1", inputs=("conv1", "conv2")), conv(3, 32),
        Add(name="sum", inputs=("cat1", "conv3")), Concat(name="cat2", inputs=("conv1", "sum")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_of_graphs_live_as_autograd_s(name: str) -> None:
    net = small(*GRAPHS[name])
    theirs = tracked(lambda: Written(net), "sgd", (8, *net.input_shape))
    assert_as_tracked(theirs, tape(net, 8))
    # Without a watcher sums are in place, where they can be.
    peak, _ = live_peak(tape(net, 64, eager=CPU))
    theirs = trained(lambda: Written(net), "sgd", (64, *net.input_shape))
    assert peak == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("kind", [torch_models.Dense, torch_models.Shared, torch_models.Shuffle])
def test_a_traced_module_holds_as_much(kind: type[nn.Module]) -> None:
    """With views, parameters that two layers have, and operators that are only counted."""
    shape = (3, 64, 64)
    net = alexsim.from_torch(kind(), input_shape=shape)
    assert_as_tracked(tracked(kind, "sgd", (32, *shape)), tape(net, 32))


def test_sums_in_place_need_no_third_tensor() -> None:
    """What a tracker changes in what it watches; a card's sums are in place."""
    net = small(*GRAPHS["sums"])
    watched, alone = (live_peak(tape(net, 8, eager=eager))[0] for eager in (TRACKED, CPU))
    assert watched >= alone


def frozen(net: Network, *learns: str) -> nn.Module:
    model = Written(net)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[1] in learns)
    return model


@pytest.mark.parametrize("learns", [("fc",), ("conv2", "fc"), ("conv1",)])
def test_what_does_not_learn_saves_nothing(learns: tuple[str, ...]) -> None:
    net = small(conv(1), ReLU(name="relu1"), conv(2), ReLU(name="relu2"))
    peak, _ = live_peak(tape(net, 32, "sgd", CPU, trainable=frozenset(learns)))
    theirs = trained(lambda: frozen(net, *learns), "sgd", (32, *net.input_shape))
    assert peak == pytest.approx(theirs, rel=2e-3)


@given(sizes=st.lists(st.integers(1, 40 * MIB), min_size=1, max_size=40), data=st.data())
@settings(max_examples=60)
def test_the_allocator_keeps_its_promises(sizes: list[int], data: st.DataObject) -> None:
    allocator = CachingAllocator()
    alive: dict[int, int] = {}
    for size in sizes:
        if alive and data.draw(st.booleans()):
            gone = data.draw(st.sampled_from(sorted(alive)))
            allocator.release(gone)
            del alive[gone]
        address = allocator.allocate(size)
        assert address % ca.MIN_BLOCK_BYTES == 0
        for other, other_size in alive.items():
            assert address + size <= other or other + other_size <= address
        alive[address] = size
        assert max(start + size for start, size in alive.items()) <= allocator.reserved_bytes
        assert sum(alive.values()) <= allocator.allocated_bytes <= allocator.reserved_bytes
    for address in alive:
        allocator.release(address)
    assert allocator.allocated_bytes == 0
    # All is merged again: what needed the largest segment fits without another.
    before = allocator.reserved_bytes
    allocator.allocate(max(sizes))
    assert allocator.reserved_bytes == before


@pytest.mark.parametrize(
    ("asked", "reserved"),
    [
        ([1], 2 * MIB),
        ([MIB, MIB], 2 * MIB),
        ([MIB, MIB, 1], 4 * MIB),
        # One byte more than small: 20 MiB, and what is left of it serves the next.
        ([MIB + 1, 9 * MIB, 9 * MIB], 20 * MIB),
        ([10 * MIB], 10 * MIB),
        ([11 * MIB], 12 * MIB),
        ([11 * MIB, 2], 14 * MIB),
    ],
)
def test_segments_are_pytorch_s(asked: list[int], reserved: int) -> None:
    """``get_allocation_size`` of CUDACachingAllocator.cpp."""
    allocator = CachingAllocator()
    for size in asked:
        allocator.allocate(size)
    assert allocator.reserved_bytes == reserved


def test_large_blocks_are_split_where_more_than_a_mebibyte_is_left() -> None:
    allocator = CachingAllocator()
    allocator.release(allocator.allocate(12 * MIB))
    # ``should_split``: 1 MiB that is left over stays with the block, a little more does not.
    address = allocator.allocate(11 * MIB)
    assert allocator.allocated_bytes == 12 * MIB
    allocator.release(address)
    allocator.allocate(11 * MIB - 512)
    assert allocator.allocated_bytes == 11 * MIB - 512
    # The smallest free block that is large enough is taken, the first of its size.
    assert allocator.allocate(MIB + 512) == 11 * MIB - 512


@pytest.mark.parametrize("name", ["alexnet-2012", "lenet-5", "googlenet-heads", "efficientnet_b0"])
def test_no_two_tensors_have_the_same_bytes_at_a_time(name: str) -> None:
    made = planned(name, batch_size=4, gpus=1)
    (device,) = made.devices
    spans = [
        (b.offset_bytes, b.offset_bytes + b.size_bytes, b.first, b.last)
        for b in device.blocks if b.size_bytes
    ]  # fmt: skip
    spans.sort()
    for place, (start, end, first, last) in enumerate(spans):
        assert end <= device.arena_bytes
        for other, _, begins, ends in spans[place + 1 :]:
            if other >= end:
                break
            assert last < begins or ends < first, start
    (held,) = memory_table(made)
    assert held.total_bytes == sum(held.by_layer.values()) == device.total_bytes
    assert device.live_peak_bytes <= device.arena_bytes
    named = {buffer.name for buffer in device.buffers}
    assert {name for op in device.ops for name in (*op.reads, *op.writes)} <= named


def planned(name: str, **choices) -> Plan:
    return plan(load_network(name), policy="pytorch", **choices)


def test_data_parallel_replicas_hold_their_gradients_twice() -> None:
    alone, of_two = (
        planned("resnet18", batch_size=images, replicas=replicas, optimizer="sgd")
        for images, replicas in ((2, 1), (4, 2))
    )
    more = of_two.devices[0].live_peak_bytes - alone.devices[0].live_peak_bytes
    assert more == 4 * load_network("resnet18").parameters


def test_a_card_keeps_a_byte_per_value_that_dropout_may_drop() -> None:
    net = small(conv(1, 64), Dropout(name="dropout"))
    (mask,) = (b for b in plan(net, policy="pytorch", batch_size=8).devices[0].buffers
               if b.label == "dropout.a.mask")  # fmt: skip
    assert mask.size_bytes == 8 * 64 * 32 * 32


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"backend": "aten"}, "not run"),
        ({"schedule": "overlap"}, "schedule overlap"),
        ({"fusion": "kernels"}, "fusion kernels"),
        ({"partition": "hybrid", "gpus": 2}, "hybrid"),
    ],
)
def test_what_is_not_eager_is_refused(choices: dict, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        planned("alexnet-owt", **choices)


def test_columns_are_together_on_one_device() -> None:
    with pytest.raises(PlanError, match="--gpus 1"):
        planned("alexnet-2012")


def test_concatenations_are_copies_under_this_policy_alone() -> None:
    net = load_network("squeezenet1_1")
    for policy, view in (("pytorch", False), ("reuse", True)):
        written = PlanSpec(network=net, policy=policy).written
        assert {part.view for (part,) in written.parts if isinstance(part.layer, Concat)} == {view}


def test_what_helps_does_help() -> None:
    """Recomputing the named blocks fits; with one block less it would not."""
    made = planned("resnet18", batch_size=64, optimizer="sgd")
    (device,) = made.devices
    budget = device.total_bytes - 150 * MIB
    verdict = fit(made, budget)
    assert not verdict.fits
    smaller = planned("resnet18", batch_size=verdict.largest_batch_size, optimizer="sgd")
    assert fit(smaller, budget).fits
    helps = {help_.option: help_ for help_ in verdict.helps}
    assert set(helps) == {"", "--policy reuse", "--precision amp"}
    for option, field in (("--policy reuse", "policy"), ("--precision amp", "precision")):
        other = plan(replace(made.spec, **{field: option.split()[1]}))
        assert device.total_bytes - helps[option].saved_bytes == other.devices[0].total_bytes
    assert device.total_bytes - helps[""].saved_bytes <= budget
    blocks = named_blocks(made.network)
    fewer = tuple(blocks[name] for name in helps[""].recomputed[:-1])
    steps = tape(load_network("resnet18"), 64, eager=CARD).steps
    from alexsim.plan.eager import reserved_bytes

    assert reserved_bytes(Tape(steps=steps, recomputed=fewer)) > budget
    assert helps[""].extra_flop > 0
    # Even all blocks together do not fit into very little.
    assert not any(help_.recomputed for help_ in fit(made, 100 * MIB).helps)


def test_a_recomputed_block_holds_what_it_reads() -> None:
    """As MemTracker finds for ``torch.utils.checkpoint`` around the first block."""
    net = load_network("resnet18")
    block = named_blocks(net)["layer1_0"]

    class Checkpointed(ResNet18):
        def forward(self, x):
            x = torch.utils.checkpoint.checkpoint(self.blocks[0], self.stem(x), use_reentrant=False)
            x = self.blocks[1:](x)
            return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    theirs = tracked(Checkpointed, "sgd", (32, *net.input_shape))
    made = Tape(steps=tape(net, 32).steps, eager=TRACKED, recomputed=(block,))
    assert live_peak(made)[0] == pytest.approx(theirs["Total"], rel=1e-3)


def test_workspace_is_an_interval_that_small_kernels_do_not_open() -> None:
    net = load_network("vgg-a")
    (part,) = net.parts_of("conv1_1")
    # 36 values per tile of 4 x 4 and channel, of 3 inputs and 64 outputs, and of the filters.
    assert convolution_bytes(part, 2) == 4 * 36 * (2 * 56 * 56 * (3 + 64) + 3 * 64)
    for change in ({"size": 1, "padding": 0}, {"stride": 2}, {"dilation": 2}):
        layer = replace(part.layer, **change)
        assert convolution_bytes(replace(part, layer=layer), 2) == 0
