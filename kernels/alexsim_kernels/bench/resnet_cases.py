"""What ``cpu.py`` times of ResNet-50: its distinct convolutions and batch norms."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from alexsim_kernels.bench.cpu_cases import Case, convolutions, distance, images
from alexsim_kernels.cpu import batch_norm
from alexsim_kernels.shapes import RESNET50

Tensor = torch.Tensor
NORMS = {
    "stem": (64, 112), "2 a": (64, 56), "2 c": (256, 56), "3 a": (128, 28), "3 c": (512, 28),
    "4 a": (256, 14), "4 c": (1024, 14), "5 a": (512, 7), "5 c": (2048, 7),
}  # fmt: skip
"""Channels, extent."""


def resnet_convolutions(batch: int) -> list[Case]:
    return convolutions(batch, RESNET50, biased=False)


class _Norm:
    """A batch norm and its passes, ours and PyTorch's."""

    def __init__(self, batch: int, channels: int, extent: int) -> None:
        self.x, self.dy = (
            images(batch, channels, extent, extent),
            images(batch, channels, extent, extent),
        )
        self.y, self.dx = torch.empty_like(self.x), torch.empty_like(self.x)
        self.weight, self.bias, self.means, self.variances = (
            torch.rand(channels) for _ in range(4)
        )
        mean, rstd, self.dweight, self.dbias = (torch.empty(channels) for _ in range(4))
        self.statistics = batch_norm.Statistics(mean, rstd)

    def forward(self, *, training: bool) -> None:
        batch_norm.forward(
            self.x, self.weight, self.bias, self.y, self.statistics,
            batch_norm.Running(self.means, self.variances, 0.1), epsilon=1e-5, training=training,
        )  # fmt: skip

    def other_forward(self, *, training: bool) -> object:
        return torch.native_batch_norm(
            self.x, self.weight, self.bias, self.means, self.variances, training, 0.1, 1e-5
        )

    def backward(self) -> None:
        gradients = (self.dweight, self.dbias)
        batch_norm.sums(self.x, self.dy, self.statistics, *gradients)
        batch_norm.grad_input(self.x, self.dy, self.weight, self.statistics, gradients, self.dx)

    def other_backward(self) -> object:
        return torch.ops.aten.native_batch_norm_backward(
            self.dy,
            self.x,
            self.weight,
            self.means,
            self.variances,
            *self.statistics,
            True,
            1e-5,
            [True] * 3,
        )

    def check(self, *, training: bool) -> float:
        self.forward(training=training)
        given = (self.x, self.means, self.variances, self.weight, self.bias)
        x, means, variances, weight, bias = (t.double() for t in given)
        return distance(self.y, F.batch_norm(x, means, variances, weight, bias, training=training))

    def check_backward(self) -> float:
        self.forward(training=True)
        self.backward()
        leaf = self.x.double().requires_grad_()
        result = F.batch_norm(leaf, None, None, self.weight.double(), training=True)
        result.backward(self.dy.double())
        return distance(self.dx, leaf.grad)


def batch_norms(batch: int) -> list[Case]:
    cases = []
    for name, (channels, extent) in NORMS.items():
        norm = _Norm(batch, channels, extent)
        for pass_, training in (("train", True), ("test", False)):
            cases.append(
                Case(
                    f"bn {name}", pass_,
                    lambda n=norm, t=training: n.forward(training=t),
                    lambda n=norm, t=training: n.other_forward(training=t),
                    lambda n=norm, t=training: n.check(training=t),
                )
            )  # fmt: skip
        cases.append(
            Case(f"bn {name}", "backward", norm.backward, norm.other_backward, norm.check_backward)
        )
    return cases
