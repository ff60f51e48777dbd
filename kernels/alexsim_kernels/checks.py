"""What operators refuse before a kernel runs, which would read what lies beside a tensor.

Kernels live in other files: what they compile to is on record by their text and their lines.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Of images."""
_TIES = ("all", "first")


def ties_are_known(ties: str) -> None:
    """Check how equal inputs of a window share a gradient.

    Raises:
        ValueError: there is no such way.
    """
    if ties not in _TIES:
        raise ValueError(f"ties must be 'all' or 'first', got {ties!r}")


def bias_fits(name: str, bias: Tensor | None, outputs: int) -> None:
    """Check that there is a value for each filter or unit, one after another: kernels read as many.

    Raises:
        ValueError: there is not.
    """
    if bias is not None and (bias.shape != (outputs,) or bias.stride() != (1,)):
        raise ValueError(
            f"{name} must be [{outputs}], without gaps; got {list(bias.shape)} with strides"
            f" {list(bias.stride())}"
        )


def windows_fit(x: Tensor, size: tuple[int, int], stride: int, padding: int = 0) -> None:
    """Check that a window of ``size`` has a place in padded images, and steps on.

    Raises:
        ValueError: ``x`` is no batch of images, or of another type than kernels have; or it does
            not.
    """
    if x.ndim != 4:
        raise ValueError(f"images must be [N, C, H, W], got {list(x.shape)}")
    if x.dtype not in _TYPES:
        known = ", ".join(str(each).removeprefix("torch.") for each in _TYPES)
        raise ValueError(f"images must be {known}; got {str(x.dtype).removeprefix('torch.')}")
    if stride < 1 or padding < 0 or min(size) < 1:
        raise ValueError(f"stride and window must be at least 1, padding at least 0;"
                         f" got {stride}, {size[0]} x {size[1]} and {padding}")  # fmt: skip
    height, width = (extent + 2 * padding for extent in x.shape[2:])
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"a window of {size[0]} x {size[1]} has no place in {height} x {width} pixels, padding"
            " included"
        )


def output_fits(shape: Sequence[int], **tensors: Tensor | None) -> None:
    """Check that gradients and results of a layer have its output's shape: kernels read as much.

    Raises:
        ValueError: one has not.
    """
    for name, tensor in tensors.items():
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise ValueError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")
