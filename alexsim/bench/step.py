"""A whole training step against compiled PyTorch, the plan's memory, and exchanges: needs CUDA.

    python -m alexsim.bench.step --out step.json

Ours: ``alexnet-1gpu`` on one device by the plan, with Triton's kernels in a CUDA graph. Theirs: the
same layers as ``torch.nn`` modules, channels-last, ``torch.compile``d, momentum SGD, at equal
precision. Then two virtual GPUs of 3 GB train ``alexnet-2012`` over both transports.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexsim.editions.load import load_network
from alexsim.execute.choices import PRECISIONS, Precision
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    pair,
)
from alexsim.network.network import Network
from alexsim.plan.choices import Fusion, TransportName
from alexsim.plan.planner import plan
from alexsim_kernels.bench.needs import need_card, need_triton

RATES = Hyperparameters()
_WARM_UPS, _STEPS, _IN_A_ROW = 5, 5, 5


def model_of(network: Network) -> nn.Module:
    """A one-column network as PyTorch modules."""
    modules: list[nn.Module] = []
    for (part,) in network.parts:
        layer, shape = part.layer, part.input_shape
        match layer:
            case Convolution():
                before, end = pair(layer.padding), layer.end_paddings(shape)
                if end != before:
                    modules.append(nn.ZeroPad2d((before[1], end[1], before[0], end[0])))
                modules.append(
                    nn.Conv2d(
                        shape[0], layer.filters, layer.size, layer.stride,
                        padding=0 if end != before else before, groups=layer.groups,
                    )
                )  # fmt: skip
            case ReLU():
                modules.append(nn.ReLU())
            case LocalResponseNorm():
                alpha = layer.alpha * layer.size
                modules.append(nn.LocalResponseNorm(layer.size, alpha, layer.beta, layer.k))
            case MaxPool():
                modules.append(nn.MaxPool2d(layer.size, layer.stride))
            case Dropout():
                modules.append(nn.Dropout(layer.rate))
            case FullyConnected():
                if len(shape) > 1:
                    modules.append(nn.Flatten())
                modules.append(nn.Linear(part.weight_shape[1], part.weight_shape[0]))
    return nn.Sequential(*modules)


def batch_of(network: Network, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels in pinned memory."""
    images = 60 * torch.randn(size, *network.input_shape)
    labels = torch.randint(network.classes, (size,))
    return images.contiguous(memory_format=torch.channels_last).pin_memory(), labels.pin_memory()


def timed(step: Any) -> float:
    """Median seconds of a step, by events."""
    for _ in range(_WARM_UPS):
        step()
    seconds: list[float] = []
    for _ in range(_STEPS):
        # Several steps in a row: the host may run ahead, as it does in training.
        start, end = _event(), _event()
        start.record()
        for _ in range(_IN_A_ROW):
            step()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3 / _IN_A_ROW)
    return statistics.median(seconds)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def ours(network: Network, size: int, precision: Precision, *, fused: bool) -> float:
    """Seconds of a step of the plan, with a kernel for each layer or for two layers."""
    fusion: Fusion = "kernels" if fused else "none"
    planned = plan(network, batch_size=size, policy="reuse", backend="triton", fusion=fusion)
    executor = Executor(planned, device="cuda", precision=precision, graph=True)
    executor.initialise()
    images, labels = batch_of(network, size)
    return timed(lambda: executor.step(images, labels, step=0, hyperparameters=RATES))


def theirs(network: Network, size: int, precision: Precision) -> float:
    """Seconds of a step of compiled PyTorch."""
    torch.backends.cudnn.benchmark = True
    allow = precision == "tf32"  # three TF32 products stand for float32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
    model = model_of(network).cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(model.parameters(), 1e-6, 0.9, weight_decay=5e-4, fused=True)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    torch._dynamo.reset()

    @torch.compile(mode="reduce-overhead", dynamic=False)
    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", half, enabled=half is not None):
            return nn.functional.cross_entropy(model(images), labels)

    images, labels = batch_of(network, size)

    def step() -> None:
        on_card = images.cuda(non_blocking=True), labels.cuda(non_blocking=True)
        torch.autograd.backward(loss_of(*on_card))
        optimiser.step()
        optimiser.zero_grad()

    return timed(step)


def two_devices(transport: TransportName) -> dict[str, Any]:
    """Step time, traffic and memory of the two columns at 128 images, 3 GB each."""
    network = load_network("alexnet-2012")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    planned = plan(network, batch_size=128, transport=transport, backend="triton")
    executor = Executor(planned, device="cuda", budget_bytes=3 * 1024**3)
    executor.initialise()
    images, labels = batch_of(network, 128)
    seconds = timed(lambda: executor.step(images, labels, step=0, hyperparameters=RATES))
    executor.record()
    executor.step(images, labels, step=1, hyperparameters=RATES)
    spans = executor.trace().spans
    moving = sum(s.duration_s for s in spans if s.op_id.endswith((".post", ".wait")))
    return {
        "transport": transport,
        "step_s": seconds,
        "exchange_s": moving,
        "exchange_bytes_per_s": planned.exchanged_bytes / moving,
        "planned_bytes": sum(device.total_bytes for device in planned.devices),
        "peak_bytes": torch.cuda.max_memory_allocated() - before,
    }


def pcie() -> str:
    """What the driver says of the link."""
    query = "--query-gpu=pcie.link.gen.current,pcie.link.width.current"
    queried = subprocess.run(
        ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return re.sub(r"\s+", " ", queried.stdout.strip())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="alexsim.bench.step", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--batch", type=int, action="append", help="images; 128 and 1024")
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    arguments = parser.parse_args()
    need_triton()
    need_card("alexsim profile measures a step on this processor")
    from alexsim_kernels.bench.timing import where

    network = load_network("alexnet-1gpu")
    flop = sum(op.count.flop for op in plan(network, batch_size=1).ops())
    rows: list[dict[str, Any]] = []
    document: dict[str, Any] = where() | {"pcie": pcie(), "steps": rows}

    def keep() -> None:
        if arguments.out:
            arguments.out.write_text(
                json.dumps(document, indent=1, allow_nan=False), encoding="utf-8"
            )

    for size in arguments.batch or (128, 1024):
        for precision in arguments.precision or ("fp32", "tf32", "fp32x3", "bf16"):
            ours_s, unfused_s = (
                ours(network, size, precision, fused=fused) for fused in (True, False)
            )
            theirs_s = theirs(network, size, precision)
            row = {"batch": size, "precision": precision, "ours_s": ours_s, "theirs_s": theirs_s}
            rows.append(row | {"ours_apart_s": unfused_s})
            keep()
            print(
                f"batch {size} {precision:7s} {1e3 * ours_s:8.2f} ms"
                f" ({1e3 * unfused_s:.2f} not fused), compiled {1e3 * theirs_s:8.2f},"
                f" {theirs_s / ours_s:.2f} x, {size / ours_s:,.0f} images/s,"
                f" {flop * size / ours_s / 1e12:.1f} TFLOP/s",
                flush=True,
            )
    transports = [two_devices("peer"), two_devices("host")]
    for row in transports:
        print(
            f"two devices, {row['transport']}: {1e3 * row['step_s']:.2f} ms, exchanges"
            f" {row['exchange_bytes_per_s'] / 1e9:.1f} GB/s, peak"
            f" {row['peak_bytes'] / 2**20:.0f} MiB of {row['planned_bytes'] / 2**20:.0f} planned"
        )
    document["two_devices"] = transports
    keep()


if __name__ == "__main__":
    main()
