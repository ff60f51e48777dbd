"""What the tests of CPU convolutions share: shapes, and all passes of one beside float64's."""

import torch
from cpu_cases import LIMITS, NAN, beside, distance, pitched, poisoned_scratch, shape_of
from cpu_cases import convolution as reference

from alexsim_kernels.cpu import convolution, sizes
from alexsim_kernels.cpu.algorithm import PASSES, Algorithm, Pass, Shape

Tensor = torch.Tensor


CASES = {
    "conv1": shape_of(2, 3, (64, 47), 48, (11, 11), (15, 10), stride=(4, 4)),
    "conv1 padded": shape_of(1, 3, (45, 51), 20, (11, 11), (11, 12), stride=(4, 4), padding=(2, 2)),
    "conv2": shape_of(2, 48, (27, 27), 128, (5, 5), (27, 27), padding=(2, 2)),
    "conv3": shape_of(3, 64, (13, 13), 80, (3, 3), (13, 13), padding=(1, 1)),
    "lanes": shape_of(1, 19, (9, 22), 37, (3, 3), (9, 22), padding=(1, 1)),
    "groups": shape_of(2, 40, (9, 11), 60, (3, 3), (9, 11), padding=(1, 1), groups=2),
    "five, one image": shape_of(1, 33, (6, 5), 70, (5, 5), (6, 5), padding=(2, 2)),
    "no padding": shape_of(2, 32, (12, 11), 32, (3, 3), (10, 9)),
    "much padding": shape_of(1, 32, (8, 8), 32, (3, 3), (14, 14), padding=(4, 4)),
    "over the edge": shape_of(2, 32, (10, 9), 32, (3, 3), (10, 9)),
    "1 x 1": shape_of(3, 50, (14, 9), 72, (1, 1), (14, 9)),
    "1 x 1, strided": shape_of(2, 30, (13, 9), 40, (1, 1), (7, 5), stride=(2, 2)),
    "strided": shape_of(2, 24, (15, 14), 40, (3, 3), (8, 7), stride=(2, 2), padding=(1, 1)),
    "gaps": shape_of(1, 6, (14, 16), 9, (2, 2), (4, 4), stride=(4, 4), groups=3),
    "1 x 7": shape_of(2, 20, (12, 17), 33, (1, 7), (12, 17), padding=(0, 3)),
    "dilated": shape_of(1, 8, (15, 15), 8, (3, 3), (15, 15), padding=(2, 2), dilation=(2, 2)),
    "uneven": shape_of(
        2, 10, (17, 12), 6, (3, 2), (5, 12), stride=(3, 1), padding=(2, 1), dilation=(2, 3),
        groups=2,
    ),
    "deep": shape_of(1, 700, (4, 4), 17, (3, 3), (2, 2), stride=(2, 2), padding=(1, 1)),
    "depthwise": shape_of(2, 37, (9, 8), 37, (3, 3), (9, 8), padding=(1, 1), groups=37),
    "depthwise, strided": shape_of(
        3, 32, (9, 11), 32, (5, 3), (5, 6), stride=(2, 2), padding=(2, 1), groups=32
    ),
    "multiplier": shape_of(1, 6, (7, 7), 12, (3, 3), (7, 7), padding=(1, 1), groups=6),
    "wide": shape_of(1, 1050, (3, 3), 300, (1, 1), (3, 3)),
    "one pixel": shape_of(1, 1, (1, 1), 1, (1, 1), (1, 1)),
}  # fmt: skip


LAYERS = {
    "conv1": shape_of(128, 3, (224, 224), 48, (11, 11), (55, 55), stride=(4, 4)),
    "conv2": shape_of(128, 48, (27, 27), 128, (5, 5), (27, 27), padding=(2, 2)),
    "conv3": shape_of(128, 256, (13, 13), 192, (3, 3), (13, 13), padding=(1, 1)),
    "conv4": shape_of(128, 192, (13, 13), 192, (3, 3), (13, 13), padding=(1, 1)),
    "conv5": shape_of(128, 192, (13, 13), 128, (3, 3), (13, 13), padding=(1, 1)),
}
"""One column of 2012."""


def options(shape: Shape) -> dict[str, object]:
    return {
        "stride": shape.stride,
        "padding": shape.padding,
        "dilation": shape.dilation,
        "groups": shape.groups,
    }


def scratch_of(shape: Shape, pass_: Pass, algorithm: Algorithm, count: int, like: Tensor) -> Tensor:
    return poisoned_scratch(
        sizes.convolution(
            shape, pass_, algorithm=algorithm, threads=count, item_bytes=like.element_size()
        ).bytes(like.element_size())
    )


class Passes:
    """All passes of a convolution, beside float64's."""

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.shape, self.dtype = shape, dtype
        n, c, k = shape.images, shape.channels, shape.filters
        self.x = pitched(n, c, *shape.extent, dtype=dtype)
        self.dy = pitched(n, k, *shape.out, dtype=dtype)
        self.weight = torch.randn(k, c // shape.groups, *shape.taps, dtype=dtype)
        self.bias = torch.randn(k, dtype=dtype)
        exact = [t.detach().double().requires_grad_() for t in (self.x, self.weight, self.bias)]
        y = reference(*exact, shape)
        y.backward(self.dy.double())
        self.exact = [y.detach(), *(t.grad for t in exact)]

    def run(self, algorithms: dict[Pass, Algorithm], count: int) -> list[Tensor]:
        """Output, gradients of input, weights and biases."""
        s, given_ = self.shape, options(self.shape)
        y, dx = (
            pitched(*self.dy.shape, dtype=self.dtype, value=NAN),
            pitched(*self.x.shape, dtype=self.dtype, value=NAN),
        )
        dweight, dbias = torch.full_like(self.weight, NAN), torch.full_like(self.bias, NAN)
        scratch = {p: scratch_of(s, p, algorithms[p], count, self.x) for p in PASSES}
        convolution.forward(
            self.x, self.weight, self.bias, y, **given_,
            algorithm=algorithms["forward"], scratch=scratch["forward"],
        )  # fmt: skip
        convolution.grad_input(
            self.dy, self.weight, dx, **given_,
            algorithm=algorithms["grad_input"], scratch=scratch["grad_input"],
        )  # fmt: skip
        convolution.grad_weight(
            self.x, self.dy, dweight, dbias, **given_,
            algorithm=algorithms["grad_weight"], scratch=scratch["grad_weight"],
        )  # fmt: skip
        assert beside(y).isnan().all()
        assert beside(dx).isnan().all()
        assert all((used[-192:] == 255).all() for used in scratch.values())
        return [y, dx, dweight, dbias]

    def check(self, algorithms: dict[Pass, Algorithm]) -> None:
        computed = self.run(algorithms, 1)
        for name, values, exact in zip(("y", "dx", "dw", "db"), computed, self.exact, strict=True):
            assert distance(values, exact) < LIMITS[self.dtype], name
