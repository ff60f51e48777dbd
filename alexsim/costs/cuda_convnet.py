"""The convolution kernels of cuda-convnet (2011-2012) and cuda-convnet2 (2014).

Layout C,H,W,N with N fastest: a warp's 32 threads hold different images, and what they multiply
them by is the same for all. Tiles, sums per thread and padding of work are those of the public
kernels (facts only); everything else is worked out from the architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from alexsim.costs.cost import (
    ConvolutionShape,
    Cost,
    Work,
    convolution_shape,
    launch_s,
    memory_bound,
)
from alexsim.costs.rounds import WARP, Round, lane_share, outer
from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.buffers import partial_sum_copies
from alexsim.plan.plan import OpKind

FIRST_RELEASE, SECOND_RELEASE = "cuda-convnet-2011-06", "cuda-convnet-2011-09"
"""Before 18 September 2011, when the weight gradient became a third faster, and before 3 February
2012, when batches of 32 and 64 became about twice as fast (its log of changes)."""
_SLOWER = 4 / 3
"""What the log says of the first release's weight gradient; its kernels are not published."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: its grid, its threads' rounds, and its padded work."""

    blocks: int
    round: Round
    padding: float
    """Work done over work asked for."""
    traffic_bytes: float
    """Bytes that blocks load and store, through the L2 cache."""


def launch_of(device: Device, work: Work, library: str) -> Launch:
    """The kernel that a library launches for a convolution op."""
    if library == "cuda-convnet2":
        return second_generation(work)
    registers = int(device.architecture.registers_per_thread.value)
    return first_generation(work, library, registers)


def first_generation(work: Work, library: str = "cuda-convnet", registers: int = 63) -> Launch:
    """The launch of a cuda-convnet kernel, blocks of 128 threads.

    ``color`` kernels serve up to 3 channels, ``sparse`` kernels multiples of 4. Forward takes
    filter pixels four at a time; the weight gradient four at a time (colour: 16); the input
    gradient visits only the windows that really hold a pixel.
    """
    shape = convolution_shape(work)
    early = library in (FIRST_RELEASE, SECOND_RELEASE)
    images = 4 if early else _images_per_thread(shape)
    if work.kind == OpKind.FORWARD:
        wide = 8 if shape.filters % 32 == 0 else 4
        channels = min(shape.channels, 3) if shape.channels <= 3 else 2
        return _forward(shape, images, wide, pixels=4, channels=channels)
    if work.kind == OpKind.GRAD_INPUT:
        if shape.channels <= 3:
            return _few_channels_gradient(shape)
        wide = 4 if shape.channels % 16 == 0 else 2
        return _input_gradient(shape, images, wide, threads=128, filters=16)
    # Its loops over images are unrolled: with registers enough to hold the filters' side, that is
    # loaded once, and words of images that lie side by side are loaded together.
    many = registers > 127
    lanes = 32 if shape.filters % 32 == 0 else 16
    if shape.channels <= 3:
        pixels = 5 if lanes == 32 else 2
        of = outer(1, shape.channels, 32 * pixels, 0)
        if many:
            of = outer(1, shape.channels * pixels, 32, 0, common_width=4)
        return _few_channels_weights(work, shape, (1, pixels), tile=(lanes, 128 // lanes), of=of)
    filters = 2 if lanes == 32 or shape.filters % 32 == 0 else 1
    lanes = lanes if shape.filters % (lanes * filters) == 0 else 16
    launch = _weights(
        work,
        shape,
        (filters, 8),
        tile=(lanes * filters, 8),
        threads=128,
        images=32,
        pixels=128 // lanes,
        width=4 if many else 1,
    )
    if library == FIRST_RELEASE:
        return replace(launch, padding=launch.padding * _SLOWER)
    return launch


def second_generation(work: Work) -> Launch:
    """The launch of a cuda-convnet2 kernel: up to 64 sums per thread, with GK110's registers.

    Where 128 divides the batch, kernels that hold the next words in registers and read four words
    of shared memory at a time take the place of the general ones.
    """
    shape = convolution_shape(work)
    images = _images_per_thread(shape)
    if work.kind == OpKind.FORWARD:
        few = shape.channels <= 3
        sides = (64, 48, 32, 16) if few else (64, 32, 16)
        wide = next((n for n in sides if shape.filters % n == 0), 16) // 4
        if few:
            return _forward(shape, images, wide, pixels=4, channels=shape.channels, vectors=True)
        together = images == 4 and wide == 16
        channels = 4 if together or shape.channels % 8 else 8
        return _forward(shape, images, wide, pixels=1, channels=channels, vectors=together)
    if work.kind == OpKind.GRAD_INPUT:
        if shape.channels <= 3:
            return _few_channels_gradient(shape)
        side = next((n for n in (64, 48, 32, 16) if shape.channels % n == 0), 8)
        rows = 8 if side == 64 else 4
        return _input_gradient(shape, images, side // rows, threads=WARP * rows, filters=16)
    if shape.channels <= 3:
        filters = 4 if shape.filters % 64 == 0 else 3 if shape.filters % 48 == 0 else 2
        of = outer(filters, 2 * shape.channels, 32, 0)
        return _few_channels_weights(work, shape, (filters, 2), tile=(16, 16), of=of)
    colours = next((n for n in (64, 48, 32, 16) if shape.channels % n == 0), 16)
    filters = next((n for n in (128, 64, 32) if shape.filters % n == 0), 16)
    rows, lanes = (8 if colours > 32 else 4), (32 if filters == 128 else 16)
    each = (filters // lanes, colours // rows)
    return _weights(work, shape, each, tile=(filters, colours), threads=rows * lanes, images=16)


def seconds(device: Device, work: Work, launch: Launch) -> tuple[float, bool]:
    """Time at the kernel's limits, and whether memory is the limit.

    Blocks are not divided: the multiprocessor that gets most of them sets the time.
    """
    share = lane_share(device.architecture, launch.round)
    per_sm = ceil(launch.blocks / device.multiprocessors.value)
    balance = per_sm * device.multiprocessors.value / launch.blocks
    compute_s = work.count.flop * launch.padding * balance / (device.flop_per_s * share)
    memory_s = launch.traffic_bytes / (2.0 * device.memory_bytes_per_s.value)
    return max(compute_s, memory_s, launch_s(device)), memory_s > compute_s


def convolution(device: Device, work: Work, library: str) -> list[Cost]:
    """A convolution op by cuda-convnet, of one date or another, or cuda-convnet2."""
    time_s, by_memory = seconds(device, work, launch_of(device, work, library))
    name = "cuda-convnet2" if library == "cuda-convnet2" else "cuda-convnet"
    few = ":few" if convolution_shape(work).channels <= 3 else ""
    traits = (
        f"library:{name}",
        f"library:{name}:{work.kind}{few}",
        f"architecture:{device.architecture.name}",
        f"architecture:{device.architecture.name}:{name}",
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


def _images_per_thread(shape: ConvolutionShape) -> int:
    """Four images where that divides the batch over a warp, else two, else one."""
    return next(n for n in (4, 2, 1) if n == 1 or shape.batch_size % (WARP * n) == 0)


def _whole(shape: ConvolutionShape, images: int) -> float:
    """Images of whole blocks over images."""
    return _up(shape.batch_size, WARP * images) / shape.batch_size


def _forward(
    shape: ConvolutionShape,
    images: int,
    wide: int,
    *,
    pixels: int,
    channels: int,
    vectors: bool = False,
) -> Launch:
    """Blocks of 128 threads, one window: ``wide`` filters per thread."""
    filters, width = 4 * wide, 4 if vectors else 1
    steps = pixels * channels
    return Launch(
        blocks=shape.groups
        * shape.outputs
        * ceil(shape.filters / filters)
        * ceil(shape.batch_size / (WARP * images)),
        round=Round(
            images,
            wide,
            images * wide,
            steps,
            (WARP * images + filters) * steps / 128,
            min(width, images),
            width,
        ),
        padding=_whole(shape, images)
        * _up(shape.taps, pixels)
        / shape.taps
        * _up(shape.filters, filters)
        / shape.filters,
        traffic_bytes=_forward_traffic(shape, filters),
    )


def _input_gradient(
    shape: ConvolutionShape, images: int, wide: int, *, threads: int, filters: int
) -> Launch:
    """One pixel of ``wide`` channels per thread; a round takes some filters of one window."""
    colours = wide * threads // WARP
    return Launch(
        blocks=shape.groups
        * shape.inputs
        * ceil(shape.channels / colours)
        * ceil(shape.batch_size / (WARP * images)),
        round=Round(
            images, wide, images * wide, filters, (WARP * images + colours) * filters / threads
        ),
        padding=_whole(shape, images)
        * _valid_share(shape)
        * _up(shape.channels, colours)
        / shape.channels,
        traffic_bytes=_input_traffic(shape, colours),
    )


def _few_channels_gradient(shape: ConvolutionShape) -> Launch:
    """Blocks of 16 x 16 threads: 16 pixels, four by four, of 16 times up to eight images.

    A warp has two pixels side by side: it computes for every window that holds one of them.
    """
    images = next(n for n in (8, 4, 2) if n == 2 or shape.batch_size % (16 * n) == 0)
    tile = 16 * images
    return Launch(
        blocks=shape.groups * ceil(shape.inputs / 16) * ceil(shape.batch_size / tile),
        round=Round(
            images,
            shape.channels,
            images * shape.channels,
            16,
            16 * (tile + 16 * shape.channels) / 256,
        ),
        padding=_up(shape.batch_size, tile)
        / shape.batch_size
        * (shape.size + 1)
        / shape.size
        * _valid_share(shape),
        traffic_bytes=_forward_traffic(shape, 16),
    )


def _weights(
    work: Work,
    shape: ConvolutionShape,
    each: tuple[int, int],
    *,
    tile: tuple[int, int],
    threads: int,
    images: int,
    pixels: int = 1,
    width: int = 1,
) -> Launch:
    """``each`` filters and channels per thread, ``tile`` per block and filter pixel."""
    filters, colours = tile
    pieces = partial_sum_copies(work.part)
    blocks = ceil(shape.channels / colours) * ceil(shape.taps / pixels)
    blocks *= ceil(shape.filters / filters)
    words = (filters + colours * pixels) * images / threads
    return Launch(
        blocks=shape.groups * pieces * blocks,
        round=outer(*each, images, words, common_width=width),
        padding=_whole(shape, 1)
        * _up(shape.taps, pixels)
        / shape.taps
        * _up(shape.filters, filters)
        / shape.filters
        * _up(shape.channels, colours)
        / shape.channels,
        traffic_bytes=_weight_traffic(shape, colours * pixels, filters, blocks),
    )


def _few_channels_weights(
    work: Work, shape: ConvolutionShape, each: tuple[int, int], *, tile: tuple[int, int], of: Round
) -> Launch:
    """``each`` filters and pixels of all channels per thread, ``tile`` threads."""
    wide, taps = each[0] * tile[0], each[1] * tile[1]
    words = (taps * shape.channels + wide) * 32 / (tile[0] * tile[1])
    blocks = ceil(shape.filters / wide) * ceil(shape.taps / taps)
    return Launch(
        blocks=partial_sum_copies(work.part) * blocks,
        round=replace(of, words=words),
        padding=_whole(shape, 1)
        * _up(shape.taps, taps)
        / shape.taps
        * _up(shape.filters, wide)
        / shape.filters,
        traffic_bytes=_weight_traffic(shape, taps * shape.channels, wide, blocks),
    )


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
