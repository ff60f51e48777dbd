"""Batch and layer normalisation: sums over a few images at a time, then one pass that writes."""

from __future__ import annotations

import torch

from alexsim.execute.aten.chunks import chunks, per_channel
from alexsim.network.layers import BatchNorm, LayerNorm

Tensor = torch.Tensor


class BatchNormTensors:
    """What the passes of a batch norm share.

    Args:
        x: input, ``[N, C, ...]``.
        mean: ``[C]``, of the minibatch.
        rstd: ``[C]``, one divided by the square root of its variance and epsilon.
    """

    def __init__(self, x: Tensor, mean: Tensor, rstd: Tensor) -> None:
        self.x, self.mean, self.rstd = x, mean, rstd
        self.axes = (0, *range(2, x.ndim))
        self.count = x.numel() // x.shape[1]


def batch_norm_forward(
    layer: BatchNorm,
    tensors: BatchNormTensors,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor],
    y: Tensor,
    size: int,
    *,
    training: bool,
) -> None:
    """Normalise by the minibatch, and gather running statistics; or by those, at test."""
    mean, rstd = tensors.mean, tensors.rstd
    if training:
        _statistics(layer, tensors, running, size)
    else:
        mean, rstd = running[0], torch.rsqrt(running[1] + layer.epsilon)
    scale, shift = (per_channel(v, tensors.x) for v in (weight * rstd, bias - mean * weight * rstd))
    torch.addcmul(shift, tensors.x, scale, out=y)


def _statistics(
    layer: BatchNorm, tensors: BatchNormTensors, running: tuple[Tensor, Tensor], size: int
) -> None:
    """Mean and ``rstd`` of the minibatch; and their share of the running statistics."""
    if _is_dense(tensors.x):
        # Not ATen's whole batch norm, which rounds otherwise where the output is a slice of
        # channels: whether it is depends on the policy, which may change no bit.
        mean, variance = torch.ops.aten.batch_norm_update_stats(tensors.x, *running, layer.momentum)
        tensors.mean.copy_(mean)
        torch.rsqrt(variance.add_(layer.epsilon), out=tensors.rstd)
        return
    # ATen's function gives wrong statistics of a slice of channels.
    torch.mean(tensors.x, tensors.axes, out=tensors.mean)
    mean, scratch = per_channel(tensors.mean, tensors.x), _scratch(tensors.x, size)
    squares = tensors.rstd.zero_()
    for part in chunks(tensors.x.shape[0], size):
        centred = scratch[: part.stop - part.start]
        torch.sub(tensors.x[part], mean, out=centred)
        squares.add_(centred.square_().sum(tensors.axes))
    unbiased = squares / max(tensors.count - 1, 1)
    for statistic, new in zip(running, (tensors.mean, unbiased), strict=True):
        statistic.lerp_(new, layer.momentum)
    squares.div_(tensors.count).add_(layer.epsilon).rsqrt_()


def batch_norm_sums(
    tensors: BatchNormTensors, dy: Tensor, dweight: Tensor, dbias: Tensor, size: int
) -> None:
    """``dbias = sum dy``, ``dweight = sum dy (x - mean) rstd``, over images and pixels."""
    wanted = [False, True, True]
    x_room, dy_room = (None if _is_dense(v) else _scratch(tensors.x, size) for v in (tensors.x, dy))
    for part in chunks(tensors.x.shape[0], size):
        # Of dense tensors only, so that sums round alike however a policy lays them out.
        x, grad = _dense(tensors.x[part], x_room), _dense(dy[part], dy_room)
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            grad, x, None, None, None, tensors.mean, tensors.rstd, True, 0.0, wanted
        )
        for total, partial in zip((dweight, dbias), sums, strict=True):
            (total.add_ if part.start else total.copy_)(partial)


