"""A network in eager PyTorch, as a usual training loop runs it, and the bytes that it holds.

Two judges that know nothing of our plans: PyTorch's own ``MemTracker`` under fake tensors, and the
CPU allocator's reports to the profiler while real tensors are trained.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F

from alexsim.network import layers as la
from alexsim.network.layers import pair
from alexsim.network.network import Network
from alexsim.network.part import INPUT

Tensor = torch.Tensor


def _norm(part: Any) -> nn.Module:
    return nn.BatchNorm2d(part.input_shape[0])


def _convolution(part: Any) -> nn.Module:
    layer: la.Convolution = part.layer
    (top, left), ends = pair(layer.padding), layer.end_paddings(part.input_shape)
    assert ends == (top, left), "a window hangs over"
    return nn.Conv2d(
        part.input_shape[0], layer.filters, pair(layer.size), layer.stride, layer.padding,
        layer.dilation, layer.groups, layer.bias,
    )  # fmt: skip


def _linear(part: Any) -> nn.Module:
    units, inputs = part.weight_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, units))


class _WholeImages(nn.Module):
    """torchvision's ``StochasticDepth`` of rows."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.empty((len(x), *[1] * (x.ndim - 1)), device=x.device)
        return x * noise.bernoulli_(0.8).div_(0.8)


def _dropout(part: Any) -> nn.Module:
    return _WholeImages() if part.layer.whole_images else nn.Dropout(inplace=part.layer.in_place)


