"""Convolutions on shapes that hit every edge, and their errors against float64."""

from dataclasses import dataclass

import torch
from kernel_cases import DEVICE, around, distance, images, poisoned

from alexsim_kernels import convolution, convolution_weight, reference
from alexsim_kernels.common import Config

SMALL = Config(16, 16, 16, warps=4, stages=2)


@dataclass(frozen=True)
class Case:
    images: int
    channels: int
    extent: tuple[int, int]
    filters: int
    taps: int
    stride: int
    padding: tuple[int, int]
    size: tuple[int, int]
    groups: int = 1
    relu: bool = False
    config: Config | None = None
    splits: int | None = None


CASES = {
    # The network's own layers, at batch 1 and 2 (conv1: windows hang over the right and bottom).
    "conv1": Case(1, 3, (224, 224), 48, 11, 4, (0, 0), (55, 55), relu=True),
    "conv2": Case(2, 48, (27, 27), 128, 5, 1, (2, 2), (27, 27)),
    "conv3": Case(1, 256, (13, 13), 192, 3, 1, (1, 1), (13, 13), relu=True),
    "conv5": Case(1, 192, (13, 13), 128, 3, 1, (1, 1), (13, 13)),
    "conv2, groups": Case(1, 96, (27, 27), 256, 5, 1, (2, 2), (27, 27), groups=2),
    # Last tiles in every direction, odd numbers, windows that hang over, splits of the sum.
    "small": Case(3, 5, (9, 7), 7, 3, 2, (1, 0), (5, 4), relu=True, config=SMALL, splits=3),
    "groups": Case(1, 34, (4, 5), 38, 3, 1, (1, 1), (4, 5), 2, True, SMALL, 2),
    "few taps": Case(1, 34, (4, 5), 38, 2, 1, (0, 0), (3, 4), 2, True, SMALL),
    "colours": Case(3, 3, (9, 7), 5, 3, 2, (1, 0), (5, 4), config=SMALL, splits=2),
    "one channel": Case(1, 1, (12, 12), 6, 5, 1, (2, 2), (12, 12), relu=True),
    "one by one": Case(3, 20, (4, 5), 17, 1, 1, (0, 0), (4, 5), config=SMALL),
    "stride over taps": Case(1, 6, (11, 11), 4, 2, 3, (0, 0), (4, 4), config=SMALL),
    "deep border": Case(2, 6, (3, 3), 5, 3, 1, (2, 2), (5, 5), config=SMALL),
    "uneven border": Case(1, 6, (5, 5), 5, 4, 1, (1, 2), (6, 4), config=SMALL),
}


def run(case: Case, precision: str = "fp32", scale: float = 1.0) -> dict[str, float]:
    """Relative errors of the output and of every gradient; NaN where anything was not written."""
    torch.manual_seed(0)
    x = images(case.images, case.channels, *case.extent, scale=scale)
    weight = images(case.filters, case.channels // case.groups, case.taps, case.taps)
    bias = torch.randn(case.filters, device=DEVICE)
    wanted = [t.detach().cpu().double().requires_grad_() for t in (x, weight, bias)]
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    y_wanted = reference.convolution(*wanted, size=case.size, relu=case.relu, **options)
    dy = images(*y_wanted.shape)
    options |= {"precision": precision, "config": case.config}

    y = poisoned(dy)
    convolution.forward(x, weight, bias, y, relu=case.relu, **options)
    # The kernels' own output masks the gradient: a rounding at 0 must not count as an error.
    passed = (y > 0).cpu().double() if case.relu else 1.0
    mask = {"relu_output": y} if case.relu else {}
    plain = reference.convolution(
        *wanted, stride=case.stride, padding=case.padding, groups=case.groups, size=case.size
    )
    plain.backward(dy.cpu().double() * passed)
    dx, before = poisoned(x), images(*x.shape)
    convolution.grad_input(dy, weight, dx, **mask, **options)
    added = before.clone(memory_format=torch.preserve_format)
    convolution.grad_input(dy, weight, added, accumulate=True, **mask, **options)
    dweight, dbias = torch.full_like(weight, float("nan")), torch.full_like(bias, float("nan"))
    convolution_weight.grad_weight(x, dy, dweight, dbias, splits=case.splits, **mask, **options)
    for written in (y, dx):
        assert around(written).isnan().all(), "a kernel wrote beside its channels"
    return {
        "y": distance(y, y_wanted),
        "dx": distance(dx, wanted[0].grad),
        "dx added": distance(added, wanted[0].grad + before.cpu().double()),
        "dweight": distance(dweight, wanted[1].grad),
        "dbias": distance(dbias, wanted[2].grad),
    }
