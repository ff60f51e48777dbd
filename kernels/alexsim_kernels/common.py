"""What all kernels share: precisions, tile shapes, checks of their tensors.

Images are ``[N, C, H, W]`` tensors whose channels lie next to each other in memory (channels-last,
"NHWC"): a window's channels are then one run of bytes, which loads in 16-byte pieces and feeds a
matrix product without rearrangement. Rows, pixels and images may have any stride, so a column's
slice of a shared block works as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from triton import knobs

Tensor = torch.Tensor
Precision = Literal["fp32", "fp32x3", "tf32", "bf16", "fp16"]
Loads = Literal["pointers", "rows", "descriptors"]
PRECISIONS: dict[Precision, str] = {
    "fp32": "ieee",
    "fp32x3": "tf32x3",
    "tf32": "tf32",
    "bf16": "bf16",
    "fp16": "fp16",
}
"""What a product of float32 values keeps, and Triton's name of it.

``fp32``: IEEE float32 on the ordinary lanes. ``fp32x3``: three TF32 products per product, float32's
accuracy on tensor cores. ``tf32``: one product. ``bf16``, ``fp16``: operands are rounded to 16
bits when they are loaded (or lie so in memory already). Sums are float32 always.
"""


@dataclass(frozen=True, slots=True)
class Config:
    """How a product is cut up: its tile, its warps, and the depth of its software pipeline.

    ``block_m`` rows and ``block_n`` columns of the result, ``block_k`` values of each sum at a
    time; the kernels' constants say what they are. Stored measurements have these names.

    Of convolutions also ``loads``: through ``pointers``; ``rows``, so that those of few channels
    are 16 bytes wide; or by tensor ``descriptors``, with warps that only fetch if ``specialised``.
    ``splits`` parts of each sum, added by another kernel; 0 for a rule of the pass. ``persistent``:
    so many programs per multiprocessor, which take one tile after another; 0 for one of each tile.
    What a shape does not allow is not done.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int = 4
    stages: int = 3
    loads: Loads = "pointers"
    specialised: bool = False
    splits: int = 0
    persistent: int = 0


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """``acc + a @ b`` in float32 sums."""
    if PRECISION == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), acc)
    elif PRECISION == "fp16":
        return tl.dot(a.to(tl.float16), b.to(tl.float16), acc)
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def unravel(index, rows, columns, channels=1):
    """Image, row and column of a position among those of all images; ``channels`` lie at each."""
    column = (index // channels) % columns
    row = (index // (channels * columns)) % rows
    return index // (channels * columns * rows), row, column


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return bool(knobs.runtime.interpret)


def triton_name(precision: Precision) -> str:
    """Triton's name of a precision.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    return PRECISIONS[precision]


def image_strides(name: str, x: Tensor) -> tuple[int, int, int]:
    """Strides of image, row and pixel of a channels-last tensor, in elements.

    Raises:
        ValueError: ``x`` is no ``[N, C, H, W]`` tensor whose channels are contiguous, or too large
            for offsets of 32 bits.
    """
    if x.ndim != 4:
        raise ValueError(f"{name} must be [N, C, H, W], got {list(x.shape)}")
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(f"{name} must be channels-last, its strides are {list(x.stride())}")
    offsets_fit(name, x)
    return x.stride(0), x.stride(2), x.stride(3)


def offsets_fit(name: str, x: Tensor) -> None:
    """Check that offsets of 31 bits reach every element.

    Raises:
        ValueError: they do not, or no kernel can reach any.
    """
    reachable(x)
    span = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    if span >= 2**31:
        raise ValueError(f"{name} spans {span:,} elements; the kernels' offsets have 31 bits")


def reachable(x: Tensor) -> None:
    """Check that kernels run where a tensor lies.

    Raises:
        ValueError: it lies on the CPU, and kernels are not interpreted.
    """
    if x.device.type == "cpu" and not interpreted():
        raise ValueError(
            "Triton's kernels run on CUDA cards, and the tensors lie on the CPU: set"
            " TRITON_INTERPRET=1 before Triton is imported to have them interpreted, slowly"
        )


def check_filters(name: str, weight: Tensor) -> None:
    """Check that a filter bank ``[K, C, R, S]`` lies as ``[K, R, S, C]``.

    Raises:
        ValueError: it does not.
    """
    if weight.ndim != 4 or not weight.permute(0, 2, 3, 1).is_contiguous():
        raise ValueError(
            f"{name} must be [K, C, R, S] and channels-last, got {list(weight.shape)} with strides"
            f" {list(weight.stride())}"
        )


def power_of_two(least: int, value: int, most: int) -> int:
    """The next power of two, within bounds."""
    return max(least, min(most, triton.next_power_of_2(value)))


def block_of(count: int, most: int = 1024) -> int:
    """Elements of one program of an elementwise kernel; all elements when interpreted."""
    return power_of_two(128, count, 1 << 20 if interpreted() else most)


def images(like: Tensor, *shape: int) -> Tensor:
    """Images of a shape that nothing was written to, channels-last, like others in type."""
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def last(x: Tensor) -> Tensor:
    """Images channels-last; copied if they lie otherwise."""
    return x.contiguous(memory_format=torch.channels_last)


def outputs(extent: int, size: int, stride: int, padding: int) -> int:
    """Windows along an axis."""
    return (extent + 2 * padding - size) // stride + 1
