"""Normalisations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alexsim.errors import NetworkError
from alexsim.network.layers.base import (
    Auxiliary,
    Elementwise,
    Kept,
    Kernel,
    Layer,
    Parameter,
    Role,
    Saved,
    Shape,
    image,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ResponseNorm(Layer):
    """``y = x * (k + alpha * sum of x^2 over neighbours)^-beta``."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)
    keeps_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise NetworkError(
                f"layer {self.name!r}: size must be a positive odd number, got {self.size}"
            )

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        return image(self, inputs)

    def auxiliary(self, inputs: Shape, outputs: Shape) -> tuple[Auxiliary, ...]:
        """The denominators, without their power."""
        del inputs
        return (Auxiliary("norm", outputs, "norm"),)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """PyTorch has no such operator: what those keep that it is made of.

        The squares that are averaged, the denominators, and their power.
        """
        beside = (
            Auxiliary("squares", self.averaged(inputs), "norm"),
            *self.auxiliary(inputs, outputs),
            Auxiliary("power", outputs, "norm"),
        )
        # Of the quotient's second gradient, -dy * (x / power) / power.
        passing = tuple(Auxiliary(f"factor{i}", outputs, "norm") for i in range(3))
        return Saved(inputs=(0,), beside=beside, passing=passing)

    def averaged(self, inputs: Shape) -> Shape:
        """Shape of the squares that PyTorch averages."""
        return inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResponseNorm(_ResponseNorm):
    """A sum over neighbouring channels (paper, section 3.3).

    ``alpha`` multiplies the *sum* over ``size`` channels of this column, clipped at the ends;
    ``torch.nn.LocalResponseNorm`` multiplies the mean.
    """

    kernel: ClassVar[Kernel] = "norm"

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=self.size + 4, grad_input=self.size + 7)

    def averaged(self, inputs: Shape) -> Shape:
        """With zeros around, as ``torch.nn.functional.local_response_norm`` pads them."""
        channels, *pixels = inputs
        return (channels + self.size - 1, *pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialResponseNorm(_ResponseNorm):
    """A sum over ``size`` x ``size`` pixels of the same map, clipped at the edges."""

    alpha: float = 4e-5
    k: float = 1.0

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=self.size**2 + 4, grad_input=self.size**2 + 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm(Layer):
    """``y = scale * (x - mean) / sqrt(var + epsilon) + shift``, over each channel of a minibatch.

    Training takes the minibatch's mean and (biased) variance, and gathers running statistics:
    ``running = (1 - momentum) * running + momentum * new``, the variance there unbiased, as
    ``torch.nn.BatchNorm2d`` does. Tests take the running statistics (Ioffe and Szegedy 2015).
    """

    epsilon: float = 1e-5
    momentum: float = 0.1
    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)
    sums_for_grad: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _small(self, "epsilon", self.epsilon)
        _small(self, "momentum", self.momentum)

    def elementwise(self) -> Elementwise:
        """Mean 1, variance 3, difference and quotient 2, scale and shift 2; backward the two sums
        (shift 1, scale 4) and what they take away 6."""
        return Elementwise(forward=8, grad_input=6, grad_weight=5)

    def parameters(self, inputs: Shape, column: int = 0) -> tuple[Parameter, ...]:
        del column
        shape = inputs[:1]
        return (
            Parameter("weight", shape, Role.SCALE, mean=1.0),
            Parameter("bias", shape, Role.SHIFT),
            Parameter("running_mean", shape, Role.RUNNING),
            Parameter("running_var", shape, Role.RUNNING, mean=1.0),
        )

    def auxiliary(self, inputs: Shape, outputs: Shape) -> tuple[Auxiliary, ...]:
        del outputs
        return tuple(
            Auxiliary(name, inputs[:1], "norm", per_image=False) for name in ("mean", "rstd")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm(Layer):
    """As batch normalisation, over the channels of each pixel (or the units) of each image.

    ``torch.nn.LayerNorm`` over the last axis of ``[N, H, W, C]``, as in ConvNeXt and Swin (Ba,
    Kiros and Hinton 2016).
    """

    epsilon: float = 1e-5
    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)

    def __post_init__(self) -> None:
        _small(self, "epsilon", self.epsilon)

    def elementwise(self) -> Elementwise:
        """As ``BatchNorm``; its input's gradient takes sums over the channels beside."""
        return Elementwise(forward=8, grad_input=11, grad_weight=4)

    def parameters(self, inputs: Shape, column: int = 0) -> tuple[Parameter, ...]:
        del column
        return (
            Parameter("weight", inputs[:1], Role.SCALE, mean=1.0),
            Parameter("bias", inputs[:1], Role.SHIFT),
        )

    def auxiliary(self, inputs: Shape, outputs: Shape) -> tuple[Auxiliary, ...]:
        del outputs
        return tuple(Auxiliary(name, (1, *inputs[1:]), "norm") for name in ("mean", "rstd"))


def _small(layer: Layer, field: str, value: float) -> None:
    if not 0 < value <= 1:
        raise NetworkError(f"layer {layer.name!r}: {field} must be in (0, 1], got {value}")
