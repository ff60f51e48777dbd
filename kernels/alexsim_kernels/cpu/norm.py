"""Response norms on CPUs, across channels and over pixels, forward and backward.

``d = k + alpha * sum of squares over the window``, ``y = x * d^-beta``; with ``m = dy * d^-beta``,
``dx = m - 2 alpha beta x * sum over the mirrored window of m x / d``. The window's offsets are
``-(size // 2) .. size - 1 - size // 2``, over channels (the paper's local response normalisation,
section 3.3) or over rows and columns (cuda-convnet's map norm); values outside count as zero.
``alpha`` is what multiplies the sum. A power of 0.75, the paper's, is two square roots.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from alexsim_kernels.cpu import sizes
from alexsim_kernels.cpu.sizes import Window
from alexsim_kernels.cpu.tensors import (
    Map,
    Parts,
    Tensor,
    call,
    check_type,
    image_map,
    same_shape,
    threads,
)


class Constants(NamedTuple):
    """Constants of a norm: see above."""

    size: int
    k: float
    alpha: float
    beta: float


class _Norm(ctypes.Structure):
    _fields_ = [
        *((name, Map) for name in ("x", "d", "dy", "out")),
        ("size", ctypes.c_long),
        *((name, ctypes.c_double) for name in ("k", "alpha", "beta")),
        ("threads", ctypes.c_long),
        ("scratch", ctypes.c_void_p),
        ("scratch_thread", ctypes.c_long),
    ]


def forward(
    x: Tensor,
    y: Tensor,
    d: Tensor,
    constants: Constants,
    *,
    window: Window,
    scratch: Tensor | None = None,
) -> None:
    """Write ``y`` and ``d``.

    Args:
        x: ``[N, C, H, W]``, channels-last; a slice of a wider block's channels will do.
        y: the same shape.
        d: the same shape: what the power is taken of, for the backward pass.
        constants: of the norm.
        window: ``across`` channels, or ``over`` pixels.
        scratch: bytes of ``sizes.norm``, uint8; allocated if not given.

    Raises:
        ValueError: shapes differ, or a tensor is not channels-last.
    """
    _run("forward", {"x": x, "d": d, "dy": x, "out": y}, constants, window, scratch)


def backward(
    x: Tensor,
    d: Tensor,
    dy: Tensor,
    dx: Tensor,
    constants: Constants,
    *,
    window: Window,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradient of the input into ``dx``; ``d`` as ``forward`` left it.

    Raises:
        ValueError: shapes differ, or a tensor is not channels-last.
    """
    _run("backward", {"x": x, "d": d, "dy": dy, "out": dx}, constants, window, scratch)


def _run(
    direction: str,
    tensors: dict[str, Tensor],
    constants: Constants,
    window: Window,
    scratch: Tensor | None,
) -> None:
    if window not in ("across", "over"):
        raise ValueError(f"window must be 'across' or 'over', got {window!r}")
    if constants.size < 1:
        raise ValueError(f"size of a norm must be positive, got {constants.size}")
    check_type(**tensors)
    x = tensors["x"]
    for name, tensor in tensors.items():
        same_shape(name, tensor, tuple(x.shape))
    count = threads()
    buffers = sizes.norm(window, x.shape[1], x.shape[3], constants.size, threads=count)
    parts = Parts(buffers, x, scratch)
    made = _Norm(
        *(image_map(name, tensor) for name, tensor in tensors.items()),
        *constants, count, parts["threads"], buffers.sizes["threads"] // count,
    )  # fmt: skip
    call(f"norm_{window}_{direction}", x, ctypes.byref(made))
