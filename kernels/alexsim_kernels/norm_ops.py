"""Response norms as PyTorch operators, alone and with the max-pool behind; see ``ops``."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.library import custom_op, register_autograd

from alexsim_kernels import checks as _checks
from alexsim_kernels import norm as _norm
from alexsim_kernels import norm_pool as _norm_pool
from alexsim_kernels import pool as _pool
from alexsim_kernels.common import images as _images
from alexsim_kernels.common import last as _last
from alexsim_kernels.common import outputs as _outputs


@custom_op("alexsim::local_response_norm", mutates_args=())
def local_response_norm(x: Tensor, size: int, k: float, alpha: float, beta: float) -> Tensor:
    """``x (k + alpha * sum of squares over size channels)^-beta``."""
    _checks.windows_fit(x, (1, 1), 1)
    y = _images(x, *x.shape)
    _norm.across_channels_forward(_last(x), y, None, size=size, k=k, alpha=alpha, beta=beta)
    return y


@local_response_norm.register_fake
def _local_response_norm_shape(x: Tensor, *_: Any) -> Tensor:
    return _images(x, *x.shape)


@custom_op("alexsim::local_response_norm_backward", mutates_args=())
def local_response_norm_backward(
    dy: Tensor, x: Tensor, size: int, k: float, alpha: float, beta: float
) -> Tensor:
    """Gradient of the input; the denominators are worked out again."""
    dx = _images(x, *x.shape)
    _norm.across_channels_backward(
        _last(x), None, _last(dy), dx, size=size, k=k, alpha=alpha, beta=beta
    )
    return dx


@local_response_norm_backward.register_fake
def _local_response_norm_backward_shape(_dy: Tensor, x: Tensor, *_: Any) -> Tensor:
    return _images(x, *x.shape)


def _norm_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, *ctx.constants = inputs
    ctx.save_for_backward(x)


def _norm_gradient(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    (x,) = ctx.saved_tensors
    return local_response_norm_backward(dy, x, *ctx.constants), None, None, None, None


register_autograd("alexsim::local_response_norm", _norm_gradient, setup_context=_norm_keep)


# ------------------------------------------------------------------------------- norm, then pool
@custom_op("alexsim::norm_max_pool2d", mutates_args=())
def norm_max_pool2d(
    x: Tensor,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    window: int,
    stride: int,
    ties: str,
) -> tuple[Tensor, Tensor]:
    """Norm and pool in one kernel: the pooled values, and bits for the backward pass."""
    y, winners = _norm_max_pool2d_shape(x, size, k, alpha, beta, window, stride, ties)
    _norm_pool.forward(
        _last(x), y, winners, size=size, k=k, alpha=alpha, beta=beta, window=window,
        stride=stride, ties=cast(_pool.Ties, ties),
    )  # fmt: skip
    return y, winners


@norm_max_pool2d.register_fake
def _norm_max_pool2d_shape(
    x: Tensor,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    window: int,
    stride: int,
    ties: str,
) -> tuple[Tensor, Tensor]:
    del size, k, alpha, beta
    _checks.ties_are_known(ties)
    _checks.windows_fit(x, (window, window), stride)
    height, width = (_outputs(extent, window, stride, 0) for extent in x.shape[2:])
    y = _images(x, x.shape[0], x.shape[1], height, width)
    return y, _norm_pool.winners_like(y, window)


@custom_op("alexsim::norm_max_pool2d_backward", mutates_args=())
def norm_max_pool2d_backward(
    dy: Tensor,
    x: Tensor,
    winners: Tensor,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    window: int,
    stride: int,
) -> Tensor:
    """Gradient of the norm's input."""
    dx = _images(x, *x.shape)
    _norm_pool.backward(
        _last(x), winners, _last(dy), dx, size=size, k=k, alpha=alpha, beta=beta, window=window,
        stride=stride,
    )  # fmt: skip
    return dx


@norm_max_pool2d_backward.register_fake
def _norm_max_pool2d_backward_shape(_dy: Tensor, x: Tensor, *_: Any) -> Tensor:
    return _images(x, *x.shape)


def _norm_max_pool2d_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, *constants = inputs
    ctx.constants = constants[:-1]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, output[1])


def _norm_max_pool2d_gradient(ctx: Any, dy: Tensor, _: Any) -> tuple[Any, ...]:
    x, winners = ctx.saved_tensors
    dx = norm_max_pool2d_backward(dy, x, winners, *ctx.constants)
    return dx, None, None, None, None, None, None, None


register_autograd(
    "alexsim::norm_max_pool2d", _norm_max_pool2d_gradient, setup_context=_norm_max_pool2d_keep
)
