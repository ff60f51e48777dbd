"""Times as ratios: our code and a reference take turns in one process, pair after pair.

A slow minute of the machine slows both, so their ratio holds still where times do not. References
are PyTorch and Pillow as their users call them, and for planning and simulating a fixed piece of
pure Python.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from alexsim.bench.verdicts import Timed
from alexsim.data import builtin
from alexsim.data.images import Crop, load_crops
from alexsim.execute.aten.norm import norm_forward, norm_grad_input
from alexsim.execute.aten.pool import max_pool_forward, max_pool_grad_input
from alexsim.execute.context import STILL
from alexsim.execute.executor import Executor
from alexsim.interchange.module import plain_module
from alexsim.machine.machine import load_machine
from alexsim.network.layers import LocalResponseNorm, MaxPool
from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.step_profile import ratio
from alexsim.simulate.simulator import on_machine

Workload = Callable[[], object]

_SAMPLE_S = 0.04
"""Shortest sample: cheaper work is repeated within a sample."""
_FEWEST, _MOST = 15, 61
_TIGHT = 0.02
"""Half the interval over the median, at which no more pairs are taken."""
_FILES = 8
_PASSES = (OpKind.FORWARD, OpKind.GRAD_INPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Our code and a reference to time; ``make`` sets both up and returns how to run them."""

    name: str
    ours: str
    reference: str
    make: Callable[[ExitStack], tuple[Workload, Workload]]


def cases(network: Network, batch_size: int) -> tuple[Case, ...]:
    """All cases of a network; norms and pools where it has any."""
    listed = [
        Case(
            name="plan",
            ours="plan a step",
            reference="pure Python",
            make=lambda _: (lambda: plan(network, batch_size=batch_size), _pure_python),
        ),
        Case(
            name="simulate",
            ours="simulate a step",
            reference="pure Python",
            make=lambda _: _simulate(network, batch_size),
        ),
        Case(
            name="data",
            ours="decode and crop",
            reference="Pillow",
            make=lambda stack: _data(network, stack),
        ),
    ]
    planned = plan(network, batch_size=batch_size, backend="aten")
    norm = _largest(network, LocalResponseNorm)
    if norm is not None:
        listed.append(
            Case(
                name="norm",
                ours=f"{norm.layer.name}, both passes",
                reference="local_response_norm",
                make=lambda _: _norm(planned, norm),
            )
        )
    pool = _largest(network, MaxPool)
    if pool is not None:
        listed.append(
            Case(
                name="pool",
                ours=f"{pool.layer.name}, both passes",
                reference="max_pool2d",
                make=lambda _: _pool(planned, pool),
            )
        )
    listed.append(
        Case(
            name="step",
            ours="a training step",
            reference="torch.nn, autograd",
            make=lambda _: _step(planned),
        )
    )
    return tuple(listed)


def measure(case: Case) -> Timed:
    """Alternate until the ratio's interval is tight, or pairs run out.

    On one thread: two threads that wait for each other while another process takes a core are
    slowed many times over, and not both sides alike.
    """
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        torch.set_num_threads(1)
        stack.callback(torch.set_num_threads, threads)
        ours, reference = case.make(stack)
        runs = (_repeated(ours), _repeated(reference))
        seconds: tuple[list[float], list[float]] = ([], [])
        for index in range(_MOST):
            # The sides take turns to come first, so that a drift falls on both alike.
            for side in (0, 1) if index % 2 else (1, 0):
                seconds[side].append(runs[side]())
            if index + 1 >= _FEWEST:
                interval = ratio(*seconds)
                if interval.high - interval.low <= 2 * _TIGHT * interval.median:
                    break
    return Timed(
        name=case.name,
        ours=case.ours,
        reference=case.reference,
        ratio=interval,
        ours_s=median(seconds[0]),
        reference_s=median(seconds[1]),
    )


def slowed(case: Case, share: float) -> Case:
    """The same case with our code slower by ``share``: a gate must catch it."""

    def make(stack: ExitStack) -> tuple[Workload, Workload]:
        ours, reference = case.make(stack)

        def slow() -> None:
            started = time.perf_counter()
            ours()
            until = time.perf_counter() + share * (time.perf_counter() - started)
            while time.perf_counter() < until:
                pass

        return slow, reference

    return replace(case, make=make)


def _repeated(run: Workload) -> Callable[[], float]:
    """Warm up, and return what measures one run in seconds, as the mean over a sample."""
    run()
    started = time.perf_counter()
    run()
    count = max(1, round(_SAMPLE_S / (time.perf_counter() - started)))

    def sample() -> float:
        started = time.perf_counter()
        for _ in range(count):
            run()
        return (time.perf_counter() - started) / count

    return sample


