"""Fully connected layers: three products with what stands around them fused in.

``y = x w' + b`` with ReLU; ``dx = dy w``; and the weight gradient ``dy' x``, which goes straight
into the momentum: ``v <- momentum v - rate (decay w + dy' x)``, so that it is never stored (the
original's rule for these layers). Where the forward had a ReLU, ``dy`` counts where its output is
positive. In the kernels ``a_row`` is the stride from row to row of ``a``, in elements, and so on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import Config, Precision, Tensor, dot, triton_name
from alexsim_kernels.tuning import Key, choose


@triton.jit
def _product(
    a, b, mask, bias, out, weight, constants, rows, columns, depth,
    a_row, a_depth, b_depth, b_column, mask_row, mask_depth, out_row, weight_row,
    MASKED: tl.constexpr, HAS_BIAS: tl.constexpr, RELU: tl.constexpr, ADD: tl.constexpr,
    MOMENTUM: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    column_tiles = tl.cdiv(columns, BLOCK_COLUMNS)
    tile = tl.program_id(0)
    row = (tile // column_tiles) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = (tile % column_tiles) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
    for start in range(0, depth, BLOCK_DEPTH):
        k = start + tl.arange(0, BLOCK_DEPTH)
        left_mask = (row < rows)[:, None] & (k < depth)[None, :]
        left_at = a + row[:, None] * a_row + k[None, :] * a_depth
        left = tl.load(left_at, mask=left_mask, other=0.0)
        if MASKED:
            offset = row[:, None] * mask_row + k[None, :] * mask_depth
            left = tl.where(tl.load(mask + offset, mask=left_mask, other=0.0) > 0, left, 0.0)
        right_mask = (k < depth)[:, None] & (column < columns)[None, :]
        right_at = b + k[:, None] * b_depth + column[None, :] * b_column
        right = tl.load(right_at, mask=right_mask, other=0.0)
        acc = dot(left, right, acc, PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias + column, mask=column < columns, other=0.0)[None, :]
    if RELU:
        acc = tl.where(acc < 0, 0.0, acc)  # NaN stays NaN
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    target = out + row[:, None] * out_row + column[None, :]
    if ADD:
        acc += tl.load(target, mask=inside, other=0.0)
    if MOMENTUM:
        momentum, decay, rate = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
        weight_at = weight + row[:, None] * weight_row + column[None, :]
        weights = tl.load(weight_at, mask=inside, other=0.0)
        acc = momentum * tl.load(target, mask=inside, other=0.0) - rate * (decay * weights + acc)
    tl.store(target, acc, mask=inside)


@triton.jit
def _column_sums(
    x, mask, out, rows, columns, x_row, mask_row, MASKED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    total = tl.zeros((BLOCK_COLUMNS,), dtype=tl.float32)
    for start in range(0, rows, BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        inside = (row < rows)[:, None] & (column < columns)[None, :]
        value = tl.load(x + row[:, None] * x_row + column[None, :], mask=inside, other=0.0)
        if MASKED:
            offset = row[:, None] * mask_row + column[None, :]
            value = tl.where(tl.load(mask + offset, mask=inside, other=0.0) > 0, value, 0.0)
        total += tl.sum(value.to(tl.float32), axis=0)
    tl.store(out + column, total, mask=column < columns)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    relu: bool = False,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write ``x weight' + bias``, with ReLU if asked for.

    Args:
        x: ``[N, I]``.
        weight: ``[U, I]``.
        bias: ``[U]``.
        y: ``[N, U]``, rows contiguous.
        relu: write ``max(y, 0)``.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.

    Raises:
        ValueError: shapes do not match.
    """
    _shapes(x, weight, y)
    units, inputs = weight.shape
    key = Key("linear forward", len(x), units, inputs, inputs, False, precision, x.element_size())
    _launch(
        x, (x.stride(0), x.stride(1)), weight, (weight.stride(1), weight.stride(0)), y,
        (len(x), units, inputs), config or choose(key, x), precision, bias=bias, relu=relu,
    )  # fmt: skip


