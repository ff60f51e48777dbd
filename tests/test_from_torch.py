"""A module of PyTorch's as a network: the module under autograd is its own reference."""

from __future__ import annotations

import pytest
import torch
import torch_models
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import alexsim
from alexsim.execute.context import Choices, Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim.plan.tables import flop_table

SHAPE, BATCH, STEPS = (3, 28, 28), 6, 3
RATE = 1e-2


def built(kind: type[nn.Module], shape: tuple[int, ...] = SHAPE) -> nn.Module:
    torch.manual_seed(0)
    module = kind()
    with torch.no_grad():
        module.eval()(torch.zeros(2, *shape))  # lazy layers get their shapes
    return module.double()


def minibatch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, *SHAPE, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, torch_models.CLASSES, (BATCH,), generator=generator)


def cost(output: object, labels: torch.Tensor) -> torch.Tensor:
    outputs = output if isinstance(output, tuple) else (output,)
    weights = (1.0, *[0.3] * (len(outputs) - 1))
    return sum(w * F.cross_entropy(o, labels) for w, o in zip(weights, outputs, strict=True))


def executor_of(network: Network, **choices: object) -> Executor:
    planned = plan(network, batch_size=BATCH, backend="aten", optimizer="sgd", **choices)
    executor = Executor(planned, Choices(dtype=torch.float64))
    executor.initialise()
    state = executor.state()
    theirs = {
        f"{name.rpartition('.')[0]}.a.{name.rpartition('.')[2]}": value
        for name, key in network.keys.items()
        for value in (network.module.state_dict()[key],)
    }
    assert {name for name in state if "momentum" not in name} == theirs.keys()
    executor.load_state({name: theirs.get(name, value) for name, value in state.items()})
    return executor


@pytest.mark.parametrize("policy", ["as-released", "reuse"])
@pytest.mark.parametrize("name", torch_models.MODELS)
def test_three_steps_are_the_module_under_autograd(name: str, policy: str) -> None:
    """Loss, every parameter and running statistic: what is equal after three steps of gradient
    descent with momentum had equal gradients."""
    module = built(torch_models.MODELS[name])
    network = alexsim.from_torch(module, SHAPE)
    assert network.not_run == ()
    executor = executor_of(network, policy=policy)
    module.train()
    learns = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learns, lr=RATE, momentum=0.9)
    for step in range(STEPS):
        images, labels = minibatch(step)
        context = executor.step(
            images, labels, step=step,
            hyperparameters=Hyperparameters(
                weight_rate=RATE, bias_rate=RATE, momentum=0.9, weight_decay=0
            ),
        )  # fmt: skip
        optimizer.zero_grad()
        output = module(images)
        answer = output[0] if isinstance(output, tuple) else output
        losses = F.cross_entropy(answer, labels, reduction="none")
        torch.testing.assert_close(context.losses, losses.detach(), rtol=1e-10, atol=1e-10)
        cost(output, labels).backward()
        optimizer.step()
    trained, state = executor.state(), module.state_dict()
    for ours, key in network.keys.items():
        layer, _, parameter = ours.rpartition(".")
        torch.testing.assert_close(
            trained[f"{layer}.a.{parameter}"], state[key], rtol=1e-10, atol=1e-10
        )
    counts = {key for key in state if key.endswith("num_batches_tracked")}
    assert set(network.keys.values()) == state.keys() - counts


# What there are no kernels for

COUNTED: dict[type[nn.Module], tuple[int, ...]] = {
    torch_models.Attention: (3, 32, 32),
    torch_models.Shuffle: SHAPE,
    torch_models.Volumes: (3, 5, 8, 8),
    torch_models.Signals: (2, 40),
}
EVERY = {**dict.fromkeys(torch_models.MODELS.values(), SHAPE), **COUNTED}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_parameters_and_flop_are_pytorchs_own(kind: type[nn.Module]) -> None:
    """Forward to the digit. Backward too, but that PyTorch's counter takes weight gradients of
    grouped convolutions for those of whole ones, and that attention computes its scores again, as
    on cards: on ``meta`` they are kept."""
    shape = EVERY[kind]
    module = built(kind, shape).train()
    network = alexsim.from_torch(module, shape)
    table = flop_table(network, BATCH)
    module.to("meta")
    with FlopCounterMode(display=False) as forward:
        output = module(torch.zeros(BATCH, *shape, dtype=torch.float64, device="meta"))
    labels = torch.zeros(BATCH, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as backward:
        cost(output, labels).backward()
    assert network.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert table.flop * BATCH == forward.get_total_flops()
    scores = [la.products[0].multiply_adds for la in network.not_run if "attention" in la.target]
    ours = (table.training_flop - table.flop - 2 * sum(scores)) * BATCH
    grouped = any(isinstance(child, nn.Conv2d) and child.groups > 1 for child in module.modules())
    assert ours == backward.get_total_flops() or (grouped and ours < backward.get_total_flops())
