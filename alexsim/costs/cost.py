"""Inputs and results of cost models: an op's work, and the pieces of its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from alexsim.machine.device import Device
from alexsim.network import counts
from alexsim.network.counts import FLOAT, FLOAT_BYTES, Count, Widths
from alexsim.network.layers import Convolution, pair
from alexsim.network.part import Part
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim.plan.precision import Types, types_of

Precision = Literal["fp32", "tf32", "fp16"]
"""Of one op's products; the step's are ``alexsim.costs.precision``'s."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16")
Kind = Literal["convolution", "product", "memory"]
"""Of a kernel, by what its time depends on: each has trees of its own, for each of ``REALMS``."""
Realm = Literal["fp32", "half", "amd", "cpu", "before"]
REALMS: tuple[Realm, ...] = ("fp32", "half", "amd", "cpu")
"""Float32 on NVIDIA's cards, whose kernels were measured most; reduced precision there; AMD's GPUs;
CPUs. Of cards ``before`` Kepler only rates of whole products were measured: no trees."""
Limit = Literal["compute", "memory", "launch", "measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One op to be timed: its fields in the plan, and how many images it works on."""

    kind: OpKind
    part: Part
    batch_size: int
    count: Count
    fused: bool = False
    epilogue: Part | None = None
    """The part whose layer the same kernel computes too."""
    index: int = 0
    """Input whose gradient it is."""
    types: Types | None = None
    """With precision ``amp``: of all numbers, whose bytes ``count`` then has."""

    @property
    def half(self) -> bool:
        """Whether it computes in half precision, by its layer's own type."""
        products = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT)
        return self.types is not None and self.kind in products and self.types.half(self.part)

    def with_loss_scaling(self) -> Work:
        """The same; an update with a pass before it that looks for infinities in the gradients and
        divides them (``torch._amp_foreach_non_finite_check_and_unscale_``)."""
        if self.kind != OpKind.UPDATE:
            return self
        moved = self.count.moved_bytes + 2 * FLOAT_BYTES * self.part.parameters
        return replace(self, count=replace(self.count, moved_bytes=moved))

    def widths(self, part: Part) -> Widths:
        """Bytes of what a part reads and writes, as ``count`` has them."""
        return self.types.widths(part) if self.types else FLOAT

    def apart(self) -> tuple[Work, Work]:
        """The op without its epilogue, and the epilogue's op: forward, or its input gradient.

        Where the gradients of weights and of the input both pass through the epilogue, its op is
        done once.
        """
        assert self.epilogue is not None
        forward = self.kind == OpKind.FORWARD

        def count_of(part: Part) -> Count:
            widths = self.widths(part)
            if forward:
                return counts.forward(part, self.batch_size, widths)
            return counts.grad_input(part, self.batch_size, widths=widths)

        epilogue = replace(
            self,
            kind=OpKind.FORWARD if forward else OpKind.GRAD_INPUT,
            part=self.epilogue,
            count=count_of(self.epilogue),
            fused=False,
            epilogue=None,
        )
        if self.part.layer.kernel == "product":
            widths = self.widths(self.epilogue)
            mask_bytes = counts.epilogue_read_bytes(self.epilogue, self.batch_size, widths)
            left = self.count.moved_bytes - (0 if forward else mask_bytes)
            count = replace(self.count, moved_bytes=left)
        else:
            count = count_of(self.part)
        return replace(self, count=count, epilogue=None), epilogue


def work_of(op: Op, part: Part, epilogue: Part | None, plan: Plan) -> Work:
    """An op of a plan to be timed; ``part`` and ``epilogue`` are its parts there."""
    index = 0
    if op.kind == OpKind.GRAD_INPUT and part.layer.several:
        index = next(int(name[2:]) for name in op.operands if name[:2] == "dx" and name[2:])
    amp = plan.spec.precision == "amp"
    return Work(
        kind=op.kind,
        part=part,
        batch_size=plan.batch_size,
        count=op.count,
        fused=op.fused,
        epilogue=epilogue,
        index=index,
        types=types_of(plan.network, "amp", plan.spec.half_layers) if amp else None,
    )


