"""ReLU and its gradient on CPUs, in one pass over memory, with the bits of PyTorch's.

NaN stays NaN forward; backward an output that is NaN lets the gradient through.
"""

from __future__ import annotations

import ctypes

from alexsim_kernels.cpu.tensors import (
    Map,
    Tensor,
    call,
    check_type,
    image_map,
    same_shape,
    threads,
)


class _Relu(ctypes.Structure):
    _fields_ = [*((name, Map) for name in ("x", "dy", "out")), ("threads", ctypes.c_long)]


def forward(x: Tensor, y: Tensor) -> None:
    """Write ``max(x, 0)`` into ``y``, which may be ``x``.

    Args:
        x: ``[N, C, H, W]``, channels-last; a slice of a wider block's channels will do.
        y: the same shape.

    Raises:
        ValueError: shapes differ, or a tensor is not channels-last.
    """
    _run("relu_forward", {"x": x, "dy": x, "y": y})


def backward(y: Tensor, dy: Tensor, dx: Tensor) -> None:
    """Write the gradient of the input into ``dx``, which may be ``dy`` or ``y``.

    Args:
        y: the forward's output, shaped as there.
        dy: gradient of the output.
        dx: gradient of the input: ``dy`` where ``y`` is positive, else 0.

    Raises:
        ValueError: shapes differ, or a tensor is not channels-last.
    """
    _run("relu_backward", {"y": y, "dy": dy, "dx": dx})


def _run(kernel: str, tensors: dict[str, Tensor]) -> None:
    check_type(**tensors)
    first, *_ = tensors.values()
    for name, tensor in tensors.items():
        same_shape(name, tensor, tuple(first.shape))
    maps = (image_map(name, tensor) for name, tensor in tensors.items())
    call(kernel, first, ctypes.byref(_Relu(*maps, threads())))
