"""The editions after AlexNet against the same networks as plain modules with autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import zoo
from test_execute_memory import undeclared
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.random import dropout_keep
from alexsim.ledger.tables import flop_table
from alexsim.network import counts
from alexsim.network.layers import BatchNorm, Convolution, Dropout, FullyConnected
from alexsim.network.network import Network
from alexsim.plan.planner import plan

SEED, BATCH, STEPS = 7, 4, 5

PARAMETERS = {
    "vgg16": 138_357_544,
    "googlenet": 6_624_904,
    "googlenet-heads": 13_004_888,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "squeezenet1_1": 1_235_496,
    "mobilenet_v2": 3_504_872,
    "densenet121": 7_978_856,
    "inception_v3": 23_834_568,
    "efficientnet_b0": 5_288_548,
}
"""As torchvision documents its models; GoogLeNet's and Inception's without their other heads."""

SMALL = {
    "vgg16": (32, 1e-2),
    "googlenet": (48, 1e-5),
    "googlenet-heads": (48, 1e-5),
    "resnet18": (48, 1e-5),
    "resnet50": (48, 1e-5),
    "squeezenet1_1": (32, 1e-2),
    "mobilenet_v2": (64, 1e-5),
    "densenet121": (48, 1e-5),
    "inception_v3": (107, 1e-6),
    "efficientnet_b0": (64, 1e-5),
}
"""Pixels of a side and rate of the weights in the steps that are compared digit by digit.

Dozens of batch norms over few values amplify a difference tenfold and more, step by step: of
ResNet-50 at 32 pixels, 1e-14 in the first step's loss is 1e-2 in the fourth's. So maps are large
enough, and rates low enough, that rounding stays below 1e-10.
"""
SMALLEST = {name: 75 if name == "inception_v3" else 32 for name in SMALL}

Minibatch = tuple[torch.Tensor, torch.Tensor]


def on_meta(name: str) -> nn.Module:
    """The module without memory, for counts."""
    with torch.device("meta"):
        return zoo.ZOO[name]()


def paired(net: Network, model: nn.Module) -> dict[str, nn.Module]:
    """The record's layers that have parameters, each with its module.

    Both come in the order of writing. The record writes the other heads where they leave the
    trunk, torchvision behind it.
    """
    layers = sorted(net.weighted_layers, key=lambda name: (name == "fc", "aux" in name))
    modules = [m for m in model.modules() if any(True for _ in m.parameters(recurse=False))]
    modules.sort(key=lambda module: module is getattr(model, "fc", None))
    return dict(zip(layers, modules, strict=True))


def small(name: str, side: int) -> tuple[Network, nn.Module]:
    """An edition that reads small images, and its module.

    Of VGG-16, whose parameters are 1.1 GB in float64, the fully connected layers have 64 units.
    """
    net = replace(load_network(name), input_shape=(3, side, side))
    if name != "vgg16":
        return net, zoo.ZOO[name]()
    layers = (
        replace(layer, units=64)
        if isinstance(layer, FullyConnected) and layer.units == 4096
        else layer
        for layer in net.layers
    )
    return replace(net, layers=tuple(layers)), zoo.VGG(units=64)


def rates(rate: float) -> Hyperparameters:
    return Hyperparameters(weight_rate=rate, bias_rate=2 * rate)


def minibatch(net: Network, step: int, dtype: torch.dtype, batch: int) -> Minibatch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(batch, *net.input_shape, generator=generator, dtype=torch.float64)
    return images.to(dtype), torch.randint(0, net.classes, (batch,), generator=generator)


def masks_of(net: Network, model: nn.Module, step: int, dtype: torch.dtype, batch: int) -> dict:
    """Our masks by the names of the module's dropouts, which come in the same order."""
    masks = {}
    dropped = [parts[0] for parts in net.parts if isinstance(parts[0].layer, Dropout)]
    for (name, rate), part in zip(zoo.drops(model).items(), dropped, strict=True):
        layer = part.layer
        assert isinstance(layer, Dropout)
        assert layer.rate == pytest.approx(rate)
        keep = dropout_keep(
            seed=SEED, layer=layer.name, step=step, images=range(batch),
            units=range(layer.draws(part.output_shape)), rate=layer.rate,
        )  # fmt: skip
        masks[name] = torch.from_numpy(keep).to(dtype)
    return masks