def grad_input(
    dy: Tensor,
    weight: Tensor,
    dx: Tensor,
    *,
    relu_output: Tensor | None = None,
    accumulate: bool = False,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write ``dy weight`` into ``dx`` (``[N, I]``), or add it; ``relu_output`` is the forward's.

    Raises:
        ValueError: shapes do not match.
    """
    _shapes(dx, weight, dy)
    units, inputs = weight.shape
    key = Key(
        "linear grad_input", len(dy), inputs, units, units, False, precision, dy.element_size()
    )
    _launch(
        dy, (dy.stride(0), dy.stride(1)), weight, (weight.stride(0), weight.stride(1)), dx,
        (len(dy), inputs, units), config or choose(key, dy), precision,
        mask=relu_output, add=accumulate,
    )  # fmt: skip


def grad_weight(
    x: Tensor,
    dy: Tensor,
    dweight: Tensor,
    dbias: Tensor,
    *,
    relu_output: Tensor | None = None,
    momentum_of: tuple[Tensor, Tensor] | None = None,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write the gradients of weights and biases, summed over the images.

    Args:
        x: ``[N, I]``.
        dy: ``[N, U]``.
        dweight: ``[U, I]``, rows contiguous; or the momentum.
        dbias: ``[U]``.
        relu_output: the forward's, if it had a ReLU.
        momentum_of: weights and three constants on the device (momentum, decay, rate): then
            ``dweight`` is their momentum and becomes
            ``momentum dweight - rate (decay weights + gradient)``.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.

    Raises:
        ValueError: shapes do not match.
    """
    _shapes(x, dweight, dy)
    units, inputs = dweight.shape
    key = Key(
        "linear grad_weight", units, inputs, len(x), inputs, False, precision, x.element_size()
    )
    mask = dy if relu_output is None else relu_output
    _launch(
        dy, (dy.stride(1), dy.stride(0)), x, (x.stride(0), x.stride(1)), dweight,
        (units, inputs, len(x)), config or choose(key, x), precision,
        mask=None if relu_output is None else relu_output.t(), momentum_of=momentum_of,
    )  # fmt: skip
    _column_sums[(triton.cdiv(units, 64),)](
        dy, mask, dbias, len(dy), units, dy.stride(0), mask.stride(0),
        MASKED=relu_output is not None, BLOCK_ROWS=32, BLOCK_COLUMNS=64,
    )  # fmt: skip


def _launch(
    a: Tensor,
    a_strides: tuple[int, int],
    b: Tensor,
    b_strides: tuple[int, int],
    out: Tensor,
    sizes: tuple[int, int, int],
    config: Config,
    precision: Precision,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    relu: bool = False,
    add: bool = False,
    momentum_of: tuple[Tensor, Tensor] | None = None,
) -> None:
    rows, columns, _ = sizes
    if out.stride(1) != 1 and columns > 1:
        raise ValueError(f"rows of the result must be contiguous, its strides are {out.stride()}")
    weight, constants = momentum_of or (out, out)
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(columns, config.block_n),)
    _product[grid](
        a, b, a if mask is None else mask, out if bias is None else bias, out, weight, constants,
        *sizes, *a_strides, *b_strides,
        *((0, 0) if mask is None else (mask.stride(0), mask.stride(1))),
        out.stride(0), weight.stride(0),
        MASKED=mask is not None, HAS_BIAS=bias is not None, RELU=relu, ADD=add,
        MOMENTUM=momentum_of is not None, PRECISION=triton_name(precision),
        BLOCK_ROWS=config.block_m, BLOCK_COLUMNS=config.block_n, BLOCK_DEPTH=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def _shapes(x: Tensor, weight: Tensor, y: Tensor) -> None:
    if (x.shape[1], y.shape[1]) != (weight.shape[1], weight.shape[0]) or len(x) != len(y):
        raise ValueError(
            f"weight {list(weight.shape)} does not lead from {list(x.shape)} to {list(y.shape)}"
        )
