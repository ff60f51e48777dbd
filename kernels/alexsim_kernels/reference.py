"""What the kernels mean, in plain PyTorch: any precision, differentiable, slow.

Functions return fresh tensors; sizes of outputs are arguments, because windows may hang over the
right and bottom edges.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

Tensor = torch.Tensor
Size = tuple[int, int]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: Size,
    size: Size,
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """Convolution to ``size`` pixels with ``padding`` zeros above and to the left."""
    bottom, right = (
        (out - 1) * stride + taps - extent - before
        for out, taps, extent, before in zip(
            size, weight.shape[2:], x.shape[2:], padding, strict=True
        )
    )
    padded = F.pad(x, (padding[1], max(0, right), padding[0], max(0, bottom)))
    y = F.conv2d(padded, weight, bias, stride, groups=groups)[:, :, : size[0], : size[1]]
    return y.relu() if relu else y


def max_pool(x: Tensor, *, window: int, stride: int, size: Size) -> Tensor:
    """Maxima of windows; windows may hang over the right and bottom edges."""
    return _windows(x, window, stride, size).amax(-1)


def max_pool_gradient(x: Tensor, dy: Tensor, *, window: int, stride: int, ties: str) -> Tensor:
    """Gradient of the input, spelled out: all maxima of a window get it, or the first."""
    size = (dy.shape[2], dy.shape[3])
    windows = _windows(x, window, stride, size)
    equal = windows == windows.amax(-1, keepdim=True)
    if ties == "first":
        equal &= equal.cumsum(-1) == 1
    dx = torch.zeros_like(F.pad(x, (0, window, 0, window)))
    for tap in range(window * window):
        rows = slice(tap // window, tap // window + stride * (size[0] - 1) + 1, stride)
        columns = slice(tap % window, tap % window + stride * (size[1] - 1) + 1, stride)
        dx[:, :, rows, columns] += torch.where(equal[..., tap], dy, 0)
    return dx[:, :, : x.shape[2], : x.shape[3]]


def _windows(x: Tensor, window: int, stride: int, size: Size) -> Tensor:
    bottom, right = (
        max(0, (out - 1) * stride + window - extent)
        for out, extent in zip(size, x.shape[2:], strict=True)
    )
    padded = F.pad(x, (0, right, 0, bottom), value=float("-inf"))
    views = padded.unfold(2, window, stride).unfold(3, window, stride)
    return views[:, :, : size[0], : size[1]].flatten(-2)


def norm_across_channels(x: Tensor, *, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """``x (k + alpha * sum of squares over the channels near)^-beta``."""
    half = size // 2
    squares = F.pad(x * x, (0, 0, 0, 0, half, size - 1 - half))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return x * (k + alpha * total) ** -beta


def norm_over_pixels(x: Tensor, *, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """``x (k + alpha * sum of squares over the pixels near)^-beta``."""
    half, (height, width) = size // 2, x.shape[2:]
    squares = F.pad(x * x, (half, size - 1 - half, half, size - 1 - half))
    total = sum(
        squares[:, :, i : i + height, j : j + width] for i in range(size) for j in range(size)
    )
    return x * (k + alpha * total) ** -beta


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False) -> Tensor:
    """``x weight' + bias``."""
    y = F.linear(x, weight, bias)
    return y.relu() if relu else y


def errors(p: Tensor, labels: Tensor, best: int) -> Tensor:
    """Error of the ``best`` guesses of each row; ties share the credit, and NaN makes it 1."""
    labelled = p.gather(1, labels[:, None])
    above, equal = (p > labelled).sum(1), (p == labelled).sum(1)
    error = 1 - ((best - above) / equal).clamp(0, 1)
    return error.masked_fill(~p.isfinite().all(1), 1)


def dropout_keep(
    images: int, units: int, *, step: int, key: tuple[int, int], rate: float
) -> Tensor:
    """1 for every unit that stays, ``[images, units]`` in float64, by Philox4x32-10: the round's
    constants and ten rounds are those of Salmon et al. 2011, table 2."""
    word = 0xFFFFFFFF
    unit, image = torch.meshgrid(
        torch.arange((units + 3) // 4), torch.arange(images), indexing="xy"
    )
    counter = [unit, image, torch.full_like(unit, step & word), torch.zeros_like(unit)]
    k0, k1 = key
    for _ in range(10):
        a, b = _product(counter[0], 0xD2511F53), _product(counter[2], 0xCD9E8D57)
        counter = [b[0] ^ counter[1] ^ k0, b[1], a[0] ^ counter[3] ^ k1, a[1]]
        k0, k1 = (k0 + 0x9E3779B9) & word, (k1 + 0xBB67AE85) & word
    words = torch.stack(counter, dim=-1).reshape(images, -1)[:, :units]
    return (words >= int(rate * 2**32)).double()


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low words of 32-bit products, without leaving 63 bits."""
    low, high = (x & 0xFFFF) * factor, (x >> 16) * factor
    total = low + ((high & 0xFFFF) << 16)
    return (high >> 16) + (total >> 32), total & 0xFFFFFFFF
