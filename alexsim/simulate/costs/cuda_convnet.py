"""The convolution kernels of cuda-convnet (2011-2012) and cuda-convnet2 (2014).

Layout C,H,W,N with N fastest, blocks of 32 x 4 threads, four images per thread. The tile sizes,
sums per thread and padding of work are those of the public kernels (facts only); everything else
is worked out from the architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.buffers import partial_sum_copies
from alexsim.plan.plan import OpKind
from alexsim.simulate.costs.cost import (
    ConvolutionShape,
    Cost,
    Work,
    convolution_shape,
    launch_s,
    memory_bound,
)
from alexsim.simulate.costs.gemm import issue_bound


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: its grid, a block's shared memory and sums, and its padded work."""

    blocks: int
    shared_bytes: int
    sums: int
    """Sums that one thread keeps."""
    loads: int
    """Words from shared memory per ``sums`` multiply-adds."""
    passes: int
    """How often these loads occupy the load/store lanes: images differ from thread to thread, the
    other operand is the same for a warp and comes four words at a time."""
    padding: float
    """Work done over work asked for."""
    traffic_bytes: float
    """Bytes that blocks load and store, through the L2 cache."""


def first_generation(work: Work) -> Launch:
    """The launch of a cuda-convnet kernel.

    ``color`` kernels serve up to 3 channels, ``sparse`` kernels multiples of 4. Forward takes
    filter pixels four at a time; the weight gradient four at a time (colour: 16); the input
    gradient visits only the windows that really hold a pixel.
    """
    shape = convolution_shape(work)
    # A thread takes four images where that divides the batch, else two, else one; blocks are whole.
    images = next(n for n in (4, 2, 1) if n == 1 or shape.batch_size % (32 * n) == 0)
    image_blocks = ceil(shape.batch_size / (32 * images))
    whole = 32 * images * image_blocks / shape.batch_size
    few = shape.channels <= 3
    if work.kind == OpKind.FORWARD:
        wide = 8 if shape.filters % 32 == 0 else 4
        colours = 3 if few else 2
        filters = 4 * wide
        return Launch(
            blocks=shape.groups * shape.outputs * ceil(shape.filters / filters) * image_blocks,
            shared_bytes=(filters + 32 * images) * colours * 4 * FLOAT_BYTES,
            sums=images * wide,
            loads=images + wide,
            passes=images + ceil(wide / 4),
            padding=whole
            * _up(shape.taps, 4)
            / shape.taps
            * _up(shape.filters, filters)
            / shape.filters,
            traffic_bytes=_forward_traffic(shape, filters),
        )
    if work.kind == OpKind.GRAD_INPUT:
        if few:
            # Blocks of 16 x 16 pixels, one sum per image and colour.
            return Launch(
                blocks=shape.groups * ceil(shape.inputs / 16) * ceil(shape.batch_size / 32),
                shared_bytes=9280,
                sums=2 * shape.channels,
                loads=2 + shape.channels,
                passes=2 + shape.channels,
                padding=_up(shape.batch_size, 32) / shape.batch_size,
                traffic_bytes=_forward_traffic(shape, 16),
            )
        colours = 16 if shape.channels % 16 == 0 else 8
        wide = colours // 4
        return Launch(
            blocks=shape.groups * shape.inputs * ceil(shape.channels / colours) * image_blocks,
            shared_bytes=(16 * (colours + 1) + 16 * 32 * images) * FLOAT_BYTES,
            sums=images * wide,
            loads=images + wide,
            passes=images + ceil(wide / 4),
            padding=whole * _valid_share(shape) * _up(shape.channels, colours) / shape.channels,
            traffic_bytes=_input_traffic(shape, colours),
        )
    pieces = partial_sum_copies(work.part)
    whole = _up(shape.batch_size, 32) / shape.batch_size
    if few:
        return Launch(
            blocks=pieces * ceil(shape.filters / 16) * ceil(shape.taps / 16),
            shared_bytes=8256,
            sums=2 * shape.channels,
            loads=2 * (1 + shape.channels),
            passes=2 * (1 + shape.channels),
            padding=whole * _up(shape.taps, 16) / shape.taps,
            traffic_bytes=_weight_traffic(
                shape, 16 * shape.channels, 16, ceil(shape.taps / 16) * ceil(shape.filters / 16)
            ),
        )
    taps, colours = 4, 8
    filter_blocks = ceil(shape.filters / 64)
    return Launch(
        blocks=shape.groups
        * pieces
        * filter_blocks
        * ceil(shape.channels / colours)
        * ceil(shape.taps / taps),
        shared_bytes=12544,
        sums=16,
        loads=10,
        passes=4,
        padding=whole * _up(shape.taps, taps) / shape.taps * _up(shape.filters, 64) / shape.filters,
        traffic_bytes=_weight_traffic(
            shape,
            taps * colours,
            64,
            ceil(shape.channels / colours) * ceil(shape.taps / taps) * filter_blocks,
        ),
    )


