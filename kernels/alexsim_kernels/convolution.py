"""Convolution forward and input gradient, as implicit matrix products.

``y[n, k, p, q] = sum over c, r, s of x[n, c, p * stride - top + r, q * stride - left + s]
* w[k, c, r, s] + b[k]``, channels in groups; what lies outside the image is zero. The matrix of
windows is never written: its rows are gathered while the product runs, through pointers
(``convolution_pointers``) or by a card's copy engine (``convolution_descriptors``).

* Forward: rows are output pixels of all images, columns filters, the sum over taps and channels.
* Input gradient: rows are input pixels, columns channels, the sum over taps and filters.

The weight gradient is in ``convolution_weight``.

With up to 4 channels taps and channels are one flat index (a window's row of ``S * C`` values is
one run in memory), so that the three colours of conv1 do not pad every tap to 16.
"""

from __future__ import annotations

import triton

from alexsim_kernels import convolution_descriptors as descriptors
from alexsim_kernels import convolution_pointers as pointers
from alexsim_kernels.common import (
    Config,
    Precision,
    Tensor,
    check_filters,
    image_strides,
    triton_name,
)
from alexsim_kernels.convolution_splits import finish, parts_of
from alexsim_kernels.tuning import Key, choose, programs

FLAT_CHANNELS = 4
"""Up to so many channels per pixel, taps and channels are one index."""


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    stride: int,
    padding: tuple[int, int],
    groups: int = 1,
    relu: bool = False,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write the convolution of ``x`` into ``y``, with bias and, if asked for, ReLU.

    Args:
        x: ``[N, C, H, W]``, channels-last.
        weight: ``[K, C / groups, R, S]``, channels-last.
        bias: ``[K]``.
        y: ``[N, K, P, Q]``, channels-last; its size says how far windows hang over the right and
            bottom edges.
        stride: of windows, both ways.
        padding: zeros above and to the left.
        groups: of channels and filters.
        relu: write ``max(y, 0)``.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.

    Raises:
        ValueError: shapes do not match, or a tensor lies otherwise.
    """
    check(x, weight, y, groups)
    channels, filters = x.shape[1] // groups, weight.shape[0] // groups
    pixels = y.shape[0] * y.shape[2] * y.shape[3]
    size = weight.shape[2], weight.shape[3]
    flat = is_flat(x, groups)
    key = Key(
        "forward", pixels, filters, channels * size[0] * size[1], channels, flat, precision,
        x.element_size(),
    )  # fmt: skip
    config = config or choose(key, x)
    if config.loads == "descriptors" and descriptors.fit(
        x, y, weight=weight, stride=stride, groups=groups
    ):
        descriptors.forward(
            x, weight, bias, y, padding=padding, relu=relu, precision=precision, config=config
        )
        return
    tiles = triton.cdiv(pixels, config.block_m) * triton.cdiv(filters, config.block_n)
    splits, partial = parts_of(y, config)
    pointers.forward[(programs(tiles, config, x), groups, splits)](
        x, weight, bias if bias is not None else x, y, partial,
        pixels, *x.shape[2:], *y.shape[2:], *image_strides("x", x), *image_strides("y", y), tiles,
        CHANNELS=channels, FILTERS=filters, R=size[0], S=size[1],
        STRIDE=stride, TOP=padding[0], LEFT=padding[1], ROW=row_of_taps(x, weight, groups, config),
        RELU=relu, HAS_BIAS=bias is not None, PRECISION=triton_name(precision),
        SPLITS=splits, PERSISTENT=config.persistent > 0,
        BLOCK_PIXELS=config.block_m, BLOCK_FILTERS=config.block_n, BLOCK_DEPTH=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    if splits > 1:
        finish(partial, y, splits, bias=bias, relu=relu)


def grad_input(
    dy: Tensor,
    weight: Tensor,
    dx: Tensor,
    *,
    stride: int,
    padding: tuple[int, int],
    groups: int = 1,
    relu_output: Tensor | None = None,
    accumulate: bool = False,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write the gradient of the input into ``dx``, or add it.

    Args:
        dy: gradient of the output, ``[N, K, P, Q]``, channels-last.
        weight: ``[K, C / groups, R, S]``, channels-last.
        dx: ``[N, C, H, W]``, channels-last.
        stride: of windows, both ways.
        padding: zeros above and to the left.
        groups: of channels and filters.
        relu_output: what the fused forward wrote; ``dy`` counts where it is positive.
        accumulate: add to ``dx``.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.

    Raises:
        ValueError: shapes do not match, or a tensor lies otherwise.
    """
    check(dx, weight, dy, groups)
    channels, filters = dx.shape[1] // groups, weight.shape[0] // groups
    pixels = dx.shape[0] * dx.shape[2] * dx.shape[3]
    size = weight.shape[2], weight.shape[3]
    key = Key(
        "grad_input", pixels, channels, filters * size[0] * size[1], filters, False, precision,
        dy.element_size(),
    )  # fmt: skip
    config = config or choose(key, dy)
    mask = dy if relu_output is None else relu_output
    if config.loads == "descriptors" and descriptors.fit(
        dy, mask, dx, weight=weight, stride=stride, groups=groups
    ):
        descriptors.grad_input(
            dy, weight, dx, padding=padding, relu_output=relu_output, accumulate=accumulate,
            precision=precision, config=config,
        )  # fmt: skip
        return
    tiles = triton.cdiv(pixels, config.block_m) * triton.cdiv(channels, config.block_n)
    splits, partial = parts_of(dx, config)
    pointers.grad_input[(programs(tiles, config, dy), groups, splits)](
        dy, weight, mask, dx, partial,
        pixels, *dx.shape[2:], *dy.shape[2:],
        *image_strides("dy", dy), *image_strides("relu_output", mask), *image_strides("dx", dx),
        tiles, CHANNELS=channels, FILTERS=filters, R=size[0], S=size[1],
        STRIDE=stride, TOP=padding[0], LEFT=padding[1],
        MASKED=relu_output is not None, ADD=accumulate, PRECISION=triton_name(precision),
        SPLITS=splits, PERSISTENT=config.persistent > 0,
        BLOCK_PIXELS=config.block_m, BLOCK_CHANNELS=config.block_n, BLOCK_DEPTH=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    if splits > 1:
        finish(partial, dx, splits, accumulate=accumulate)


def is_flat(x: Tensor, groups: int) -> bool:
    """Whether a window's row of all its taps and channels is one run in memory."""
    return groups == 1 and x.shape[1] <= FLAT_CHANNELS and x.stride(3) == x.shape[1]


def row_of_taps(x: Tensor, weight: Tensor, groups: int, config: Config) -> int:
    """Values of a row of taps and channels in a sum's index, or 0: see ``convolution_pointers``."""
    if not is_flat(x, groups):
        return 0
    row = weight.shape[3] * weight.shape[1]
    return triton.cdiv(row, 4) * 4 if config.loads == "rows" else row


def check(x: Tensor, weight: Tensor, y: Tensor, groups: int) -> None:
    """Refuse filters that do not lead from ``x`` to ``y``."""
    check_filters("weight", weight)
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] != y.shape[1]:
        raise ValueError(
            f"weight {list(weight.shape)} in {groups} group(s) does not lead from"
            f" {list(x.shape)} to {list(y.shape)}"
        )
    if weight.shape[0] % groups or x.shape[0] != y.shape[0]:
        raise ValueError(f"{list(weight.shape)} in {groups} groups, {len(x)} and {len(y)} images")