OF_HOST = ("overhead", "upload")
"""First traits of the host's work: issuing an op; copying images whose upload is timed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A piece of an op's time, before correction.

    ``traits`` name what the piece has in common with others (its library, pass, architecture,
    algorithm): a fitted correction multiplies by the exponential of its traits' sum, but never goes
    below ``least_s``, the time at the device's peaks: no rate is over a peak. ``flop`` are those of
    the multiply-adds that are done: Winograd and FFT do fewer than a direct convolution.
    """

    seconds: float
    limit: Limit
    traits: tuple[str, ...]
    least_s: float = 0.0
    flop: float = 0.0
    learned: Learned | None = None
    """What measured kernels say of such a piece; None where none were measured."""

    def lasting(self, seconds: float) -> Cost:
        """The same piece with another time; ``replace`` takes four times as long."""
        return Cost(seconds, self.limit, self.traits, self.least_s, self.flop, self.learned)

    @property
    def of_host(self) -> bool:
        """Whether it is the host's work, beside the device's."""
        return bool(self.traits) and self.traits[0] in OF_HOST

    def also(self, traits: tuple[str, ...], of: tuple[str, ...] | None = None) -> Cost:
        """The same piece with further traits; those that it keeps are ``of``, or all."""
        every = (self.traits if of is None else of) + traits
        return Cost(self.seconds, self.limit, every, self.least_s, self.flop, self.learned)


@lru_cache(maxsize=1024)
def device_traits(name: str, kind: str) -> tuple[str, ...]:
    """What pieces of all kinds, and those of one kind, have in common on a device."""
    return (f"device:{name}", f"device:{name}:{kind}") if kind else (f"device:{name}",)


@dataclass(frozen=True, slots=True)
class Learned:
    """What the trees are asked about a piece: which of them, and the piece's features in order."""

    kind: Kind
    realm: Realm
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ConvolutionShape:
    """A convolution's dimensions, per group."""

    batch_size: int
    groups: int
    channels: int
    filters: int
    taps: int
    """Filter pixels: height x width."""
    size: int
    stride: int
    inputs: int
    """Input pixels of one channel, without padding."""
    outputs: int
    """Output pixels of one channel."""
    height: int
    """Of the input."""
    extent: int
    """Height of the padded input."""
    out_extent: int

    @property
    def depth(self) -> int:
        """Values that one output sums over."""
        return self.channels * self.taps

    @property
    def depthwise(self) -> bool:
        """Whether each group has one channel, of several."""
        return self.groups > 1 and self.channels == 1

    @property
    def input_bytes(self) -> int:
        """Bytes of the input of all images and groups."""
        return FLOAT_BYTES * self.batch_size * self.groups * self.channels * self.inputs

    @property
    def output_bytes(self) -> int:
        """Bytes of the output of all images and groups."""
        return FLOAT_BYTES * self.batch_size * self.groups * self.filters * self.outputs


def convolution_shape(work: Work) -> ConvolutionShape:
    """Dimensions of a convolution op."""
    layer, part = work.part.layer, work.part
    assert isinstance(layer, Convolution)
    channels, *inputs = part.input_shape
    filters, *outputs = part.output_shape
    size, stride = pair(layer.size), pair(layer.stride)
    return ConvolutionShape(
        batch_size=work.batch_size,
        groups=layer.groups,
        channels=channels // layer.groups,
        filters=filters // layer.groups,
        taps=math.prod(size),
        size=max(size),
        stride=max(stride),
        inputs=math.prod(inputs),
        outputs=math.prod(outputs),
        height=inputs[0],
        extent=inputs[0] + 2 * pair(layer.padding)[0],
        out_extent=outputs[0],
    )


_LAUNCH_S, _LAUNCH_CLOCKS = 2.5e-6, 4000


@lru_cache(maxsize=1024)
def launch_s(device: Device) -> float:
    """Least seconds of one kernel on the device, from launch to end, pipelined behind others.

    The shortest of published kernel timings in pipelined loops (2nd percentile) take 5.3 to 7.1
    microseconds at 1200 to 1440 MHz, 8.7 at 585 MHz, 11 to 15 at 560 to 800 MHz of older cards.
    """
    return _LAUNCH_S + _LAUNCH_CLOCKS / device.clock_hz.value


def memory_bound(
    device: Device, moved_bytes: float, traits: tuple[str, ...], learned: Learned | None = None
) -> Cost:
    """A piece that only moves bytes, at the data sheet's rate."""
    seconds, least_s = moved_bytes / device.memory_bytes_per_s.value, launch_s(device)
    if seconds < least_s:
        return Cost(least_s, "launch", traits, seconds, 0.0, learned)
    return Cost(seconds, "memory", traits, seconds, 0.0, learned)


def bytes_of(work: Work, precision: Precision) -> float:
    """Least bytes that an op moves; not for updates, which stay float32."""
    halved = precision == "fp16" and work.types is None
    return work.count.moved_bytes / (2 if halved else 1)
