"""Drop-in modules: PyTorch's own, with the same parameters and names, on our kernels.

A ``state_dict`` of the originals loads as it is. Beside what the originals take, a ReLU can be
fused, and the precision of products chosen.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from alexsim_kernels import ops
from alexsim_kernels.common import Precision, triton_name
from alexsim_kernels.pool import Ties


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` with square strides and padding, without dilation.

    Raises:
        ValueError: an option of the original that the kernels do not have.
    """

    def __init__(
        self, *args: Any, relu: bool = False, precision: Precision = "fp32", **options: Any
    ) -> None:
        super().__init__(*args, **options)
        triton_name(precision)
        self.relu, self.precision = relu, precision
        wanted = (len(set(self.stride)), len(set(self.padding)), set(self.dilation))
        if isinstance(self.padding, str) or wanted != (1, 1, {1}) or self.padding_mode != "zeros":
            raise ValueError(
                "strides and padding must be equal both ways, dilation 1 and the padding zeros;"
                f" got stride {self.stride}, padding {self.padding}, dilation {self.dilation},"
                f" {self.padding_mode}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``[N, C, H, W]``."""
        return ops.conv2d(
            input, self.weight, self.bias, self.stride[0], int(self.padding[0]), self.groups,
            self.relu, self.precision,
        )  # fmt: skip


class Linear(nn.Linear):
    """``torch.nn.Linear`` for inputs of two dimensions."""

    def __init__(
        self, *args: Any, relu: bool = False, precision: Precision = "fp32", **options: Any
    ) -> None:
        super().__init__(*args, **options)
        triton_name(precision)
        self.relu, self.precision = relu, precision

    def forward(self, input: Tensor) -> Tensor:
        """``[N, inputs]`` to ``[N, units]``."""
        return ops.linear(input, self.weight, self.bias, self.relu, self.precision)


class MaxPool2d(nn.Module):
    """``torch.nn.MaxPool2d`` with square windows and no padding; ``ties`` as in 2012 or first."""

    def __init__(
        self, kernel_size: int, stride: int | None = None, *, ties: Ties = "first"
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.ties = kernel_size, stride or kernel_size, ties

    def forward(self, x: Tensor) -> Tensor:
        """Pool ``[N, C, H, W]``."""
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.ties)


class LocalResponseNorm(nn.LocalResponseNorm):
    """``torch.nn.LocalResponseNorm``: its ``alpha`` is divided by the size of the window."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[N, C, H, W]`` over the channels."""
        return ops.local_response_norm(
            input, self.size, float(self.k), self.alpha / self.size, float(self.beta)
        )


def replace_layers(model: nn.Module, *, precision: Precision = "fp32") -> nn.Module:
    """Put our kernels into a model, in place: every layer that has a drop-in, parameters shared.

    Layers with options that the kernels do not have stay as they are, and so do layers that do more
    than theirs: of a class of their own, lazy, parametrised, or with hooks.
    """
    for name, child in model.named_children():
        new: nn.Module | None = None
        match child:
            case nn.Module() if type(child) not in _REPLACED or _has_hooks(child):
                replace_layers(child, precision=precision)
            case nn.Conv2d() if _plain(child):
                new = Conv2d(
                    child.in_channels, child.out_channels, child.kernel_size, child.stride,
                    child.padding, groups=child.groups, bias=child.bias is not None,
                    precision=precision, device="meta",
                )  # fmt: skip
            case nn.Linear():
                new = Linear(
                    child.in_features, child.out_features, bias=child.bias is not None,
                    precision=precision, device="meta",
                )  # fmt: skip
            case nn.LocalResponseNorm():
                new = LocalResponseNorm(child.size, child.alpha, child.beta, child.k)
            case nn.MaxPool2d() if _plain_pool(child):
                new = MaxPool2d(cast(int, child.kernel_size), cast(int, child.stride))
            case _:
                replace_layers(child, precision=precision)
        if new is not None:
            for parameter, value in child.named_parameters(recurse=False):
                setattr(new, parameter, value)
            setattr(model, name, new.train(child.training))
    return model


_REPLACED = (nn.Conv2d, nn.Linear, nn.LocalResponseNorm, nn.MaxPool2d)


def _has_hooks(layer: nn.Module) -> bool:
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(layer, name, None) for name in names)


def _plain(layer: nn.Conv2d) -> bool:
    return (
        not isinstance(layer.padding, str)
        and len(set(layer.stride)) == len(set(layer.padding)) == 1
        and set(layer.dilation) == {1}
        and layer.padding_mode == "zeros"
    )


def _plain_pool(layer: nn.MaxPool2d) -> bool:
    return (
        isinstance(layer.kernel_size, int)
        and isinstance(layer.stride, int)
        and layer.padding in (0, (0, 0))
        and layer.dilation in (1, (1, 1))
        and not layer.ceil_mode
        and not layer.return_indices
    )


__all__ = ["Conv2d", "Linear", "LocalResponseNorm", "MaxPool2d", "replace_layers"]
