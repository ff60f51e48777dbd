"""The passes of a convolution beside cuDNN's, in both layouts, cuDNN choosing its algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch.nn import functional as F

from alexsim_kernels import convolution, convolution_weight, op_names, reference
from alexsim_kernels.bench.cases import CHECKED, Case, Run, poisoned, worst
from alexsim_kernels.bench.timing import CARD, images
from alexsim_kernels.common import Config, Precision
from alexsim_kernels.op_names import Pass
from alexsim_kernels.shapes import Convolution

Tensor = torch.Tensor
_PLANS = 4
"""Of cuDNN's, the most that it tries for a convolution: its heuristics put the best first."""
PASSES: tuple[Pass, ...] = ("forward", "grad_weight", "grad_input")


@dataclass(frozen=True, kw_only=True)
class Passes:
    """A convolution's tensors, and its passes over them."""

    shape: Convolution
    precision: Precision
    batch: int
    place: str = CARD
    """Where tensors lie; on ``meta`` they have no memory, and kernels are compiled for them."""
    wide: bool = False
    """Operands are float32 in memory, whatever the precision: so plans hold them."""

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of operands in memory."""
        halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.float32 if self.wide else halves.get(self.precision, torch.float32)

    def _images(self, *shape: int) -> Tensor:
        return images(*shape, dtype=self.dtype, place=self.place)

    @cached_property
    def x(self) -> Tensor:
        return self._images(self.batch, self.shape.channels, *self.shape.extent)

    @cached_property
    def weight(self) -> Tensor:
        shape = self.shape
        channels = shape.channels // shape.groups
        return self._images(shape.filters, channels, *shape.taps)

    @cached_property
    def bias(self) -> Tensor:
        return torch.randn(self.shape.filters, device=self.place)

    @cached_property
    def dy(self) -> Tensor:
        return self._images(self.batch, self.shape.filters, *self.shape.out)

    @cached_property
    def results(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Output, gradients of input, weights and biases: what the passes write."""
        weight = torch.empty_like(self.weight, dtype=torch.float32)
        return torch.empty_like(self.dy), torch.empty_like(self.x), weight, self.bias.clone()

    @property
    def window(self) -> dict[str, Any]:
        """Stride, padding and groups, as the kernels take them."""
        padding, stride = self.shape.padding, self.shape.stride
        return {"stride": stride, "padding": (padding, padding), "groups": self.shape.groups}

    @property
    def names(self) -> tuple[Pass, ...]:
        """Its passes; nobody wants the gradient of an image's colours."""
        return PASSES[:2] if self.shape.images_alone else PASSES

    def run(self, pass_: str, config: Config | None = None, images: slice = slice(None)) -> None:
        """Launch a pass, on some of the images."""
        y, dx, dweight, dbias = self.results
        x, dy = self.x[images], self.dy[images]
        options = self.window | {"precision": self.precision, "config": config}
        if pass_ == "forward":
            convolution.forward(x, self.weight, self.bias, y[images], **options)
        elif pass_ == "grad_input":
            convolution.grad_input(dy, self.weight, dx[images], **options)
        else:
            convolution_weight.grad_weight(x, dy, dweight, dbias, **options)

    @cached_property
    def exact(self) -> dict[str, tuple[Tensor, ...]]:
        """What the passes should write for the first images, in float64."""
        few = slice(0, CHECKED)
        x, weight, bias = (
            t.double().requires_grad_() for t in (self.x[few], self.weight, self.bias)
        )
        y = reference.convolution(x, weight, bias, size=self.shape.out, **self.window)
        y.backward(self.dy[few].double())
        assert x.grad is not None
        assert weight.grad is not None
        assert bias.grad is not None
        return {
            "forward": (y.detach(),), "grad_input": (x.grad,),
            "grad_weight": (weight.grad, bias.grad),
        }  # fmt: skip

    def error(self, pass_: str, config: Config | None = None) -> float:
        """Of a pass against float64: of all images it is launched for, or the first few where it
        sums over them; what is not written is NaN."""
        poisoned(*self.results)
        y, dx, *sums = self.results
        few = slice(0, CHECKED)
        if pass_ == "grad_weight":
            self.run(pass_, config, few)
            return worst(*zip(sums, self.exact[pass_], strict=True))
        self.run(pass_, config)
        written = y if pass_ == "forward" else dx
        if written.isnan().any():
            return float("nan")
        return worst((written[few], self.exact[pass_][0]))

    def others(self, pass_: str) -> dict[str, Run]:
        """PyTorch's convolution at equal precision. Windows that hang over the edge need a padded
        copy, which is not timed."""
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.benchmark_limit = _PLANS
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        (down, across), stride, padding = self.shape.overhang, self.shape.stride, self.shape.padding
        runs: dict[str, Run] = {}
        for layout, form in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
            x = F.pad(self.x, (0, across, 0, down)).contiguous(memory_format=form)
            w, dy = (
                self.weight.contiguous(memory_format=form),
                self.dy.contiguous(memory_format=form),
            )
            if pass_ == "forward":
                run: Run = partial(
                    F.conv2d, x, w, self.bias.to(x.dtype), stride, padding,
                    groups=self.shape.groups,
                )  # fmt: skip
            else:
                wanted = [pass_ == "grad_input", pass_ == "grad_weight", pass_ == "grad_weight"]
                run = partial(
                    torch.ops.aten.convolution_backward, dy, x, w, [w.shape[0]], [stride] * 2,
                    [padding] * 2, [1, 1], False, [0, 0], self.shape.groups, wanted,
                )  # fmt: skip
            runs[f"cuDNN {layout}"] = run
        return runs

    def moved_bytes(self, pass_: str) -> int:
        """Each of a pass's tensors once."""
        y, dx, *sums = self.results
        tensors = {
            "forward": (self.x, self.weight, y), "grad_input": (self.dy, self.weight, dx),
            "grad_weight": (self.x, self.dy, *sums),
        }[pass_]  # fmt: skip
        return sum(t.numel() * t.element_size() for t in tensors)


def convolutions(
    name: str, shape: Convolution, precision: Precision, batch: int, *, place: str = CARD
) -> Iterator[Case]:
    """The passes of a convolution as cases."""
    passes = Passes(shape=shape, precision=precision, batch=batch, place=place)
    for pass_ in passes.names:
        yield convolution_case(name, passes, pass_)


def convolution_case(name: str, passes: Passes, pass_: Pass, config: Config | None = None) -> Case:
    """A pass of a convolution as a case, by a candidate or the usual tile."""
    shape = passes.shape
    named = op_names.convolution(
        pass_, channels=shape.channels, extent=shape.extent, filters=shape.filters,
        taps=shape.taps, stride=shape.stride, padding=shape.padding, groups=shape.groups,
        precision=passes.precision,
    )  # fmt: skip
    return Case(
        op=f"{name} {pass_}", precision=passes.precision, batch=passes.batch,
        run=partial(passes.run, pass_, config), check=partial(passes.error, pass_, config),
        others=partial(passes.others, pass_), flop=2 * shape.multiply_adds(passes.batch),
        moved_bytes=passes.moved_bytes(pass_), name=op_names.row(named, passes.batch),
        aten="cuDNN NHWC",
    )  # fmt: skip
