"""Our kernels for CPUs (``alexsim_kernels.cpu``): what they run, by which algorithm, in what
scratch."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Convolution,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SpatialResponseNorm,
    pair,
)
from alexsim.network.part import Part
from alexsim.plan.backends.aten import Aten
from alexsim.plan.backends.base import Asked, Choice, Passes
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim_kernels.cpu import sizes
from alexsim_kernels.cpu.algorithm import (
    Pass,
    Shape,
    algorithm_of,
    choose,
    is_depthwise,
    multiply_adds,
)
from alexsim_kernels.cpu.scratch import LANES, Buffers
from alexsim_kernels.cpu.windows import Windows, adaptive, sliding

_PASSES: dict[OpKind, Pass] = {
    OpKind.FORWARD: "forward",
    OpKind.GRAD_INPUT: "grad_input",
    OpKind.GRAD_WEIGHT: "grad_weight",
}
_NONE = Buffers()


class _Kernel(NamedTuple):
    algorithm: str
    scratch: Buffers


class Native:
    """Our kernel where there is one that is as fast as ATen's function, which runs elsewhere."""

    def __init__(self) -> None:
        self._aten = Aten()

    def choose(self, asked: Asked) -> Choice:
        """Our kernel, or what ATen would do."""
        return _choice(asked) or self._aten.choose(asked)

    def fuses(self, first: Asked, second: Part, *, rows: bool, adds: bool) -> Passes:
        """A ReLU is done where a product is stored; gradients take no mask."""
        return self._aten.fuses(first, second, rows=rows, adds=adds)

    def done_flop(self, op: Op, part: Part) -> int:
        """FLOP of the products that an op of a convolution is made of."""
        if not isinstance(part.layer, Convolution):
            return op.count.flop
        # An op's count is of the images that it works on; a shape's, of one.
        shape = convolution_shape(part, 1)
        direct = 2 * shape.filters * shape.group_channels * math.prod(shape.taps + shape.out)
        done = 2 * multiply_adds(shape, algorithm_of(op.algorithm))
        return op.count.flop * done // direct


@lru_cache(maxsize=1 << 13)
def _choice(asked: Asked) -> Choice | None:
    kernel = _kernel(asked, FLOAT_BYTES)
    if kernel is None:
        return None
    return Choice(
        backend="native",
        algorithm=kernel.algorithm,
        chunk_images=asked.images,
        scratch_bytes=kernel.scratch.bytes(FLOAT_BYTES) + _copied_bytes(asked, asked.part),
    )


def _copied_bytes(asked: Asked, part: Part | None) -> int:
    """Copies, channels last, of images that lie channels first: kernels read no others."""
    if part is None or isinstance(part.layer, FullyConnected):
        return 0
    shapes = (part.input_shape, part.output_shape)
    values = sum(math.prod(shape) for shape, lies in zip(shapes, asked.rows, strict=True) if lies)
    # A gradient has the shape of its image: norms and max-pools read one and write the other.
    alone = isinstance(part.layer, Convolution | AveragePool | AdaptiveAveragePool)
    both = 2 if asked.kind == OpKind.GRAD_INPUT and not alone else 1
    return both * asked.images * values * FLOAT_BYTES


def asked_of(plan: Plan, op: Op) -> Asked:
    """What the planner asked for an op that a kernel of ours runs."""
    spec = plan.spec
    return Asked(
        op.kind, plan.part(op), plan.batch_size, op.accumulate, spec.optimizer, spec.copies,
        threads=spec.threads, products=spec.products,
    )  # fmt: skip


def kernel_bytes(asked: Asked, item_bytes: int) -> int:
    """Scratch of the kernel that runs an op, for values of so many bytes."""
    kernel = _kernel(asked, item_bytes)
    return kernel.scratch.bytes(item_bytes) if kernel else 0


def needed_bytes(plan: Plan, op: Op, item_bytes: int) -> int:
    """Scratch of an op's kernel and of copies of its images, for values of so many bytes."""
    asked = asked_of(plan, op)
    copies = op.scratch_bytes - kernel_bytes(asked, FLOAT_BYTES)
    return kernel_bytes(asked, item_bytes) + copies * item_bytes // FLOAT_BYTES


def _kernel(asked: Asked, item_bytes: int) -> _Kernel | None:
    """The kernel of ours for an op, if there is one."""
    part, pass_ = asked.part, _PASSES.get(asked.kind)
    if part is None or pass_ is None:
        return None
    layer, images, threads = part.layer, asked.images, asked.threads
    if isinstance(layer, FullyConnected):
        if pass_ == "grad_weight" and asked.accumulate:
            return None
        inputs, units = math.prod(part.input_shape), math.prod(part.output_shape)
        products = asked.products
        scratch = sizes.linear(pass_, images, inputs, units, threads=threads, precision=products)
        return _Kernel("" if products == "fp32" else products, scratch)
    if isinstance(layer, Convolution):
        shape = convolution_shape(part, images)
        if not _as_fast(shape):
            return None
        algorithm = choose(shape, pass_)
        return _Kernel(
            algorithm.name,
            sizes.convolution(
                shape, pass_, algorithm=algorithm, threads=threads, item_bytes=item_bytes
            ),
        )
    if len(part.input_shape) != 3:
        return None
    channels, *extent = part.input_shape
    match layer:
        case BatchNorm() if not (pass_ == "grad_weight" and asked.accumulate):
            return _Kernel("", sizes.batch_norm(images * math.prod(extent), channels))
        case ReLU() if not (asked.accumulate or any(asked.rows)):
            return _Kernel("", _NONE)
        case LocalResponseNorm() | SpatialResponseNorm() if not asked.accumulate:
            window: sizes.Window = "across" if isinstance(layer, LocalResponseNorm) else "over"
            return _Kernel("", sizes.norm(window, channels, extent[1], layer.size, threads=threads))
        case MaxPool() | AveragePool() | AdaptiveAveragePool():
            if pass_ == "forward":
                return _Kernel("", _NONE)
            return _Kernel("", sizes.pool(windows_of(part), channels, extent[1], threads=threads))
    return None


def _as_fast(shape: Shape) -> bool:
    """Whether our kernels are not far behind ATen's: groups of few channels fill vectors badly."""
    wide = min(shape.group_channels, shape.group_filters) >= LANES
    return shape.groups == 1 or wide or is_depthwise(shape)


@lru_cache(maxsize=1 << 10)
def convolution_shape(part: Part, images: int) -> Shape:
    """A part's convolution, as the kernels describe it."""
    layer = part.layer
    assert isinstance(layer, Convolution)
    channels, height, width = part.input_shape
    filters, rows, columns = part.output_shape
    return Shape(
        images=images,
        channels=channels,
        extent=(height, width),
        filters=filters,
        taps=pair(layer.size),
        out=(rows, columns),
        stride=pair(layer.stride),
        padding=pair(layer.padding),
        dilation=pair(layer.dilation),
        groups=layer.groups,
    )


@lru_cache(maxsize=1 << 10)
def windows_of(part: Part) -> Windows:
    """The windows of a pool."""
    layer = part.layer
    _, height, width = part.input_shape
    _, rows, columns = part.output_shape
    if isinstance(layer, AdaptiveAveragePool):
        return adaptive((height, width), (rows, columns))
    assert isinstance(layer, MaxPool | AveragePool)
    return sliding(
        (height, width),
        (rows, columns),
        size=pair(layer.size),
        stride=pair(layer.stride),
        padding=pair(layer.padding),
        count_padding=isinstance(layer, MaxPool) or layer.count_padding,
    )
