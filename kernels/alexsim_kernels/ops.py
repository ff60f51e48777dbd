"""The kernels as PyTorch operators: ``torch.ops.alexsim.*``, differentiable and traceable.

Importing this module registers them with shapes (for ``torch.compile`` and ``torch.export``) and
gradients (for ``autograd``). Images come and go channels-last; inputs that lie otherwise are
copied. Windows of a convolution are placed as ``torch.nn.Conv2d`` places them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, cast

from torch import Tensor
from torch.library import custom_op, register_autograd

if find_spec("triton") is None:
    raise ImportError(
        "alexsim_kernels.ops needs Triton, which is not installed: pip install triton (it is for"
        " Linux); the kernels of alexsim_kernels.cpu need none"
    )

from alexsim_kernels import checks as _checks
from alexsim_kernels import convolution as _convolution
from alexsim_kernels import convolution_weight as _convolution_weight
from alexsim_kernels import linear as _linear
from alexsim_kernels import pool as _pool
from alexsim_kernels.common import Precision
from alexsim_kernels.common import images as _images
from alexsim_kernels.common import last as _last
from alexsim_kernels.common import outputs as _outputs
from alexsim_kernels.norm_ops import (
    local_response_norm,
    local_response_norm_backward,
    norm_max_pool2d,
    norm_max_pool2d_backward,
)

__all__ = [
    "conv2d",
    "conv2d_backward",
    "linear",
    "linear_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "norm_max_pool2d",
    "norm_max_pool2d_backward",
]


# ------------------------------------------------------------------------------------- convolution
@custom_op("alexsim::conv2d", mutates_args=())
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    relu: bool,
    precision: str,
) -> Tensor:
    """``[N, C, H, W]`` convolved with ``[K, C / groups, R, S]``, bias and ReLU fused."""
    y = _conv2d_shape(x, weight, bias, stride, padding, groups, relu, precision)
    _convolution.forward(
        _last(x), _last(weight), bias, y, stride=stride, padding=(padding, padding),
        groups=groups, relu=relu, precision=cast(Precision, precision),
    )  # fmt: skip
    return y


@conv2d.register_fake
def _conv2d_shape(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    relu: bool,
    precision: str,
) -> Tensor:
    del groups, relu, precision
    _checks.bias_fits("bias", bias, len(weight))
    _checks.windows_fit(x, (weight.shape[2], weight.shape[3]), stride, padding)
    height, width = (
        _outputs(extent, size, stride, padding)
        for extent, size in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    return _images(x, x.shape[0], weight.shape[0], height, width)


@custom_op("alexsim::conv2d_backward", mutates_args=())
def conv2d_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    relu_output: Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    needs_input: bool,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input (empty if not needed), of the weights and of the bias."""
    dx, dweight, dbias = _conv2d_backward_shape(
        dy, x, weight, relu_output, stride, padding, groups, needs_input, precision
    )
    options: dict[str, Any] = {
        "stride": stride,
        "padding": (padding, padding),
        "groups": groups,
        "relu_output": relu_output,
        "precision": precision,
    }
    gradient = _last(dy)
    if needs_input:
        _convolution.grad_input(gradient, _last(weight), dx, **options)
    _convolution_weight.grad_weight(_last(x), gradient, dweight, dbias, **options)
    return dx, dweight, dbias


@conv2d_backward.register_fake
def _conv2d_backward_shape(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    relu_output: Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    needs_input: bool,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor]:
    y = _conv2d_shape(x, weight, None, stride, padding, groups, relu=False, precision=precision)
    _checks.output_fits(y.shape, dy=dy, relu_output=relu_output)
    dx = _images(x, *x.shape) if needs_input else x.new_empty(0)
    return dx, _images(weight, *weight.shape), weight.new_empty(weight.shape[0])


def _conv2d_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.stride, ctx.padding, ctx.groups, ctx.relu, ctx.precision = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, output if ctx.relu else None)


def _conv2d_gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, weight, output = ctx.saved_tensors
    dx, dweight, dbias = conv2d_backward(
        dy, x, weight, output, ctx.stride, ctx.padding, ctx.groups, ctx.needs_input_grad[0],
        ctx.precision,
    )  # fmt: skip
    dx = dx if ctx.needs_input_grad[0] else None
    return dx, dweight, dbias if ctx.has_bias else None, None, None, None, None, None