def second_generation(work: Work) -> Launch:
    """The launch of a cuda-convnet2 kernel: twice to four times the sums per thread.

    Tiles are those that its 64-register kernels for GK110 use at 128 images.
    """
    first = first_generation(work)
    sums = {OpKind.FORWARD: 64, OpKind.GRAD_INPUT: 32, OpKind.GRAD_WEIGHT: 32}[work.kind]
    loads = {OpKind.FORWARD: 20, OpKind.GRAD_INPUT: 12, OpKind.GRAD_WEIGHT: 12}[work.kind]
    shape = convolution_shape(work)
    padding = _up(shape.batch_size, 32) / shape.batch_size
    if work.kind == OpKind.FORWARD:
        padding *= _up(shape.filters, 64) / shape.filters
    return Launch(
        blocks=max(1, first.blocks * first.sums // sums),
        shared_bytes=min(first.shared_bytes * 2, 24_000),
        sums=sums,
        loads=loads,
        passes=4 + (loads - 4) // 4,
        padding=padding,
        traffic_bytes=first.traffic_bytes / 2,
    )


def seconds(device: Device, work: Work, launch: Launch) -> tuple[float, bool]:
    """Time at the kernel's limits, and whether memory is the limit.

    Blocks are not divided: the multiprocessor that gets most of them sets the time.
    """
    bound = issue_bound(device.architecture, launch.sums, launch.loads, launch.passes)
    per_sm = ceil(launch.blocks / device.multiprocessors.value)
    balance = per_sm * device.multiprocessors.value / launch.blocks
    compute_s = work.count.flop * launch.padding * balance / (device.flop_per_s * bound)
    memory_s = launch.traffic_bytes / (2.0 * device.memory_bytes_per_s.value)
    return max(compute_s, memory_s, launch_s(device)), memory_s > compute_s


def convolution(device: Device, work: Work, library: str) -> list[Cost]:
    """A convolution op by cuda-convnet or cuda-convnet2."""
    first = library == "cuda-convnet"
    launch = first_generation(work) if first else second_generation(work)
    time_s, by_memory = seconds(device, work, launch)
    kind = str(work.kind)
    few = ":few" if convolution_shape(work).channels <= 3 else ""
    traits = (
        f"library:{library}",
        f"library:{library}:{kind}{few}",
        f"architecture:{device.architecture.name}",
        f"architecture:{device.architecture.name}:{library}",
    )
    shape = convolution_shape(work)
    memory = (
        "memory",
        f"architecture:{device.architecture.name}:memory",
        "elementwise:cuda-convnet",
    )
    costs = [Cost(time_s, "memory" if by_memory else "compute", traits, flop=work.count.flop)]
    if work.kind == OpKind.FORWARD:
        costs.append(memory_bound(device, 2 * shape.output_bytes, memory))
    if work.kind == OpKind.GRAD_WEIGHT:
        # Partial sums are written, then read and added; the bias gradient sums the outputs'.
        weights = shape.groups * shape.filters * shape.depth
        partial = FLOAT_BYTES * weights * partial_sum_copies(work.part)
        costs.append(memory_bound(device, 2 * partial + shape.output_bytes, memory))
    return costs


def _up(value: int, multiple: int) -> int:
    return multiple * ceil(value / multiple)


def _valid_share(shape: ConvolutionShape) -> float:
    """Share of (window, tap) pairs that lie on the image, not on its padding."""
    padding = (shape.extent - round(shape.inputs**0.5)) // 2
    over = padding * (padding + 1) / shape.stride
    return float((1 - over / (shape.out_extent * shape.size)) ** 2)


def _forward_traffic(shape: ConvolutionShape, filters: int) -> float:
    windows = shape.groups * shape.outputs * ceil(shape.filters / filters)
    return FLOAT_BYTES * windows * shape.depth * (shape.batch_size + filters) + shape.output_bytes


def _input_traffic(shape: ConvolutionShape, colours: int) -> float:
    pixels = shape.groups * shape.inputs * ceil(shape.channels / colours)
    depth = shape.filters * shape.taps / shape.stride**2
    return FLOAT_BYTES * pixels * depth * (shape.batch_size + colours) + shape.input_bytes


def _weight_traffic(shape: ConvolutionShape, pixels: int, filters: int, blocks: int) -> float:
    """Every block reads its pixels and its filters' gradients of all images and windows."""
    reads = shape.groups * shape.batch_size * shape.outputs * (pixels + filters) * blocks
    return FLOAT_BYTES * reads
