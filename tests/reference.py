"""The editions again, written with plain ``torch.nn`` modules and autograd: the plan's judge.

Nothing here reads alexsim's layer records: channels, sizes and constants stand here a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

Masks = dict[str, torch.Tensor]


class MaxPoolAll(torch.autograd.Function):
    """Max-pool 3/2 whose gradient goes to every input equal to the maximum."""

    @staticmethod
    def forward(ctx, x):
        y = F.max_pool2d(x, 3, 2)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, y = ctx.saved_tensors
        n, c, h, w = x.shape
        columns = F.unfold(x, 3, stride=2).view(n, c, 9, -1)
        hit = columns == y.view(n, c, 1, -1)
        spread = (hit * dy.view(n, c, 1, -1)).view(n, c * 9, -1)
        return F.fold(spread, (h, w), 3, stride=2)


def routed_pool(x: torch.Tensor, route: torch.Tensor) -> torch.Tensor:
    """Max-pool 3/2 that takes the inputs ``route`` names (``[N, C, 9, outputs]``) as maxima."""
    n, c, h, _ = x.shape
    columns = F.unfold(x, 3, stride=2).view(n, c, 9, -1)
    # The value is that of any one of them, the gradient goes to all.
    taken = (columns * route).sum(2)
    value = taken.detach() / route.sum(2)
    return (taken - taken.detach() + value).view(n, c, (h - 3) // 2 + 1, -1)


class Norm(nn.Module):
    """LRN within each of ``groups`` columns; ``alpha`` multiplies the sum."""

    def __init__(self, groups: int, alpha: float) -> None:
        super().__init__()
        self.groups, self.alpha = groups, alpha

    def forward(self, x):
        n, c, h, w = x.shape
        split = x.reshape(n * self.groups, c // self.groups, h, w)
        return F.local_response_norm(split, 5, self.alpha * 5, 0.75, 2.0).view(n, c, h, w)


class SpatialNorm(nn.Module):
    def forward(self, x):
        total = F.avg_pool2d(x * x, 5, 1, 2, divisor_override=1)
        return x * (1 + 4e-5 * total) ** -0.75


class Reference(nn.Module):
    """A list of steps: ``("name", module)`` or ``("name", function)``; dropout by given masks."""

    def __init__(self, steps: list[tuple[str, nn.Module | Callable | str]]) -> None:
        super().__init__()
        self.steps = steps
        for name, step in steps:
            if isinstance(step, nn.Module):
                self.add_module(name, step)

    def forward(self, x: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        for name, step in self.steps:
            if step == "dropout":
                x = x * (masks[name] if masks is not None else 0.5)
            elif masks is not None and name in masks:
                x = x * masks[name] if step is F.relu else routed_pool(x, masks[name])
            else:
                x = step(x)
        return x


def right_bottom(x):
    return F.pad(x, (0, 3, 0, 3))


def flatten(x):
    return x.flatten(1)


def _as_run(groups: int, conv5: int) -> list:
    g = groups
    return [
        ("border", right_bottom),
        ("conv1", nn.Conv2d(3, 48 * g, 11, 4)),
        ("norm1", Norm(g, 2e-5)),
        ("pool1", MaxPoolAll.apply),
        ("relu1", F.relu),
        ("conv2", nn.Conv2d(48 * g, 128 * g, 5, padding=2, groups=g)),
        ("relu2", F.relu),
        ("norm2", Norm(g, 2e-5)),
        ("spatial_norm2", SpatialNorm()),
        ("pool2", MaxPoolAll.apply),
        ("conv3", nn.Conv2d(128 * g, 192 * g, 3, padding=1)),
        ("relu3", F.relu),
        ("conv4", nn.Conv2d(192 * g, 192 * g, 3, padding=1, groups=g)),
        ("relu4", F.relu),
        ("conv5", nn.Conv2d(192 * g, conv5, 3, padding=1, groups=g)),
        ("pool5", MaxPoolAll.apply),
        ("relu5", F.relu),
    ]


def _head(outputs: int = 1000, bottleneck: bool = False) -> list:
    before = [("bottleneck", nn.Linear(4096, 2048))] if bottleneck else []
    return [
        ("flatten", flatten),
        ("fc6", nn.Linear(9216, 4096)),
        ("relu6", F.relu),
        ("dropout6", "dropout"),
        ("fc7", nn.Linear(4096, 4096)),
        ("relu7", F.relu),
        ("dropout7", "dropout"),
        *before,
        ("fc8", nn.Linear(2048 if bottleneck else 4096, outputs)),
    ]


def alexnet_2012() -> Reference:
    return Reference([*_as_run(2, 256), *_head()])


def alexnet_1gpu() -> Reference:
    return Reference([*_as_run(1, 256), *_head()])


def alexnet_6conv() -> Reference:
    sixth = [("conv6", nn.Conv2d(256, 256, 3, padding=1)), ("relu_conv6", F.relu)]
    return Reference([*_as_run(2, 256), *sixth, *_head(21_843, bottleneck=True)])


def alexnet_paper() -> Reference:
    return Reference(
        [
            ("border", right_bottom),
            ("conv1", nn.Conv2d(3, 96, 11, 4)),
            ("relu1", F.relu),
            ("norm1", Norm(2, 1e-4)),
            ("pool1", nn.MaxPool2d(3, 2)),
            ("conv2", nn.Conv2d(96, 256, 5, padding=2, groups=2)),
            ("relu2", F.relu),
            ("norm2", Norm(2, 1e-4)),
            ("pool2", nn.MaxPool2d(3, 2)),
            ("conv3", nn.Conv2d(256, 384, 3, padding=1)),
            ("relu3", F.relu),
            ("conv4", nn.Conv2d(384, 384, 3, padding=1, groups=2)),
            ("relu4", F.relu),
            ("conv5", nn.Conv2d(384, 256, 3, padding=1, groups=2)),
            ("relu5", F.relu),
            ("pool5", nn.MaxPool2d(3, 2)),
            *_head(),
        ]
    )


def alexnet_owt() -> Reference:
    return Reference(
        [
            ("conv1", nn.Conv2d(3, 64, 11, 4, padding=2)),
            ("relu1", F.relu),
            ("pool1", nn.MaxPool2d(3, 2)),
            ("conv2", nn.Conv2d(64, 192, 5, padding=2)),
            ("relu2", F.relu),
            ("pool2", nn.MaxPool2d(3, 2)),
            ("conv3", nn.Conv2d(192, 384, 3, padding=1)),
            ("relu3", F.relu),
            ("conv4", nn.Conv2d(384, 256, 3, padding=1)),
            ("relu4", F.relu),
            ("conv5", nn.Conv2d(256, 256, 3, padding=1)),
            ("relu5", F.relu),
            ("pool5", nn.MaxPool2d(3, 2)),
            *_head(),
        ]
    )


def lenet_5() -> Reference:
    return Reference(
        [
            ("conv1", nn.Conv2d(1, 6, 5, padding=2)),
            ("sigmoid1", torch.sigmoid),
            ("pool1", nn.AvgPool2d(2)),
            ("conv2", nn.Conv2d(6, 16, 5)),
            ("sigmoid2", torch.sigmoid),
            ("pool2", nn.AvgPool2d(2)),
            ("flatten", flatten),
            ("fc3", nn.Linear(400, 120)),
            ("sigmoid3", torch.sigmoid),
            ("fc4", nn.Linear(120, 84)),
            ("sigmoid4", torch.sigmoid),
            ("fc5", nn.Linear(84, 10)),
        ]
    )


REFERENCES = {
    "alexnet-2012": alexnet_2012,
    "alexnet-paper": alexnet_paper,
    "alexnet-1gpu": alexnet_1gpu,
    "alexnet-6conv": alexnet_6conv,
    "alexnet-owt": alexnet_owt,
    "lenet-5": lenet_5,
}


def narrowed(model: Reference, share: int) -> Reference:
    """Its hidden fully connected layers with a ``share``-th of their units."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer, reader in pairwise(layers):
        units = layer.out_features // share
        layer.weight, layer.bias = (nn.Parameter(t[:units]) for t in (layer.weight, layer.bias))
        reader.weight = nn.Parameter(reader.weight[:, :units])
    return model


class Trainer:
    """The update rule of the 2012 system on a reference, parameter by parameter."""

    def __init__(self, model: Reference, *, rate: float, bias_rate: float) -> None:
        self.model, self.rate, self.bias_rate = model, rate, bias_rate
        self.inc = {name: torch.zeros_like(p) for name, p in model.named_parameters()}

    def step(self, images: torch.Tensor, labels: torch.Tensor, masks: Masks) -> float:
        self.model.zero_grad()
        loss = F.cross_entropy(self.model(images, masks), labels)
        loss.backward()
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                inc = self.inc[name].mul_(0.9)
                if name.endswith("weight"):
                    inc.sub_(p, alpha=0.0005 * self.rate).sub_(p.grad, alpha=self.rate)
                else:
                    inc.sub_(p.grad, alpha=self.bias_rate)
                p.add_(inc)
        return loss.item()