def batch_norm_grad_input(
    tensors: BatchNormTensors,
    weight: Tensor,
    dy: Tensor,
    sums: tuple[Tensor, Tensor] | None,
    dx: Tensor,
    size: int,
    *,
    add: bool,
) -> None:
    """``dx = scale rstd (dy - dbias / M - (x - mean) rstd dweight / M)``, M values per channel.

    ``sums`` are ``dweight`` and ``dbias``, where they have been computed.
    """
    if sums is None:
        sums = (torch.empty_like(tensors.mean), torch.empty_like(tensors.mean))
        batch_norm_sums(tensors, dy, *sums, size)
    dweight, dbias = sums
    dy_factor = weight * tensors.rstd
    x_factor = -dy_factor * tensors.rstd * dweight / tensors.count
    offset = -dy_factor * dbias / tensors.count - x_factor * tensors.mean
    x_factor, dy_factor, offset = (per_channel(v, tensors.x) for v in (x_factor, dy_factor, offset))
    for part in chunks(tensors.x.shape[0], size):
        out = dx[part]
        if add:
            out.add_(offset).addcmul_(tensors.x[part], x_factor)
        else:
            torch.addcmul(offset, tensors.x[part], x_factor, out=out)
        out.addcmul_(dy[part], dy_factor)


def layer_norm_forward(
    layer: LayerNorm,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    kept: tuple[Tensor, Tensor],
    size: int,
) -> None:
    """Normalise over the channels of each pixel; keep mean and ``rstd``."""
    scale, shift = per_channel(weight, x), per_channel(bias, x)
    for part in chunks(x.shape[0], size):
        mean, rstd = (statistic[part] for statistic in kept)
        torch.mean(x[part], 1, keepdim=True, out=mean)
        centred = x[part] - mean
        torch.mean(centred * centred, 1, keepdim=True, out=rstd)
        rstd.add_(layer.epsilon).rsqrt_()
        torch.addcmul(shift, centred.mul_(rstd), scale, out=y[part])


def layer_norm_sums(
    x: Tensor, kept: tuple[Tensor, Tensor], dy: Tensor, dweight: Tensor, dbias: Tensor, size: int
) -> None:
    """``dbias = sum dy``, ``dweight = sum dy (x - mean) rstd``, over images and pixels."""
    axes = (0, *range(2, x.ndim))
    dweight.zero_()
    dbias.zero_()
    for part in chunks(x.shape[0], size):
        mean, rstd = (statistic[part] for statistic in kept)
        dweight.add_((x[part] - mean).mul_(rstd).mul_(dy[part]).sum(axes))
        dbias.add_(dy[part].sum(axes))


def layer_norm_grad_input(
    x: Tensor,
    kept: tuple[Tensor, Tensor],
    weight: Tensor,
    dy: Tensor,
    dx: Tensor,
    size: int,
    *,
    add: bool,
) -> None:
    """``dx = rstd (g - mean(g) - n mean(g n))``: ``g = scale dy``, ``n`` the normalised input."""
    scale = per_channel(weight, x)
    for part in chunks(x.shape[0], size):
        mean, rstd = (statistic[part] for statistic in kept)
        normal = (x[part] - mean).mul_(rstd)
        grad = dy[part] * scale
        product = grad * normal
        grad.sub_(grad.mean(1, keepdim=True)).sub_(normal.mul_(product.mean(1, keepdim=True)))
        if add:
            dx[part].addcmul_(grad, rstd)
        else:
            torch.mul(grad, rstd, out=dx[part])


def _scratch(x: Tensor, size: int) -> Tensor:
    """Room for a few images, lying as ``x`` does."""
    images, channels, *pixels = x.shape
    size = min(size, images)
    if not pixels:
        return x.new_empty(size, channels)
    return x.new_empty(size, *pixels, channels).movedim(-1, 1)


def _is_dense(x: Tensor) -> bool:
    """Whether it is no slice of channels, and its channels lie last."""
    return x.is_contiguous(
        memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format
    )


def _dense(x: Tensor, scratch: Tensor | None) -> Tensor:
    """``x``, or a copy in scratch."""
    return x if scratch is None else scratch[: len(x)].copy_(x)