def _pure_python() -> int:
    """About 5 ms of work like planning: tuples, dictionaries, strings, sorting."""
    table: dict[tuple[str, int], list[int]] = {}
    for index in range(6000):
        table.setdefault((f"layer{index % 97}", index % 13), []).append(index * index % 1009)
    return sum(sum(sorted(values)[:3]) for _, values in sorted(table.items()))


def _simulate(network: Network, batch_size: int) -> tuple[Workload, Workload]:
    machine = load_machine("gtx580x2")
    configuration = PlanSpec(network=network, batch_size=batch_size)
    return lambda: on_machine(configuration, machine), _pure_python


def _data(network: Network, stack: ExitStack) -> tuple[Workload, Workload]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    channels, side, _ = network.input_shape
    crops = []
    for index in range(_FILES):
        path = folder / f"{index}.JPEG"
        builtin.draw(index % len(builtin.CLASSES), index).save(path, "JPEG", quality=85)
        crops.append(Crop(path=str(path), top=0, left=0))

    def reference() -> None:
        for crop in crops:
            with Image.open(crop.path) as image:
                np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))

    return lambda: load_crops(crops, side, channels), reference


def _largest(network: Network, kind: type) -> Part | None:
    """The part with most inputs of a kind of layer."""
    parts = [part for columns in network.parts for part in columns if isinstance(part.layer, kind)]
    return max(parts, key=lambda part: float(np.prod(part.input_shape)), default=None)


def _chunk(planned: Plan, part: Part, kind: OpKind) -> int:
    """Images that the plan's op works on at a time."""
    return next(
        op.chunk_images
        for op in planned.ops()
        if op.kind == kind and op.layer == part.layer.name and op.column == part.column
    )


def _images(batch_size: int, shape: tuple[int, ...]) -> torch.Tensor:
    """As the executor holds images: channels last."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(batch_size, height, width, channels, generator=generator)
    return values.permute(0, 3, 1, 2)


def _norm(planned: Plan, part: Part) -> tuple[Workload, Workload]:
    layer = part.layer
    assert isinstance(layer, LocalResponseNorm)
    forward, backward = (_chunk(planned, part, kind) for kind in _PASSES)
    x, dy = (_images(planned.batch_size, part.input_shape) for _ in range(2))
    y, denominators, dx = (torch.empty_like(x) for _ in range(3))

    def ours() -> None:
        with torch.no_grad():
            norm_forward(layer, x, y, denominators, forward)
            norm_grad_input(layer, y, denominators, dy, dx, backward)

    plain = x.contiguous().requires_grad_()
    plain_dy = dy.contiguous()

    def reference() -> None:
        out = F.local_response_norm(
            plain, layer.size, layer.alpha * layer.size, layer.beta, layer.k
        )
        torch.autograd.grad(out, plain, plain_dy)

    return ours, reference


def _pool(planned: Plan, part: Part) -> tuple[Workload, Workload]:
    layer = part.layer
    assert isinstance(layer, MaxPool)
    forward, backward = (_chunk(planned, part, kind) for kind in _PASSES)
    x, dy = (_images(planned.batch_size, shape) for shape in (part.input_shape, part.output_shape))
    y, dx = torch.empty_like(dy), torch.empty_like(x)

    def ours() -> None:
        with torch.no_grad():
            max_pool_forward(layer, x, y, forward)
            max_pool_grad_input(layer, x, y, dy, dx, backward, add=False)

    plain = x.contiguous().requires_grad_()
    plain_dy = dy.contiguous()

    def reference() -> None:
        ceil = layer.rounding == "ceil"
        out = F.max_pool2d(plain, layer.size, layer.stride, ceil_mode=ceil)
        torch.autograd.grad(out, plain, plain_dy)

    return ours, reference


def _step(planned: Plan) -> tuple[Workload, Workload]:
    executor = Executor(planned)
    executor.initialise()
    network = planned.network
    images = _images(planned.batch_size, network.input_shape)
    labels = torch.arange(planned.batch_size) % network.classes

    def ours() -> None:
        executor.step(images, labels, step=0, hyperparameters=STILL)

    module = plain_module(network).train()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.01)
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-20, momentum=0.9, weight_decay=5e-4)
    plain = images.contiguous()

    def reference() -> None:
        optimiser.zero_grad()
        F.cross_entropy(module(plain).flatten(1), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return ours, reference
