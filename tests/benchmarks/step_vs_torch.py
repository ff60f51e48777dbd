"""One training step on this CPU: alexsim against the best that a user of PyTorch can get.

Columns, each measured in fresh child processes that take turns, so that a slow minute of the
machine meets all of them:

    alexsim        AlexNet (2012) as released on two virtual GPUs; others with policy reuse on one;
                   our own kernels
    alexsim-bf16   the same, fully connected layers in bfloat16
    alexsim-aten   the same on PyTorch's functions
    eager          nn.Conv2d(groups=2), F.local_response_norm, autograd, torch.optim.SGD; others
                   are the modules of tests/zoo.py; channels last, ReLUs in place
    compiled       the same by torch.compile
    compiled-bf16  the same under autocast to bfloat16

malloc and PyTorch keep their memory in all of them, as alexsim tells them to. Every child warms up
with two steps and reports the median of ``--steps`` more. Ratios are taken within a round; what is
printed is their median over rounds, with a bootstrap interval.

    python tests/benchmarks/step_vs_torch.py --rounds 5
    python tests/benchmarks/step_vs_torch.py --net resnet50 --batch 16 --columns alexsim eager
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from alexsim_kernels.cpu.product import ceiling

COLUMNS = ("alexsim", "alexsim-bf16", "alexsim-aten", "eager", "compiled", "compiled-bf16")
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": "268435456",
    "THP_MEM_ALLOC_ENABLE": "1",
}
ALEXNET = "alexnet-2012"


class PlainNorm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halves = (F.local_response_norm(half, 5, 1e-4, 0.75, 2.0) for half in x.chunk(2, 1))
        return torch.cat([*halves], 1)


class PlainSpatialNorm(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = F.avg_pool2d(x * x, 5, 1, 2, divisor_override=1)
        return x * (1 + 4e-5 * total).pow(-0.75)


class PlainDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty_like(x).bernoulli_(0.5)


def plain_alexnet() -> nn.Module:
    """The same layers in the same order, as a PyTorch user would write them."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),
        nn.Conv2d(3, 96, 11, 4),
        PlainNorm(),
        nn.MaxPool2d(3, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        PlainNorm(),
        PlainSpatialNorm(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(9216, 4096),
        nn.ReLU(inplace=True),
        PlainDropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        PlainDropout(),
        nn.Linear(4096, 1000),
    )


class Answer(nn.Module):
    """A network of ``tests/zoo.py``, and of its heads the last."""

    def __init__(self, name: str) -> None:
        super().__init__()
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from zoo import ZOO

        F.relu = torch.relu_  # type: ignore[assignment]
        self.network = ZOO[name]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers: tuple[torch.Tensor, ...] = self.network(x)
        return answers[-1]


def batch_of(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = 60 * torch.randn(size, 3, 224, 224, generator=generator)
    return images, torch.randint(0, 10, (size,), generator=generator)


def timed(step: Callable[[int], None], steps: int) -> float:
    """Median seconds of a step, after two to warm up."""
    for _ in range(2):
        step(0)
    seconds = []
    for index in range(steps):
        started = time.perf_counter()
        step(index + 1)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def peak_rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plain_child(column: str, name: str, size: int, steps: int) -> dict[str, Any]:
    images, labels = batch_of(size)
    model = plain_alexnet() if name == ALEXNET else Answer(name)
    model, images = (each.to(memory_format=torch.channels_last) for each in (model, images))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=column == "compiled-bf16"):
            return F.cross_entropy(model(images), labels)

    run = loss if column == "eager" else torch.compile(loss)

    def step(_: int) -> None:
        optimiser.zero_grad()
        run().backward()
        optimiser.step()

    return {"step_s": timed(step, steps), "rss_bytes": peak_rss_bytes()}


def alexsim_child(column: str, name: str, size: int, steps: int) -> dict[str, Any]:
    from alexsim.editions.load import load_network
    from alexsim.execute.context import Hyperparameters
    from alexsim.execute.executor import Executor
    from alexsim.plan.planner import plan

    images, labels = batch_of(size)
    images = images.to(memory_format=torch.channels_last)
    network, released = load_network(name), name == ALEXNET
    started = time.perf_counter()
    made = plan(
        network,
        gpus=2 if released else 1,
        batch_size=size,
        policy="as-released" if released else "reuse",
        backend="aten" if column == "alexsim-aten" else "native",
        threads=torch.get_num_threads(),
        products="bf16" if column == "alexsim-bf16" else "fp32",
    )
    plan_s = time.perf_counter() - started
    executor = Executor(made)
    executor.initialise()

    def step(index: int) -> None:
        executor.step(images, labels, step=index, hyperparameters=Hyperparameters())

    step_s = timed(step, steps)
    rss = peak_rss_bytes()
    executor.record()
    for index in range(3):
        step(steps + 1 + index)
    medians = {name: statistics.median(s) for name, s in executor.trace().by_op().items()}
    layers: dict[str, dict[str, Any]] = {}
    for op in made.ops():
        # In one process a barrier is the other device's turn, no work of its own.
        if op.kind == "barrier":
            continue
        kind = "exchange" if op.exchange or op.kind == "accumulate" else str(op.kind)
        row = layers.setdefault(f"{op.layer or 'input'} {kind}", dict.fromkeys(
            ("seconds", "flop", "moved_bytes"), 0
        ))  # fmt: skip
        row["seconds"] += medians[op.id]
        row["flop"] += op.count.flop
        row["moved_bytes"] += op.count.moved_bytes
    return {
        "step_s": step_s,
        "rss_bytes": rss,
        "plan_s": plan_s,
        "flop": sum(op.count.flop for op in made.ops()),
        "plan_bytes": sum(device.total_bytes for device in made.devices),
        "layers": layers,
        "peak_flop_per_s": 1e9 * ceiling(),
    }


def child(column: str, arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    run = alexsim_child if column.startswith("alexsim") else plain_child
    print(json.dumps(run(column, arguments.net, arguments.batch, arguments.steps)))


def in_child(column: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--child", column, "--net", arguments.net,
        "--batch", str(arguments.batch), "--steps", str(arguments.steps),
        "--threads", str(arguments.threads),
    ]  # fmt: skip
    environment = os.environ | MALLOC
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    rng = random.Random(0)
    medians = [statistics.median(rng.choices(values, k=len(values))) for _ in range(2000)]
    cuts = statistics.quantiles(medians, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def machine() -> dict[str, Any]:
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].partition(": ")[2] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def report(results: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> None:
    """Print everything within 80 columns."""
    flop = results["alexsim"][0]["flop"]
    print(f"\n{'':14}{'s/step':>9}{'GFLOP/s':>9}{'images/s':>10}{'peak RSS, MB':>14}")
    for column, runs in results.items():
        seconds = statistics.median(run["step_s"] for run in runs)
        rss = max(run["rss_bytes"] for run in runs) / 1e6
        print(
            f"{column:14}{seconds:9.2f}{flop / seconds / 1e9:9.1f}"
            f"{arguments.batch / seconds:10.1f}{rss:14.0f}"
        )
    for column in arguments.columns[1:]:
        ratios = [
            plain["step_s"] / ours["step_s"]
            for plain, ours in zip(results[column], results["alexsim"], strict=True)
        ]
        low, high = interval(ratios)
        print(
            f"{column} / alexsim: {statistics.median(ratios):.2f}"
            f"  (95 % {low:.2f} to {high:.2f}; all {min(ratios):.2f} to {max(ratios):.2f})"
        )
    ours = results["alexsim"]
    limit = ours[0]["plan_bytes"] + 600_000_000
    rss = max(run["rss_bytes"] for run in ours)
    print(f"resident {rss / 1e6:.0f} MB; plan + 600 MB = {limit / 1e6:.0f} MB")
    plan_s = statistics.median(run["plan_s"] for run in ours)
    print(f"planning takes {1000 * plan_s:.1f} ms, once per run")
    peak = statistics.median(run["peak_flop_per_s"] for run in ours)
    print(f"our micro-kernel: {peak / 1e9:.0f} GFLOP/s\n")
    print(f"{'layer':16}{'op':14}{'ms':>8}{'share':>8}{'GFLOP/s':>9}{'GB/s':>8}")
    rows = {
        name: {
            key: statistics.median(run["layers"][name][key] for run in ours)
            for key in ("seconds", "flop", "moved_bytes")
        }
        for name in ours[0]["layers"]
    }
    total = sum(row["seconds"] for row in rows.values())
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["seconds"]):
        if row["seconds"] < 0.002 * total:
            continue
        layer, kind = name.split()
        rate = f"{row['flop'] / row['seconds'] / 1e9:9.0f}" if row["flop"] else " " * 9
        print(
            f"{layer:16}{kind:14}{1000 * row['seconds']:8.1f}{row['seconds'] / total:8.1%}"
            f"{rate}{row['moved_bytes'] / row['seconds'] / 1e9:8.1f}"
        )
    print(f"{'all ops':30}{1000 * total:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default=ALEXNET, help="or one of tests/zoo.py")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each child")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS)
    parser.add_argument("-o", "--output", type=Path, help="also write everything as JSON")
    parser.add_argument("--child", choices=COLUMNS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments)
        return
    columns = arguments.columns = list(dict.fromkeys(("alexsim", *arguments.columns)))
    results: dict[str, list[dict[str, Any]]] = {column: [] for column in columns}
    for index in range(arguments.rounds):
        turn = index % len(columns)
        for column in (*columns[turn:], *columns[:turn]):
            results[column].append(in_child(column, arguments))
            print(f"round {index + 1} {column}: {results[column][-1]['step_s']:.2f} s", flush=True)
    report(results, arguments)
    if arguments.output:
        settings = {
            k: getattr(arguments, k) for k in ("net", "batch", "rounds", "steps", "threads")
        }
        document = {"machine": machine(), "settings": settings, "results": results}
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
