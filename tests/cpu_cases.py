"""What the tests of the CPU kernels share: tensors with gaps, poisoned scratch, threads."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from alexsim_kernels.cpu.algorithm import Shape, Size

Tensor = torch.Tensor
NAN = float("nan")
LIMITS = {torch.float32: 1e-5, torch.float64: 1e-10}
TYPES = [torch.float32, torch.float64]


def pitched(*shape: int, dtype: torch.dtype, value: float | None = None) -> Tensor:
    """``[N, C, H, W]``, a slice of a block with three more channels, which are NaN; random."""
    n, c, h, w = shape
    block = torch.full((n, h, w, c + 3), NAN, dtype=dtype)
    made = block[..., 2 : 2 + c].permute(0, 3, 1, 2)
    if value is None:
        made.copy_(torch.randn(shape, dtype=dtype))
    else:
        made.fill_(value)
    return made


def beside(made: Tensor) -> Tensor:
    """The other channels of a pitched tensor's block."""
    n, c, h, w = made.shape
    block = torch.as_strided(made, (n, c + 3, h, w), made.stride(), made.storage_offset() - 2)
    return block[:, [0, 1, -1]]


def poisoned_scratch(size: int) -> Tensor:
    """As many bytes, all ones (NaN), and some more that no kernel may touch."""
    return torch.full((size + 256,), 255, dtype=torch.uint8)


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_for_threads(run: Callable[[int], list[Tensor]], most: int = 3) -> list[Tensor]:
    """Results of ``run`` with one thread, which are those with two to ``most``, bit for bit."""
    results = run(1)
    for count in range(2, most + 1):
        with thread_count(count):
            others = run(count)
        for a, b in zip(results, others, strict=True):
            assert torch.equal(a.nan_to_num(1.5), b.nan_to_num(1.5)), f"{count} threads"
    return results


def distance(computed: Tensor, exact: Tensor) -> float:
    """Norm of the difference over that of the exact values."""
    norm = exact.norm()
    return float((computed.double() - exact).norm() / (norm if norm > 0 else 1))


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    """The reference: ``padding`` zeros above and to the left, what it takes below and right."""
    down, right = (
        max(0, (out - 1) * stride + (taps - 1) * dilation + 1 - extent - before)
        for out, stride, taps, dilation, extent, before in zip(
            shape.out, shape.stride, shape.taps, shape.dilation, shape.extent, shape.padding,
            strict=True,
        )
    )  # fmt: skip
    padded = F.pad(x, (shape.padding[1], right, shape.padding[0], down))
    y = F.conv2d(padded, weight, bias, shape.stride, 0, shape.dilation, shape.groups)
    return y[:, :, : shape.out[0], : shape.out[1]]


def shape_of(
    images: int, channels: int, extent: Size, filters: int, taps: Size, out: Size, **others: object
) -> Shape:
    return Shape(
        images=images, channels=channels, extent=extent, filters=filters, taps=taps, out=out,
        **others,  # type: ignore[arg-type]
    )  # fmt: skip