def ours(net: Network, steps: int, rate: float) -> tuple[list, dict, dict]:
    """Losses of the steps and logits of an evaluation, first and last state."""
    made = plan(net, batch_size=BATCH, backend="aten")
    executor = Executor(made, dtype=torch.float64, seed=SEED)
    executor.initialise()
    first = {name: tensor.clone() for name, tensor in executor.state().items()}
    found = [
        executor.step(
            *minibatch(net, step, torch.float64, BATCH), step=step, hyperparameters=rates(rate)
        ).losses.mean()
        for step in range(steps)
    ]
    executor.evaluate(*minibatch(net, 99, torch.float64, BATCH))
    # The loss of an evaluation ends where the exponential does; logits do not.
    found.append(executor.activation(net.inputs_of(len(net.layers) - 1)[0]).flatten(1))
    return found, first, executor.state()


def tensors_of(net: Network, model: nn.Module) -> dict[str, torch.Tensor]:
    """The module's parameters and running statistics by our names."""
    tensors = {}
    for layer, module in paired(net, model).items():
        held = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers())
        held.pop("num_batches_tracked", None)
        tensors |= {f"{layer}.a.{kind}": tensor for kind, tensor in held.items()}
    return tensors


def theirs(
    net: Network, model: nn.Module, first: dict, steps: int, rate: float, batch: int = BATCH
) -> tuple[list, dict]:
    """The same of the module, which learns by the rule of 2012."""
    dtype, constants = next(iter(first.values())).dtype, rates(rate)
    tensors = tensors_of(net, model.to(dtype))
    trained = {name: t for name, t in tensors.items() if isinstance(t, nn.Parameter)}
    increments = {f"{name}.momentum": torch.zeros_like(tensor) for name, tensor in trained.items()}
    assert tensors.keys() | increments.keys() == first.keys()
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(first[name])
    norms = {layer.name for layer in net.layers if isinstance(layer, BatchNorm)}
    found = []
    for step in range(steps):
        images, labels = minibatch(net, step, dtype, batch)
        zoo.give_masks(model, masks_of(net, model, step, dtype, batch))
        costs = [F.cross_entropy(logits, labels) for logits in model(images)]
        sum(head.weight * c for head, c in zip(net.heads, costs, strict=True)).backward()
        found.append(costs[-1].detach())
        with torch.no_grad():
            for name, value in trained.items():
                inc = increments[f"{name}.momentum"].mul_(constants.momentum)
                layer, _, kind = name.split(".")
                if kind == "weight" and layer not in norms:
                    inc.sub_(constants.weight_rate * (constants.weight_decay * value + value.grad))
                else:
                    inc.sub_(constants.bias_rate * value.grad)
                value.add_(inc)
                value.grad = None
    zoo.give_masks(model, {})
    with torch.no_grad():
        found.append(model.eval()(minibatch(net, 99, dtype, batch)[0])[-1])
    return found, {name: tensor.detach() for name, tensor in (tensors | increments).items()}