register_autograd("alexsim::conv2d", _conv2d_gradient, setup_context=_conv2d_keep)


# -------------------------------------------------------------------------------------------- pool
@custom_op("alexsim::max_pool2d", mutates_args=())
def max_pool2d(x: Tensor, size: int, stride: int, ties: str) -> Tensor:
    """Maxima of windows; ``ties`` (``all`` or ``first``) says who gets the gradient."""
    y = _max_pool2d_shape(x, size, stride, ties)
    _pool.forward(_last(x), y, size=size, stride=stride)
    return y


@max_pool2d.register_fake
def _max_pool2d_shape(x: Tensor, size: int, stride: int, ties: str) -> Tensor:
    _checks.windows_fit(x, (size, size), stride)
    _checks.ties_are_known(ties)
    height, width = (_outputs(extent, size, stride, 0) for extent in x.shape[2:])
    return _images(x, x.shape[0], x.shape[1], height, width)


@custom_op("alexsim::max_pool2d_backward", mutates_args=())
def max_pool2d_backward(
    dy: Tensor, x: Tensor, y: Tensor, size: int, stride: int, ties: str
) -> Tensor:
    """Gradient of the input."""
    _checks.output_fits(_max_pool2d_shape(x, size, stride, ties).shape, dy=dy, y=y)
    dx = _images(x, *x.shape)
    _pool.backward(
        _last(x), y, _last(dy), dx, size=size, stride=stride, ties=cast(_pool.Ties, ties)
    )
    return dx


@max_pool2d_backward.register_fake
def _max_pool2d_backward_shape(_dy: Tensor, x: Tensor, *_: Any) -> Tensor:
    return _images(x, *x.shape)


def _max_pool2d_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.size, ctx.stride, ctx.ties = inputs
    ctx.save_for_backward(x, output)


def _max_pool2d_gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, y = ctx.saved_tensors
    return max_pool2d_backward(dy, x, y, ctx.size, ctx.stride, ctx.ties), None, None, None


register_autograd("alexsim::max_pool2d", _max_pool2d_gradient, setup_context=_max_pool2d_keep)


# ------------------------------------------------------------------------------------------ linear
@custom_op("alexsim::linear", mutates_args=())
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, precision: str) -> Tensor:
    """``x weight' + bias`` with ReLU; ``x`` is ``[N, I]``, ``weight`` ``[U, I]``."""
    _checks.bias_fits("bias", bias, len(weight))
    y = x.new_empty(x.shape[0], weight.shape[0])
    _linear.forward(x, weight, bias, y, relu=relu, precision=cast(Precision, precision))
    return y


@linear.register_fake
def _linear_shape(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, precision: str
) -> Tensor:
    del bias, relu, precision
    return x.new_empty(x.shape[0], weight.shape[0])


@custom_op("alexsim::linear_backward", mutates_args=())
def linear_backward(
    dy: Tensor, x: Tensor, weight: Tensor, relu_output: Tensor | None, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, of the weights and of the bias."""
    dx, dweight, dbias = _linear_backward_shape(dy, x, weight, relu_output, precision)
    options: dict[str, Any] = {"relu_output": relu_output, "precision": precision}
    gradient = dy.contiguous()
    _linear.grad_input(gradient, weight, dx, **options)
    _linear.grad_weight(x, gradient, dweight, dbias, **options)
    return dx, dweight, dbias


@linear_backward.register_fake
def _linear_backward_shape(
    dy: Tensor, x: Tensor, weight: Tensor, relu_output: Tensor | None, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    del precision
    _checks.output_fits((len(x), len(weight)), dy=dy, relu_output=relu_output)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(len(weight))


def _linear_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.relu, ctx.precision = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, output if ctx.relu else None)


def _linear_gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, weight, output = ctx.saved_tensors
    dx, dweight, dbias = linear_backward(dy, x, weight, output, ctx.precision)
    return dx, dweight, dbias if ctx.has_bias else None, None, None


register_autograd("alexsim::linear", _linear_gradient, setup_context=_linear_keep)
