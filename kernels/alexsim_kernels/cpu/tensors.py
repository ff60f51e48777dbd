"""What all CPU kernels share: their view of tensors, threads, scratch, and the way into C++."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from alexsim_kernels.cpu.build import BuildError, Scalar, bf16_available, library
from alexsim_kernels.cpu.scratch import ALIGNMENT, Buffers

Tensor = torch.Tensor
_SCALARS: dict[torch.dtype, Scalar] = {torch.float32: "float", torch.float64: "double"}


class Map(ctypes.Structure):
    """Images as the kernels see them: ``Map`` of ``vector.h``."""

    _fields_ = [("data", ctypes.c_void_p)] + [
        (name, ctypes.c_long)
        for name in ("images", "channels", "height", "width", "image", "row", "pixel")
    ]


class Filters(ctypes.Structure):
    """Filters as the kernels see them: ``Filters`` of ``filters.h``."""

    _fields_ = [("data", ctypes.c_void_p)] + [
        (name, ctypes.c_long)
        for name in (
            "filters", "channels", "rows", "columns", "filter", "channel", "row", "column",
            "true_rows", "true_columns", "fold", "turned",
        )
    ]  # fmt: skip


def call(function: str, like: Tensor, *arguments: Any) -> None:
    """Call a kernel of the library for the type of ``like``."""
    getattr(library(scalar_of(like.dtype)), function)(*arguments)


def scalar_of(dtype: torch.dtype) -> Scalar:
    """The name in C++ of a type that there are kernels for."""
    return _SCALARS[dtype]


def check_type(**tensors: Tensor | None) -> None:
    """Refuse tensors that are not on the CPU, or not of one floating type.

    Raises:
        ValueError: names the tensor.
    """
    first = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.device.type != "cpu" or tensor.dtype not in _SCALARS:
            raise ValueError(
                f"{name} must be float32 or float64 on the CPU, got {tensor.dtype} on"
                f" {tensor.device}"
            )
        first = first or (name, tensor.dtype)
        if tensor.dtype != first[1]:
            raise ValueError(f"{name} is {tensor.dtype}, but {first[0]} is {first[1]}")


def check_bf16(x: Tensor) -> None:
    """Refuse products of bfloat16 for float64, and where there are none.

    Raises:
        ValueError: ``x`` is not float32.
        BuildError: there are none here.
    """
    if x.dtype != torch.float32:
        raise ValueError(f"precision bf16 is for float32 tensors, got {x.dtype}")
    if why_not := bf16_available():
        raise BuildError(why_not)


def image_map(name: str, x: Tensor) -> Map:
    """A ``[N, C, H, W]`` tensor whose channels lie next to each other in memory.

    Rows, pixels and images may have any distance: a slice of the channels of a wider block will do.

    Raises:
        ValueError: it is none.
    """
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{name} must be [N, C, H, W], none of them 0, got {list(x.shape)}")
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(f"{name} must be channels-last, its strides are {list(x.stride())}")
    images, channels, height, width = x.shape
    return Map(x.data_ptr(), images, channels, height, width, x.stride(0), x.stride(2), x.stride(3))


def same_shape(name: str, x: Tensor, wanted: tuple[int, ...]) -> None:
    """Check a shape.

    Raises:
        ValueError: it is another.
    """
    if tuple(x.shape) != wanted:
        raise ValueError(f"{name} must be {list(wanted)}, got {list(x.shape)}")


def vector(name: str, x: Tensor | None, count: int) -> int | None:
    """Address of ``[count]`` values in a row, or None.

    Raises:
        ValueError: they are no such row.
    """
    if x is None:
        return None
    same_shape(name, x, (count,))
    if not x.is_contiguous():
        raise ValueError(f"{name} must be contiguous, its stride is {x.stride(0)}")
    return x.data_ptr()


def threads() -> int:
    """Threads of a kernel: as many as torch's own."""
    return torch.get_num_threads()


def new_scratch(size: int) -> Tensor:
    """Scratch of so many bytes; in huge pages where the system gives them on request."""
    made = torch.empty(size, dtype=torch.uint8)
    if size >= _HUGE:
        start = -(-made.data_ptr() // _HUGE) * _HUGE
        length = (made.data_ptr() + size - start) // _HUGE * _HUGE
        _madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return made


_HUGE = 2 << 20
_MADV_HUGEPAGE = 14  # <sys/mman.h>; where it is refused, pages stay small
_madvise = ctypes.CDLL(None).madvise


class Parts:
    """Addresses of the named parts of a scratch, of the caller's or new."""

    def __init__(self, buffers: Buffers, like: Tensor, scratch: Tensor | None) -> None:
        """Cut ``scratch`` up.

        Raises:
            ValueError: it is too small, or no row of bytes.
        """
        size = buffers.bytes(like.element_size())
        if scratch is None:
            scratch = new_scratch(size)
        if scratch.dtype != torch.uint8 or scratch.ndim != 1 or not scratch.is_contiguous():
            raise ValueError(f"scratch must be a row of bytes, got {scratch.dtype}")
        if scratch.numel() < size:
            raise ValueError(f"scratch needs {size:,} bytes, got {scratch.numel():,}")
        self._kept = scratch
        self._start = -(-scratch.data_ptr() // ALIGNMENT) * ALIGNMENT
        self._offsets = buffers.offsets(like.element_size())

    def __getitem__(self, name: str) -> int:
        return self._start + self._offsets[name]