@pytest.mark.parametrize("name", zoo.ZOO)
def test_parameters_and_multiply_adds_are_the_module_s(name: str) -> None:
    net, model = load_network(name), on_meta(name)
    assert net.parameters == sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    shapes = {
        f"{parts[0].layer.name}.a.{kind}": held.shape
        for parts in net.parts
        for kind, held in parts[0].parameters_by_name.items()
    }
    assert shapes == {name: tuple(t.shape) for name, t in tensors_of(net, model).items()}
    images = torch.zeros(1, *net.input_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        outputs = model(images)
    forward = counter.get_total_flops()
    macs = {parts[0].layer.name: counts.macs(parts[0]) for parts in net.parts}
    assert 2 * sum(macs.values()) == forward
    with FlopCounterMode(display=False) as counter:
        sum(logits.sum() for logits in outputs).backward()
    # PyTorch counts the weight gradient of a convolution as if it had one group.
    grouped = sum(
        2 * (layer.groups - 1) * macs[layer.name]
        for layer in net.layers
        if isinstance(layer, Convolution)
    )
    # Neither computes the gradient of the images.
    assert flop_table(net).training_flop == forward + counter.get_total_flops() - grouped


@pytest.mark.parametrize("name", zoo.ZOO)
def test_five_steps_change_every_parameter_as_autograd_does(name: str) -> None:
    side, rate = SMALL[name]
    net, model = small(name, side)
    found, first, last = ours(net, STEPS, rate)
    expected_found, expected = theirs(net, model, first, STEPS, rate)
    for value, exact in zip(found, expected_found, strict=True):
        assert (value - exact).norm() <= 1e-10 * exact.norm()
    for key, start in first.items():
        change, exact = last[key] - start, expected[key] - start
        # The parameter itself is rounded once a step. A bias before a batch norm has a gradient of
        # nothing but rounding, and the mean of what another batch norm made is nothing else.
        rounding = STEPS**0.5 * torch.finfo(start.dtype).eps / 2 * start.norm()
        noise = 1e-14 if key.endswith("running_mean") else 1e-12 * rate
        assert exact.norm() > 0 or ".bias" in key, f"{key} did not learn"
        assert (change - exact).norm() <= 1e-10 * exact.norm() + rounding + noise, key


@pytest.mark.parametrize("name", zoo.ZOO)
def test_policy_and_schedule_change_no_bit(name: str) -> None:
    net, _ = small(name, SMALLEST[name])
    first: dict[str, torch.Tensor] = {}
    results = []
    for policy in ("reuse", "in-place", "as-released"):
        for schedule in ("serial", "overlap"):
            made = plan(net, batch_size=2, backend="aten", policy=policy, schedule=schedule)
            executor = Executor(made, seed=SEED)
            if first:
                executor.load_state(first)
            else:
                executor.initialise()
                first = {key: tensor.clone() for key, tensor in executor.state().items()}
            images, labels = minibatch(net, 0, torch.float32, 2)
            losses = executor.step(images, labels, step=0, hyperparameters=rates(0.01)).losses
            results.append({"losses": losses} | executor.state())
    for result in results[1:]:
        assert all(torch.equal(result[key], tensor) for key, tensor in results[0].items())


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_reuse_packs_to_within_two_percent_of_the_live_peak(name: str, schedule: str) -> None:
    made = plan(
        load_network(name), batch_size=32, backend="aten", policy="reuse", schedule=schedule
    )
    for device in made.devices:
        assert device.arena_bytes <= 1.02 * device.live_peak_bytes


@pytest.mark.parametrize("name", zoo.ZOO)
def test_no_op_allocates_more_than_it_declares(name: str) -> None:
    net, _ = small(name, 112)
    executor = Executor(plan(net, batch_size=2, backend="aten", policy="reuse"), seed=SEED)
    executor.initialise()
    assert not undeclared(executor, *minibatch(net, 0, torch.float32, 2))


# Rounding decides between maxima that are close, and on which side of zero some of the values lie
# that batch norms put around it. SqueezeNet has no batch norm, EfficientNet no ReLU and no maxima.
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("squeezenet1_1", 1e-2),
        ("efficientnet_b0", 1e-3),
        *(
            pytest.param(name, 0.1, marks=pytest.mark.slow)
            for name in zoo.ZOO
            if name not in ("squeezenet1_1", "efficientnet_b0")
        ),
    ],
)
def test_a_step_of_whole_images_in_float32_is_close_to_autograd(
    name: str, tolerance: float
) -> None:
    net, model, rate = load_network(name), zoo.ZOO[name](), 1e-3
    executor = Executor(plan(net, batch_size=2, backend="aten", policy="reuse"), seed=SEED)
    executor.initialise()
    first = {key: tensor.clone() for key, tensor in executor.state().items()}
    images, labels = minibatch(net, 0, torch.float32, 2)
    losses = executor.step(images, labels, step=0, hyperparameters=rates(rate)).losses
    (loss, _), expected = theirs(net, model, first, 1, rate, batch=2)
    assert losses.mean().item() == pytest.approx(loss.item(), rel=1e-4)
    squares = [
        ((tensor - expected[key]).square().sum(), expected[key].square().sum())
        for key, tensor in executor.state().items()
        if key.endswith(".momentum")
    ]
    error, size = (sum(values) ** 0.5 for values in zip(*squares, strict=True))
    assert error <= tolerance * size
