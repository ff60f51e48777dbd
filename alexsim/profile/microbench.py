"""What a device can do at best: products, convolutions, passes over memory, launches.

Each has a rate, and its columns in a table of kernels' times, so that others can read it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from alexsim.costs.measured import Calibration, Rate
from alexsim.execute.choices import Device
from alexsim.fidelity.kernel_rows import KERNEL_COLUMNS
from alexsim.machine.cpu import cpu_name
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import Convolution, pair
from alexsim.network.network import Network
from alexsim.profile.clock import REPEATS, Clock

_SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "cpu": ((256, 512, 1024, 2048), 4),
    "cuda": ((256, 512, 1024, 2048, 4096, 8192), 64),
}
"""By device, sides of square products, and images of convolutions of usual sizes."""
_BATCH = 32
_COPY_BYTES = 256 * 1024 * 1024
METHOD = (
    f"float32; median of {REPEATS} repeats after a warm-up, short calls in a row; convolutions"
    " channels-last at 32 images; memory over 256 MiB"
)
COLUMNS = ("source", *KERNEL_COLUMNS, "time_s")
"""Of a table of kernels, as ``alexsim.fidelity.kernel_rows`` reads it. ``m``, ``n`` and ``k`` of
``gemm`` are those of a column-major product, of ``linear`` images, outputs and inputs; ``extra`` is
JSON."""

_USUAL = (
    (3, 224, 64, 11, 4, 2, 1),
    (64, 27, 192, 5, 1, 2, 1),
    (384, 13, 256, 3, 1, 1, 1),
    (64, 112, 128, 3, 1, 1, 1),
    (256, 28, 512, 3, 1, 1, 1),
    (512, 14, 512, 3, 1, 1, 1),
    (3, 224, 64, 7, 2, 3, 1),
    (256, 56, 64, 1, 1, 0, 1),
    (128, 28, 512, 1, 1, 0, 1),
    (256, 28, 256, 3, 2, 1, 1),
    (192, 28, 192, 3, 1, 1, 192),
)
"""Channels, side, filters, size, stride, padding, groups: of AlexNet (Krizhevsky 2014), VGG, ResNet
and, the last, MobileNet."""
_USUAL_LINEAR = ((9216, 4096), (4096, 4096), (2048, 1000))
"""Inputs and outputs: fc6 and fc7 of AlexNet, the last of ResNet-50."""
_LINEAR_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A microbenchmark's rate, and its columns in a table of kernels: those that it has."""

    rate: Rate
    columns: Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbench:
    """Times microbenchmarks on a device."""

    clock: Clock

    def timed(
        self,
        what: str,
        shape: str,
        work: tuple[float, str],
        run: Callable[[], object],
        **columns: str | int,
    ) -> Timed:
        """Time a call that does so much ``work``, of a unit."""
        return timed(what, shape, work, self.clock.seconds(run), **columns)

    def product(self, rows: int, depth: int, columns: int) -> Timed:
        """``[rows, depth] @ [depth, columns]``."""
        a, b = self.randn(rows, depth), self.randn(depth, columns)
        out = torch.empty(rows, columns, device=self.clock.device)
        return self.timed(
            "gemm", f"{rows} x {depth} x {columns}", (2 * rows * depth * columns, "FLOP"),
            lambda: torch.mm(a, b, out=out), op="gemm", m=columns, n=rows, k=depth,
            extra=json.dumps({"ops": "NN"}, allow_nan=False), **{"pass": "forward"},
        )  # fmt: skip

    def linear(self, images: int, inputs: int, outputs: int) -> Timed:
        """A fully connected layer without bias."""
        x, weight = self.randn(images, inputs), self.randn(outputs, inputs)
        return self.timed(
            "linear", f"{images} x {inputs} -> {outputs}", (2 * images * inputs * outputs, "FLOP"),
            lambda: F.linear(x, weight), op="linear", m=images, n=outputs, k=inputs,
            **{"pass": "forward"},
        )  # fmt: skip

    def convolution(
        self,
        batch: int,
        shape: tuple[int, ...],
        filters: int,
        layer: Convolution,
        memory_format: torch.memory_format,
    ) -> Iterator[Timed]:
        """All passes of a convolution of images ``[C, H, W]``."""
        channels, height, width = shape
        size, stride, padding, dilation = (
            pair(v) for v in (layer.size, layer.stride, layer.padding, layer.dilation)
        )
        images = self.randn(batch, *shape).to(memory_format=memory_format)
        weights = self.randn(filters, channels // layer.groups, *size)
        weights = weights.to(memory_format=memory_format)

        def forward() -> torch.Tensor:
            return F.conv2d(images, weights, None, stride, padding, dilation, layer.groups)

        out = forward()
        gradient = torch.randn_like(out)

        def backward(*wanted: bool) -> object:
            return torch.ops.aten.convolution_backward(
                gradient, images, weights, None, stride, padding, dilation, False, [0, 0],
                layer.groups, [*wanted, False],
            )  # fmt: skip

        flop = 2 * out.numel() * weights[0].numel()
        name = f"{channels}x{height}x{width} -> {filters}, {layer.window.removesuffix('/1')}"
        columns: dict[str, str | int] = {
            "layout": "NCHW" if memory_format == torch.contiguous_format else "NHWC",
            "batch": batch, "in_channels": channels, "height": height, "width": width,
            "out_channels": filters, "kernel_h": size[0], "kernel_w": size[1],
            "stride_h": stride[0], "stride_w": stride[1], "pad_h": padding[0], "pad_w": padding[1],
            "groups": layer.groups,
        }  # fmt: skip
        if dilation != (1, 1):
            columns["extra"] = json.dumps({"dilation": list(dilation)}, allow_nan=False)
        for what, run in (
            ("forward", forward),
            ("grad_input", lambda: backward(True, False)),
            ("grad_weight", lambda: backward(False, True)),
        ):
            work = (flop, "FLOP")
            columns |= {"op": "conv", "pass": what}
            yield self.timed(f"convolution {what}", name, work, run, **columns)

    def memory(self) -> Iterator[Timed]:
        """Large passes over memory."""
        source = torch.ones(_COPY_BYTES // FLOAT_BYTES, device=self.clock.device)
        target, other = torch.empty_like(source), torch.ones_like(source)
        for what, passes, run in (
            ("read", 1, source.sum),
            ("copy", 2, lambda: target.copy_(source)),
            ("add", 3, lambda: torch.add(source, other, out=target)),
        ):
            moved = passes * _COPY_BYTES
            yield self.timed(
                f"memory {what}", "256 MiB", (moved, "byte"), run, op="stream", algorithm=what,
                extra=json.dumps({"bytes": moved}, allow_nan=False), **{"pass": "copy"},
            )  # fmt: skip

    def launches(self) -> Iterator[Timed]:
        """An op with next to nothing to do: among others, and alone."""
        value, out = (torch.ones(1, device=self.clock.device) for _ in range(2))

        def run() -> None:
            torch.add(value, value, out=out)

        both = {"in a row": ("op overhead", self.clock.seconds)}
        both["alone"] = ("launch latency", self.clock.alone_s)
        for how, (what, seconds_of) in both.items():
            columns = {"op": "launch", "pass": "forward", "algorithm": how}
            yield timed(what, "1", (1, "op"), seconds_of(run), **columns)

    def elementwise(self, batch: int) -> Iterator[Timed]:
        """Layers that move values rather than multiply them, as they are usual."""
        channels, side = 64, 56
        x, other = (self.randn(batch, channels, side, side) for _ in range(2))
        mean, variance, scale = (torch.ones(channels, device=x.device) for _ in range(3))
        logits, size = self.randn(_LINEAR_BATCH, 1000), FLOAT_BYTES * x.numel()
        pool = {"kernel": 3, "stride": 2, "pad": 0}
        both = {f"{name}_{axis}": value for name, value in pool.items() for axis in "hw"}
        for op, algorithm, moved, run, more in (
            ("elementwise", "relu", 2 * size, lambda: torch.relu(x), {}),
            ("elementwise", "add", 3 * size, lambda: torch.add(x, other), {}),
            ("pool", "max", 1.25 * size, lambda: F.max_pool2d(x, 3, 2),
             {"out_channels": channels, **both}),
            ("batchnorm", "spatial", 3 * size,
             lambda: F.batch_norm(x, mean, variance, scale, mean, training=True), {}),
            ("lrn", "across channels, 5", 2 * size, lambda: F.local_response_norm(x, 5), {}),
        ):  # fmt: skip
            columns: dict[str, str | int] = {"layout": "NCHW", "batch": batch, **more}
            columns |= {"in_channels": channels, "height": side, "width": side, "op": op}
            columns["pass"] = "forward (training)" if op == "batchnorm" else "forward"
            yield self.timed(
                algorithm, f"{batch} x {channels}x{side}x{side}", (moved, "byte"), run,
                algorithm=algorithm, **columns,
            )  # fmt: skip
        yield self.timed(
            "softmax", f"{_LINEAR_BATCH} x 1000", (2 * FLOAT_BYTES * logits.numel(), "byte"),
            lambda: torch.softmax(logits, 1), op="softmax", batch=_LINEAR_BATCH, in_channels=1000,
            height=1, width=1, **{"pass": "forward"},
        )  # fmt: skip

    def randn(self, *size: int) -> torch.Tensor:
        """Random values on the device."""
        return torch.randn(*size, device=self.clock.device)


def timed(
    what: str, shape: str, work: tuple[float, str], seconds: float, **columns: str | int
) -> Timed:
    """What takes so many seconds for so much work, of a unit."""
    amount, unit = work
    rate = Rate(what=what, shape=shape, seconds=seconds, per_second=amount / seconds, unit=unit)
    return Timed(rate=rate, columns=columns)


def network_rates(network: Network, device: Device) -> Iterator[Timed]:
    """Products of every size, the network's convolutions and products once per shape, memory, and
    what every op costs."""
    _only_float32()
    bench = Microbench(clock=Clock(device))
    for side in _SIZES[device][0]:
        yield bench.product(side, side, side)
    seen = set()
    for parts in network.parts:
        part = parts[0]
        layer, filters = part.layer, part.output_shape[0]
        if isinstance(layer, Convolution):
            key = (part.input_shape, filters, layer.size, layer.stride, layer.groups)
            if key not in seen:
                seen.add(key)
                yield from bench.convolution(
                    _BATCH, part.input_shape, filters, layer, torch.channels_last
                )
        elif len(part.weight_shape) == 2:
            units, inputs = part.weight_shape
            yield bench.product(units, inputs, _LINEAR_BATCH)
        give_back(device)
    yield from bench.memory()
    give_back(device)
    yield from bench.launches()


def usual_rates(device: Device) -> Iterator[Timed]:
    """Convolutions, products and passes over memory of the sizes that many networks have."""
    _only_float32()
    bench, batch = Microbench(clock=Clock(device)), _SIZES[device][1]
    for channels, side, filters, size, stride, padding, groups in _USUAL:
        layer = Convolution(
            name="", filters=filters, size=size, stride=stride, padding=padding, groups=groups
        )
        yield from bench.convolution(
            batch, (channels, side, side), filters, layer, torch.contiguous_format
        )
        give_back(device)
    for inputs, outputs in _USUAL_LINEAR:
        yield bench.linear(_LINEAR_BATCH, inputs, outputs)
    yield from bench.elementwise(batch)
    give_back(device)


def _only_float32() -> None:
    """cuDNN would take TF32 unasked, and these rates are those of float32."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def give_back(device: Device) -> None:
    """What PyTorch's allocator keeps of memory that is free, to the card."""
    if device == "cuda":
        torch.cuda.empty_cache()


def kernel_rows(kernels: Sequence[Timed], calibration: Calibration) -> list[dict[str, Any]]:
    """Lines of a table of kernels, with all ``COLUMNS``, of what was timed with a calibration."""
    usual = {
        "source": "alexsim check calibrate",
        "device": calibration.machine,
        "library": library_name(calibration.device),
        "precision": "fp32",
        "device_clock_notes": calibration.clocks,
        "notes": f"median of {REPEATS}, calls in a row",
    }
    rows = []
    for kernel in kernels:
        known = usual | dict(kernel.columns) | {"time_s": kernel.rate.seconds}
        rows.append({name: known.get(name, "") for name in COLUMNS})
    return rows


def device_name(device: Device) -> str:
    """What is measured."""
    return torch.cuda.get_device_name() if device == "cuda" else cpu_name()


def cudnn_version(number: int) -> str:
    """``9.10.2`` for 91002, ``8.9.2`` for 8902: ``CUDNN_VERSION`` of ``cudnn_version.h``."""
    scale = 10000 if number >= 90000 else 1000
    return f"{number // scale}.{number % scale // 100}.{number % 100}"


def library_name(device: Device) -> str:
    """Whose kernels run, with versions."""
    if device == "cuda":
        number = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions = f"cudnn {cudnn_version(number)}, cuda {torch.version.cuda}"
    else:
        known = re.search(r"(?:MKL-DNN|oneDNN) v([0-9.]+)", torch.__config__.show())
        versions = f"onednn {known[1]}" if known else "cpu"
    return f"pytorch {torch.__version__}, {versions}"
