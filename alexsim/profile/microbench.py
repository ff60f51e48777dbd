"""What this machine can do at best: products, convolutions, memory, an empty op, decoding JPEGs.

Every figure is the median of repeats, each long enough to time, after a warm-up.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from alexsim.network.layers import Convolution, pair
from alexsim.network.network import Network
from alexsim.simulate.costs.measured import Rate

_REPEATS = 5
_SQUARES = (256, 512, 1024, 2048)
_BATCH = 32
_COPY_BYTES = 256 * 1024 * 1024
_TINY_OPS = 2000
_JPEGS = 64
_JPEG_SIDE = 256
METHOD = (
    "float32; median of 5 repeats after a warm-up; convolutions channels-last at 32 images; memory"
    " over 256 MiB; JPEGs of 256 x 256 by Pillow in one thread; images as train reads its own"
)


def rates(network: Network) -> Iterator[Rate]:
    """Measure all rates; convolutions are those of ``network``, once per shape."""
    for side in _SQUARES:
        yield _product(side, side, side)
    seen = set()
    for parts in network.parts:
        part = parts[0]
        layer, filters = part.layer, part.output_shape[0]
        if isinstance(layer, Convolution):
            key = (part.input_shape, filters, layer.size, layer.stride)
            if key not in seen:
                seen.add(key)
                yield from _convolution(part.input_shape, filters, layer)
        elif part.weight_shape:
            units, inputs = part.weight_shape
            yield _product(units, inputs, 128)
    yield from _memory()
    yield _tiny_op()
    yield _decoding()


def _seconds(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _product(rows: int, depth: int, columns: int) -> Rate:
    a, b = torch.randn(rows, depth), torch.randn(depth, columns)
    out = torch.empty(rows, columns)
    seconds = _seconds(lambda: torch.mm(a, b, out=out))
    shape = f"{rows} x {depth} x {columns}"
    return Rate(
        what="gemm",
        shape=shape,
        seconds=seconds,
        per_second=2 * rows * depth * columns / seconds,
        unit="FLOP",
    )


def _convolution(shape: tuple[int, ...], filters: int, layer: Convolution) -> Iterator[Rate]:
    channels = shape[0]
    images = torch.randn(_BATCH, *shape).to(memory_format=torch.channels_last)
    size, stride, padding, dilation = (
        list(pair(v)) for v in (layer.size, layer.stride, layer.padding, layer.dilation)
    )
    weights = torch.randn(filters, channels // layer.groups, *size)
    weights = weights.to(memory_format=torch.channels_last)

    def forward() -> torch.Tensor:
        return torch.nn.functional.conv2d(
            images, weights, None, stride, padding, dilation, layer.groups
        )

    out = forward()
    gradient = torch.randn_like(out)

    def backward(*wanted: bool) -> object:
        return torch.ops.aten.convolution_backward(
            gradient, images, weights, None, stride, padding, dilation, False, [0, 0], layer.groups,
            [*wanted, False],
        )  # fmt: skip

    flop = 2 * out.numel() * weights[0].numel()
    name = f"{channels}x{shape[1]}x{shape[2]} -> {filters}, {layer.window.removesuffix('/1')}"
    for what, run in (
        ("forward", forward),
        ("grad_input", lambda: backward(True, False)),
        ("grad_weight", lambda: backward(False, True)),
    ):
        seconds = _seconds(run)
        yield Rate(
            what=f"convolution {what}",
            shape=name,
            seconds=seconds,
            per_second=flop / seconds,
            unit="FLOP",
        )


def _memory() -> Iterator[Rate]:
    source = torch.ones(_COPY_BYTES // 4)
    target, other = torch.empty_like(source), torch.ones_like(source)
    for what, moved, run in (
        ("memory read", _COPY_BYTES, source.sum),
        ("memory copy", 2 * _COPY_BYTES, lambda: target.copy_(source)),
        ("memory add", 3 * _COPY_BYTES, lambda: torch.add(source, other, out=target)),
    ):
        seconds = _seconds(run)
        yield Rate(
            what=what, shape="256 MiB", seconds=seconds, per_second=moved / seconds, unit="byte"
        )


def _tiny_op() -> Rate:
    value, out = torch.ones(1), torch.empty(1)

    def run() -> None:
        for _ in range(_TINY_OPS):
            torch.add(value, value, out=out)

    seconds = _seconds(run) / _TINY_OPS
    return Rate(what="op overhead", shape="1", seconds=seconds, per_second=1 / seconds, unit="op")


def _decoding() -> Rate:
    files = [_jpeg(seed) for seed in range(_JPEGS)]

    def decode() -> list[np.ndarray]:
        return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]

    seconds = _seconds(decode) / _JPEGS
    shape = f"{sum(map(len, files)) // _JPEGS:,} bytes"
    return Rate(
        what="jpeg decode", shape=shape, seconds=seconds, per_second=1 / seconds, unit="image"
    )


def _jpeg(seed: int) -> bytes:
    """A picture with detail at every scale, so that it takes as many bytes as a photograph."""
    generator = np.random.default_rng(seed)
    pixels = np.full((_JPEG_SIDE, _JPEG_SIDE, 3), 128.0)
    side = 4
    while side <= _JPEG_SIDE:
        coarse = generator.normal(0, 40 * (4 / side) ** 0.5, (side, side, 3))
        pixels += np.repeat(np.repeat(coarse, _JPEG_SIDE // side, 0), _JPEG_SIDE // side, 1)
        side *= 2
    file = io.BytesIO()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
