"""Batch normalisation on CPUs: forward in training and at test, sums and gradient of the input.

``y = scale * (x - mean) / sqrt(var + epsilon) + shift`` over each channel of a minibatch (Ioffe and
Szegedy 2015). Training takes the minibatch's mean and biased variance, and moves the running
statistics: ``running += momentum * (new - running)``, the variance there unbiased, as
``torch.nn.BatchNorm2d`` does; tests take those. Sums run over slices of the pixels that the shape
alone cuts, whatever the number of threads.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from alexsim_kernels.cpu import sizes
from alexsim_kernels.cpu.tensors import (
    Map,
    Parts,
    Tensor,
    call,
    check_type,
    image_map,
    same_shape,
    threads,
    vector,
)


class Statistics(NamedTuple):
    """Of a batch norm, ``[C]`` each: the minibatch's mean and ``1 / sqrt(var + epsilon)``."""

    mean: Tensor
    rstd: Tensor


class Running(NamedTuple):
    """Running statistics, ``[C]`` each, and how far new ones move them."""

    mean: Tensor
    var: Tensor
    momentum: float


class _BatchNorm(ctypes.Structure):
    _fields_ = [
        *((name, Map) for name in ("x", "dy", "out")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "weight", "bias", "mean", "rstd", "running_mean", "running_var", "dweight", "dbias",
            )
        ),
        *((name, ctypes.c_double) for name in ("epsilon", "momentum")),
        *((name, ctypes.c_long) for name in ("training", "relu", "add", "threads", "slices")),
        *((name, ctypes.c_void_p) for name in ("partial", "factors")),
    ]  # fmt: skip


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    statistics: Statistics,
    running: Running,
    *,
    epsilon: float,
    training: bool,
    relu: bool = False,
    scratch: Tensor | None = None,
) -> None:
    """Write the normalised ``x`` into ``y``.

    Args:
        x: ``[N, C, H, W]``, channels-last; a slice of a wider block's channels will do.
        weight: ``[C]``, the scale.
        bias: ``[C]``, the shift.
        y: like ``x``; written whole.
        statistics: written in training, for the backward pass; untouched at test.
        running: moved in training; normalised by at test.
        epsilon: added to variances.
        training: whether to normalise by the minibatch.
        relu: whether negative results become zero.
        scratch: ``sizes.batch_norm`` bytes, uint8; allocated if not given.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
    """
    check_type(x=x, weight=weight, bias=bias, y=y, running_mean=running.mean)
    check_type(x=x, running_var=running.var)
    made = _described(x, weight, y, statistics, scratch)
    channels = x.shape[1]
    made.bias = vector("bias", bias, channels)
    made.running_mean = vector("running_mean", running.mean, channels)
    made.running_var = vector("running_var", running.var, channels)
    made.epsilon, made.momentum = epsilon, running.momentum
    made.training, made.relu = training, relu
    call("batch_norm_forward", x, ctypes.byref(made))


def sums(
    x: Tensor,
    dy: Tensor,
    statistics: Statistics,
    dweight: Tensor,
    dbias: Tensor,
    *,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradients of scale and shift: ``dbias = sum dy``,
    ``dweight = sum dy (x - mean) rstd``; arguments as ``forward``'s.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
    """
    check_type(x=x, dy=dy, dweight=dweight, dbias=dbias)
    made = _described(x, None, dy, statistics, scratch)
    made.dy = image_map("dy", dy)
    made.dweight = vector("dweight", dweight, x.shape[1])
    made.dbias = vector("dbias", dbias, x.shape[1])
    call("batch_norm_sums", x, ctypes.byref(made))


def grad_input(
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    statistics: Statistics,
    gradients: tuple[Tensor, Tensor] | None,
    dx: Tensor,
    *,
    add: bool = False,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradient of the input into ``dx``, or add it; arguments as ``forward``'s.

    ``dx = scale rstd (dy - dbias / M - (x - mean) rstd dweight / M)``, ``M`` values per channel.
    ``gradients`` are ``dweight`` and ``dbias`` where ``sums`` has computed them; it is done first
    if not.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
    """
    check_type(x=x, dy=dy, weight=weight, dx=dx)
    same_shape("dy", dy, tuple(x.shape))
    made = _described(x, weight, dx, statistics, scratch)
    made.dy, made.add = image_map("dy", dy), add
    if gradients is not None:
        check_type(x=x, dweight=gradients[0], dbias=gradients[1])
        made.dweight = vector("dweight", gradients[0], x.shape[1])
        made.dbias = vector("dbias", gradients[1], x.shape[1])
    call("batch_norm_grad_input", x, ctypes.byref(made), ctypes.c_long(gradients is None))


def _described(
    x: Tensor, weight: Tensor | None, out: Tensor, statistics: Statistics, scratch: Tensor | None
) -> _BatchNorm:
    """What all passes are told; gradients of scale and shift lie in scratch."""
    same_shape("out", out, tuple(x.shape))
    check_type(x=x, mean=statistics.mean, rstd=statistics.rstd)
    source = image_map("x", x)
    channels = x.shape[1]
    pixels = source.images * source.height * source.width
    buffers = sizes.batch_norm(pixels, channels)
    parts = Parts(buffers, x, scratch)
    made = _BatchNorm(x=source, out=image_map("out", out), threads=threads())
    made.weight = vector("weight", weight, channels)
    made.mean = vector("mean", statistics.mean, channels)
    made.rstd = vector("rstd", statistics.rstd, channels)
    made.slices = sizes.batch_norm_slices(pixels)
    for name in buffers.sizes:
        setattr(made, name, parts[name])
    made.keeps_alive = parts  # the scratch
    return made
