"""The editions after AlexNet against the same networks as plain modules with autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import zoo
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from alexsim.execute.bind import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.random import dropout_keep
from alexsim.network import counts
from alexsim.network.editions import load_network
from alexsim.network.layers import BatchNorm, Convolution, Dropout, FullyConnected
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim.plan.tables import flop_table

SEED, BATCH, STEPS = 7, 4, 5
RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)

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


def ours(
    net: Network, steps: int, dtype: torch.dtype, batch: int = BATCH, **choices: Any
) -> tuple[list, dict, dict]:
    """Losses of the steps and logits of an evaluation, first and last state."""
    made = plan(net, batch_size=batch, backend="aten", **choices)
    executor = Executor(made, dtype=dtype, seed=SEED)
    executor.initialise()
    first = {name: tensor.clone() for name, tensor in executor.state().items()}
    losses = [
        executor.step(
            *minibatch(net, step, dtype, batch), step=step, hyperparameters=RATES
        ).losses.mean()
        for step in range(steps)
    ]
    executor.evaluate(*minibatch(net, 99, dtype, batch))
    logits = executor.activation(net.inputs_of(len(net.layers) - 1)[0]).flatten(1)
    return [*losses, logits], first, executor.state()


def theirs(
    net: Network, model: nn.Module, first: dict, steps: int, batch: int = BATCH
) -> tuple[list, dict]:
    """The same of the module, which learns by the rule of 2012."""
    dtype = next(iter(first.values())).dtype
    tensors = {}
    for layer, module in paired(net, model).items():
        held = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers())
        held.pop("num_batches_tracked", None)
        tensors |= {f"{layer}.a.{kind}": tensor for kind, tensor in held.items()}
    trained = {name: t for name, t in tensors.items() if isinstance(t, nn.Parameter)}
    increments = {f"{name}.momentum": torch.zeros_like(tensor) for name, tensor in trained.items()}
    assert tensors.keys() | increments.keys() == first.keys()
    with torch.no_grad():
        for name, tensor in tensors.items():
            assert tensor.shape == first[name].shape, name
            tensor.copy_(first[name])
    norms = {layer.name for layer in net.layers if isinstance(layer, BatchNorm)}
    losses = []
    for step in range(steps):
        images, labels = minibatch(net, step, dtype, batch)
        zoo.give_masks(model, masks_of(net, model, step, dtype, batch))
        costs = [F.cross_entropy(logits, labels) for logits in model(images)]
        sum(head.weight * c for head, c in zip(net.heads, costs, strict=True)).backward()
        losses.append(costs[-1].detach())
        with torch.no_grad():
            for name, value in trained.items():
                inc = increments[f"{name}.momentum"].mul_(RATES.momentum)
                layer, _, kind = name.split(".")
                if kind == "weight" and layer not in norms:
                    inc.sub_(RATES.weight_rate * (RATES.weight_decay * value + value.grad))
                else:
                    inc.sub_(RATES.bias_rate * value.grad)
                value.add_(inc)
                value.grad = None
    zoo.give_masks(model, {})
    with torch.no_grad():
        losses.append(model.eval()(minibatch(net, 99, dtype, batch)[0])[-1])
    return losses, {name: tensor.detach() for name, tensor in (tensors | increments).items()}


@pytest.mark.parametrize("name", zoo.ZOO)
def test_parameters_and_multiply_adds_are_the_module_s(name: str) -> None:
    net, model = load_network(name), on_meta(name)
    assert net.parameters == sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    for layer, module in paired(net, model).items():
        part = net.part_of(layer, 0)
        shapes = {kind: held.shape for kind, held in part.parameters_by_name.items()}
        held = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers())
        held.pop("num_batches_tracked", None)
        assert shapes == {kind: tuple(tensor.shape) for kind, tensor in held.items()}, layer
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
