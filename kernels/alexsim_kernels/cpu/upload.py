"""Upload of images on CPUs: bytes, mirrored and normalised on their way into a step's buffer."""

from __future__ import annotations

import ctypes

import torch

from alexsim_kernels.cpu.tensors import Tensor, call, check_type, same_shape, threads


class _Upload(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("pixels", "mean", "deviation", "noise", "factor", "mirrored", "out")
        ),
        *((name, ctypes.c_long) for name in ("images", "height", "width", "channels", "threads")),
    ]


def upload(
    pixels: Tensor,
    out: Tensor,
    mean: Tensor,
    deviation: Tensor | None = None,
    noise: Tensor | None = None,
    factor: Tensor | None = None,
    mirrored: Tensor | None = None,
) -> None:
    """Write ``(pixels + noise - mean) / deviation * factor`` into ``out``.

    Every operation is rounded to the type of ``out``, so the bits are those of any program that
    does the same, and of any number of threads.

    Args:
        pixels: ``[N, C, H, W]``, uint8, channels-last and dense.
        out: ``[N, C, H, W]``, likewise, float32 or float64.
        mean: ``[H, W, C]``, not mirrored with the pixels.
        deviation: ``[C]``; nothing is divided without.
        noise: ``[N, C]``; none without.
        factor: ``[N]``; 1 without.
        mirrored: ``[N]``, bool: whose rows are turned first; none without.

    Raises:
        ValueError: tensors do not go together.
    """
    check_type(out=out)
    shape = tuple(out.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"out must be [N, C, H, W], none of them 0, got {list(shape)}")
    if pixels.dtype != torch.uint8 or pixels.device.type != "cpu":
        raise ValueError(f"pixels must be uint8 on the CPU, got {pixels.dtype} on {pixels.device}")
    same_shape("pixels", pixels, shape)
    for name, tensor in (("pixels", pixels), ("out", out)):
        if not tensor.permute(0, 2, 3, 1).is_contiguous():
            raise ValueError(f"{name} must be channels-last without gaps")
    images, channels, height, width = shape
    kept = [
        _values(name, values, wanted, torch.bool if name == "mirrored" else out.dtype)
        for name, values, wanted in (
            ("mean", mean, (height, width, channels)),
            ("deviation", deviation, (channels,)),
            ("noise", noise, (images, channels)),
            ("factor", factor, (images,)),
            ("mirrored", mirrored, (images,)),
        )
    ]
    pointers = (None if values is None else values.data_ptr() for values in kept)
    made = _Upload(
        pixels.data_ptr(), *pointers, out.data_ptr(), images, height, width, channels, threads()
    )
    call("upload", out, ctypes.byref(made))


def _values(
    name: str, values: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor | None:
    """In a row, and of the kernel's type: a copy if they are not."""
    if values is None:
        return None
    same_shape(name, values, shape)
    if values.device.type != "cpu" or values.is_floating_point() != dtype.is_floating_point:
        raise ValueError(f"{name} must be on the CPU, like {dtype}, got {values.dtype}")
    return values.to(dtype).contiguous()
