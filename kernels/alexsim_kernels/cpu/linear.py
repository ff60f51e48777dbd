"""Fully connected layers on CPUs.

``y = x W' + b``; ``dx = dy W``; ``dW = dy' x``, stored or straight into the update of 2012 (paper,
section 5): ``inc <- momentum inc - decay rate w - rate dW``, and ``w <- w + inc`` where it is asked
for: the gradient is then never in memory. The products are of float32, or of bfloat16, to which
their operands are rounded as they are packed (nearest, ties to even; below 2^-126 to zero); sums,
weights, momentum and all that is stored stay float32 (float32 masters: Micikevicius et al. 2018,
section 3.1). Sums run in the order of inputs, units and images,
whatever the number of threads.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from alexsim_kernels.cpu import sizes
from alexsim_kernels.cpu.algorithm import Pass
from alexsim_kernels.cpu.sizes import Precision
from alexsim_kernels.cpu.tensors import (
    Parts,
    Tensor,
    call,
    check_bf16,
    check_type,
    same_shape,
    threads,
    vector,
)


class Update(NamedTuple):
    """Constants of the update of 2012; ``apply`` moves the weights too, by the new increment."""

    momentum: float
    decay: float
    rate: float
    apply: bool = False


class _Linear(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "w", "dy", "bias", "out")),
        *((name, ctypes.c_long) for name in ("images", "inputs", "units")),
        *((name, ctypes.c_long) for name in ("x_row", "w_row", "dy_row", "out_row")),
        *((name, ctypes.c_long) for name in ("relu", "add", "threads", "update", "apply")),
        *((name, ctypes.c_double) for name in ("momentum", "decay", "rate")),
        *((name, ctypes.c_void_p) for name in ("packed", "block")),
        ("block_thread", ctypes.c_long),
    ]


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    relu: bool = False,
    add: bool = False,
    precision: Precision = "fp32",
    scratch: Tensor | None = None,
) -> None:
    """Write ``x weight' + bias`` into ``y``.

    Args:
        x: ``[M, K]``, rows of values that lie next to each other.
        weight: ``[N, K]``, likewise.
        bias: ``[N]``, or None.
        y: ``[M, N]``, likewise.
        relu: whether negative results become zero.
        add: whether to add to what is in ``y``, before the ReLU.
        precision: ``bf16`` rounds ``x`` and ``weight`` for the product; its sums are float32.
        scratch: bytes of ``sizes.linear``, uint8; allocated if not given.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
        BuildError: ``bf16`` is asked for and there are no such products here.
    """
    made = _described("forward", x, weight, y, precision, scratch)
    check_type(x=x, bias=bias)
    made.bias, made.relu, made.add = vector("bias", bias, weight.shape[0]), relu, add
    made.x, made.x_row = _rows("x", x)
    made.w, made.w_row = _rows("weight", weight)
    made.out, made.out_row = _rows("y", y)
    _call("linear_forward", made, x)


def grad_input(
    dy: Tensor,
    weight: Tensor,
    dx: Tensor,
    *,
    add: bool = False,
    precision: Precision = "fp32",
    scratch: Tensor | None = None,
) -> None:
    """Write ``dy weight`` into ``dx``, or add it; arguments as ``forward``'s.

    In every pass ``precision`` rounds what is multiplied, and nothing else.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
        BuildError: ``bf16`` is asked for and there are no such products here.
    """
    made = _described("grad_input", dx, weight, dy, precision, scratch)
    made.add = add
    made.dy, made.dy_row = _rows("dy", dy)
    made.w, made.w_row = _rows("weight", weight)
    made.out, made.out_row = _rows("dx", dx)
    _call("linear_grad_input", made, dy)


def grad_weight(
    x: Tensor,
    dy: Tensor,
    dweight: Tensor,
    dbias: Tensor | None,
    *,
    add: bool = False,
    precision: Precision = "fp32",
    scratch: Tensor | None = None,
) -> None:
    """Write ``dy' x`` into ``dweight`` and the sums of ``dy`` into ``dbias``, or add them.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
        BuildError: ``bf16`` is asked for and there are no such products here.
    """
    made = _described("grad_weight", x, dweight, dy, precision, scratch)
    made.add = add
    _grad_weight(made, x, dy, dweight, dbias)


def update_weight(
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    inc: Tensor,
    dbias: Tensor | None,
    update: Update,
    *,
    precision: Precision = "fp32",
    scratch: Tensor | None = None,
) -> None:
    """Put the gradient of the weights straight into their increment, and write ``dbias``.

    Args:
        x: ``[M, K]``.
        dy: ``[M, N]``.
        weight: ``[N, K]``; written if ``update.apply``.
        inc: ``[N, K]``: the momentum; read and written.
        dbias: ``[N]``, or None.
        update: the rule's constants.
        precision: of the gradient's product; the update is float32.
        scratch: of ``grad_weight``.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
        BuildError: ``bf16`` is asked for and there are no such products here.
    """
    made = _described("grad_weight", x, weight, dy, precision, scratch)
    check_type(weight=weight, inc=inc)
    same_shape("inc", inc, tuple(weight.shape))
    made.w, made.w_row = _rows("weight", weight)
    made.update, made.apply = True, update.apply
    made.momentum, made.decay, made.rate = update[:3]
    _grad_weight(made, x, dy, inc, dbias)


def _grad_weight(made: _Linear, x: Tensor, dy: Tensor, out: Tensor, dbias: Tensor | None) -> None:
    check_type(x=x, dbias=dbias)
    made.bias = vector("dbias", dbias, dy.shape[1])
    made.x, made.x_row = _rows("x", x)
    made.dy, made.dy_row = _rows("dy", dy)
    made.out, made.out_row = _rows("dweight", out)
    _call("linear_grad_weight", made, x)


def _call(function: str, made: _Linear, x: Tensor) -> None:
    call(function + made.suffix, x, ctypes.byref(made))


def _described(
    pass_: Pass,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    precision: Precision,
    scratch: Tensor | None,
) -> _Linear:
    check_type(x=x, weight=weight, y=y)
    if precision == "bf16":
        check_bf16(x)
    if not x.ndim == weight.ndim == y.ndim == 2 or 0 in (*x.shape, *y.shape):
        shapes = [list(t.shape) for t in (x, weight, y)]
        raise ValueError(f"x, weight and y must have 2 axes and values, got {shapes}")
    images, inputs = x.shape
    units = y.shape[1]
    same_shape("weight", weight, (units, inputs))
    same_shape("y", y, (images, units))
    count = threads()
    buffers = sizes.linear(pass_, images, inputs, units, threads=count, precision=precision)
    parts = Parts(buffers, x, scratch)
    made = _Linear(images=images, inputs=inputs, units=units, threads=count)
    for name in buffers.sizes:
        setattr(made, name, parts[name])
    made.block_thread = buffers.sizes["block"] // count
    made.parts = parts  # keeps the scratch
    made.suffix = "_bf16" if precision == "bf16" else ""
    return made


def _rows(name: str, x: Tensor) -> tuple[int, int]:
    """Address, and distance of rows."""
    if x.shape[1] > 1 and x.stride(1) != 1:
        raise ValueError(f"rows of {name} must be contiguous, its strides are {list(x.stride())}")
    return x.data_ptr(), x.stride(0)