class _Spatial(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        total = F.avg_pool2d(x * x, self.size, 1, self.size // 2, divisor_override=1)
        return x / (total * 1e-4 + 1) ** 0.75


MODULES: dict[type, Any] = {
    la.Convolution: _convolution,
    la.FullyConnected: _linear,
    la.BatchNorm: _norm,
    la.MaxPool: lambda p: nn.MaxPool2d(
        p.layer.size, p.layer.stride, p.layer.padding, ceil_mode=p.layer.rounding == "ceil"
    ),
    la.AveragePool: lambda p: nn.AvgPool2d(
        p.layer.size, p.layer.stride, p.layer.padding, p.layer.rounding == "ceil"
    ),
    la.AdaptiveAveragePool: lambda p: nn.AdaptiveAvgPool2d(pair(p.layer.size)),
    la.LocalResponseNorm: lambda p: nn.LocalResponseNorm(p.layer.size),
    la.SpatialResponseNorm: lambda p: _Spatial(p.layer.size),
    la.ReLU: lambda p: nn.ReLU(p.layer.in_place),
    la.ReLU6: lambda p: nn.ReLU6(p.layer.in_place),
    la.SiLU: lambda p: nn.SiLU(p.layer.in_place),
    la.GELU: lambda _: nn.GELU(),
    la.HardSwish: lambda p: nn.Hardswish(p.layer.in_place),
    la.HardSigmoid: lambda p: nn.Hardsigmoid(p.layer.in_place),
    la.LeakyReLU: lambda p: nn.LeakyReLU(inplace=p.layer.in_place),
    la.ELU: lambda p: nn.ELU(inplace=p.layer.in_place),
    la.Sigmoid: lambda _: nn.Sigmoid(),
    la.Tanh: lambda _: nn.Tanh(),
    la.Softmax: lambda _: nn.Softmax(1),
    la.Dropout: _dropout,
}


class Written(nn.Module):
    """A network of one column layer by layer; what no layer reads any more has no name."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        made = {
            p.layer.name: MODULES[type(p.layer)](p)
            for (p,) in network.parts
            if type(p.layer) in MODULES
        }
        self.layers = nn.ModuleDict({name.replace(".", "/"): m for name, m in made.items()})
        self.last: dict[str, list[str]] = defaultdict(list)
        for name, readers in network.readers.items():
            if readers and name != INPUT:
                self.last[readers[-1]].append(name)

    def forward(self, images: Tensor) -> list[Tensor]:
        values = {INPUT: images}
        for index, layer in enumerate(self.network.layers):
            xs = [values[name] for name in self.network.inputs_of(index)]
            if isinstance(layer, la.SoftmaxCrossEntropy):
                continue
            name, first = layer.name, xs[0]
            if isinstance(layer, la.Add):
                values[name] = first.add_(xs[1]) if layer.in_place else first + xs[1]
            elif isinstance(layer, la.Multiply):
                values[name] = first * xs[1]
            elif isinstance(layer, la.Concat):
                values[name] = torch.cat(xs, 1)
            else:
                values[name] = self.layers[name.replace(".", "/")](first)
            del xs, first
            for gone in self.last[name]:
                del values[gone]
        heads = {head.name for head in self.network.heads}
        return [
            values[self.network.inputs_of(index)[0]]
            for index, layer in enumerate(self.network.layers) if layer.name in heads
        ]  # fmt: skip


def optimizer(name: str, model: nn.Module, *, foreach: bool) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), foreach=foreach)
    return torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, foreach=foreach
    )


def step(
    model: nn.Module,
    rule: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    amp: bool = False,
) -> Any:
    """One step of the usual loop, under autocast if ``amp``; what stays alive after it."""
    rule.zero_grad()
    # The lists of the CPU and of cards differ in no operator of these networks.
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        outputs = model(images)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        loss = sum(F.cross_entropy(output.flatten(1), labels) for output in outputs)
    loss.backward()
    rule.step()
    return outputs, loss


def tracked(
    make: Any, rule: str, shape: tuple[int, ...], *, foreach: bool = True, amp: bool = False
) -> dict[str, int]:
    """Peak of a second step under fake tensors, by MemTracker's categories, and ``Total``."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = make()
        images, labels = torch.randn(shape), torch.zeros(shape[0], dtype=torch.long)
        update = optimizer(rule, model, foreach=foreach)
        step(model, update, images, labels, amp=amp)
        update.zero_grad()
        tracker = MemTracker()
        tracker.track_external(model, update, images, labels)
        with tracker, warnings.catch_warnings():
            # Without a module at hand it keeps no record of that module; the peak is not touched.
            warnings.filterwarnings("ignore", "Module is None")
            step(model, update, images, labels, amp=amp)
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    return {getattr(key, "value", key): size for key, size in peak.items()}


def trained(make: Any, rule: str, shape: tuple[int, ...]) -> int:
    """Most bytes of real tensors in a second step on the CPU, by its allocator's reports."""
    model = make()
    images, labels = torch.randn(shape), torch.zeros(shape[0], dtype=torch.long)
    update = optimizer(rule, model, foreach=False)
    step(model, update, images, labels)
    update.zero_grad()
    state = (value for values in update.state.values() for value in values.values())
    before = (*model.parameters(), *model.buffers(), *state, images, labels)
    bytes_before = sum(x.numel() * x.element_size() for x in before if isinstance(x, Tensor))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step(model, update, images, labels)
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    calls = [
        (e.start_ns(), e.start_ns() + e.duration_ns())
        for e in events if e.name() in ("aten::convolution_backward", "aten::mkldnn_convolution")
    ]  # fmt: skip
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    live, peak = bytes_before, 0
    for size in _without_scratch(changes, calls):
        live += size
        peak = max(peak, live)
    return peak


def _without_scratch(changes: list[tuple[int, int]], calls: list[tuple[int, int]]) -> Iterator[int]:
    """Bytes allocated (or, below 0, freed) in order; what oneDNN allocates and frees within a
    call, its copies in another layout, left out: that is workspace."""
    inside = {
        time: index for index, (begins, ends) in enumerate(calls)
        for time, _ in changes if begins <= time <= ends
    }  # fmt: skip
    scratch: set[int] = set()
    begun: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, (time, size) in enumerate(changes):
        if time not in inside:
            continue
        if size > 0:
            begun[inside[time], size].append(place)
        elif same := begun[inside[time], -size]:
            scratch |= {place, same.pop()}
    return (size for place, (_, size) in enumerate(changes) if place not in scratch)
