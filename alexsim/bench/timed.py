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
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from alexsim.bench.verdicts import Timed
from alexsim.builtin import textures
from alexsim.data.images import Crop, load_crops
from alexsim.execute.context import STILL, StepContext
from alexsim.execute.executor import Executor
from alexsim.interchange.module import plain_module
from alexsim.machine.machine import load_machine
from alexsim.network.layers import Convolution, FullyConnected, LocalResponseNorm, MaxPool, pair
from alexsim.network.network import Network
from alexsim.network.part import INPUT, Part
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.step_profile import ratio
from alexsim.simulate.simulator import on_machine
from alexsim_kernels.cpu.build import available

Workload = Callable[[], object]

_SAMPLE_S = 0.04
"""Shortest sample: cheaper work is repeated within a sample."""
_FEWEST, _MOST = 15, 61
_TIGHT = 0.02
"""Half the interval over the median, at which no more pairs are taken."""
_FILES = 8
_PASSES = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Our code and a reference to time; ``make`` sets both up and returns how to run them."""

    name: str
    ours: str
    reference: str
    make: Callable[[ExitStack], tuple[Workload, Workload]]


def cases(network: Network, batch_size: int) -> tuple[Case, ...]:
    """All cases of a network: of layers that it has, the one of a kind that does most."""
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
    backend = "aten" if available() else "native"
    planned = plan(network, batch_size=batch_size, backend=backend)
    for kind, reference in _REFERENCES.items():
        part = _largest(network, kind)
        if part is not None:
            layer = part.layer.name
            listed.append(
                Case(
                    name=f"{backend} {_NAMES[kind]}",
                    ours=f"{layer}, all passes",
                    reference=reference.__name__.strip("_"),
                    make=partial(_layer, planned, part, reference),
                )
            )
    listed.append(
        Case(
            name=f"{backend} step",
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
        textures.draw(index % len(textures.CLASSES), index).save(path, "JPEG", quality=85)
        crops.append(Crop(path=str(path), top=0, left=0))

    def reference() -> None:
        for crop in crops:
            with Image.open(crop.path) as image:
                np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))

    return lambda: load_crops(crops, side, channels), reference


def _largest(network: Network, kind: type) -> Part | None:
    """The part of a kind of layer that does most."""
    parts = [part for columns in network.parts for part in columns if isinstance(part.layer, kind)]
    return max(parts, key=lambda part: (part.multiply_adds, part.input_values), default=None)


def _values(batch_size: int, shape: tuple[int, ...]) -> torch.Tensor:
    """As the executor holds images: channels last."""
    values = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0))
    return values if len(shape) == 1 else values.to(memory_format=torch.channels_last)


def _layer(
    planned: Plan, part: Part, reference: Reference, _: ExitStack
) -> tuple[Workload, Workload]:
    """All passes of a layer as a step runs them, and as autograd does."""
    executor = Executor(planned)
    executor.initialise()
    runner = next(r for r in executor.runners if part.column in r.device.columns)
    ops = [op for op in runner.device.ops if (op.layer, op.column) == part.output]
    launches = [runner.launch_of(op) for op in ops if op.kind in _PASSES]
    images, labels = _values(1, planned.network.input_shape), torch.zeros(1, dtype=torch.int64)
    context = StepContext(
        images=images, labels=labels, step=0, seed=0, training=True, hyperparameters=STILL
    )

    def ours() -> None:
        with torch.no_grad():
            for launch in launches:
                launch(context)

    x, dy = (_values(planned.batch_size, shape) for shape in (part.input_shape, part.output_shape))
    weights = [
        torch.randn(parameter.shape).mul_(0.01).requires_grad_()
        for parameter in part.read_by_name.values()
    ]
    # As our plan, a first layer has no gradient of its input.
    wanted = [*weights] if any(read.layer == INPUT for read in part.reads) else [x, *weights]
    x.requires_grad_(len(wanted) > len(weights))

    def plain() -> None:
        torch.autograd.grad(reference(part, x, *weights), wanted, dy)

    return ours, plain


def _conv2d(part: Part, x: torch.Tensor, weight: torch.Tensor, *bias: torch.Tensor) -> torch.Tensor:
    layer = part.layer
    assert isinstance(layer, Convolution)
    (top, left), (bottom, right) = pair(layer.padding), layer.end_paddings(part.input_shape)
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    window = (pair(layer.stride), (top, left), pair(layer.dilation), layer.groups)
    return F.conv2d(x, weight, bias[0] if bias else None, *window)


def _linear(part: Part, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
    del part
    return F.linear(x.flatten(1), *weights)


def _local_response_norm(part: Part, x: torch.Tensor) -> torch.Tensor:
    layer = part.layer
    assert isinstance(layer, LocalResponseNorm)
    return F.local_response_norm(x, layer.size, layer.alpha * layer.size, layer.beta, layer.k)


def _max_pool2d(part: Part, x: torch.Tensor) -> torch.Tensor:
    layer = part.layer
    assert isinstance(layer, MaxPool)
    ceil = layer.rounding == "ceil"
    return F.max_pool2d(x, layer.size, layer.stride, layer.padding, ceil_mode=ceil)


Reference = Callable[..., torch.Tensor]
_REFERENCES: dict[type, Reference] = {
    Convolution: _conv2d,
    FullyConnected: _linear,
    LocalResponseNorm: _local_response_norm,
    MaxPool: _max_pool2d,
}
_NAMES: dict[type, str] = {
    Convolution: "convolution",
    FullyConnected: "fully connected",
    LocalResponseNorm: "norm",
    MaxPool: "pool",
}


def _step(planned: Plan) -> tuple[Workload, Workload]:
    executor = Executor(planned)
    executor.initialise()
    network = planned.network
    images = _values(planned.batch_size, network.input_shape)
    labels = torch.arange(planned.batch_size) % network.classes

    def ours() -> None:
        executor.step(images, labels, step=0, hyperparameters=STILL)

    module = plain_module(network).train()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.01)
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-20, momentum=0.9, weight_decay=5e-4)

    def reference() -> None:
        optimiser.zero_grad()
        F.cross_entropy(module(images).flatten(1), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return ours, reference
