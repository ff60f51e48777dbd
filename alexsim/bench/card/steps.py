"""A whole training step of AlexNet against compiled PyTorch.

Ours: ``alexnet-1gpu`` by the plan, Triton's kernels in a CUDA graph, with a kernel for two layers
where there is one (``step``) or for each layer (``step, not fused``). Theirs: the same layers as
``torch.nn`` modules, channels-last, ``torch.compile``d with CUDA graphs, momentum SGD, at equal
precision: three TF32 products stand for float32. Images come from pinned memory, in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch._dynamo
from torch import nn

from alexsim.bench.card.ahead import FUSED, PRECISIONS, SIZES, step_plan
from alexsim.bench.card.tiny import BATCH, tiny
from alexsim.bench.card.trials import Times, Trials, device_of, minibatch, refuse_loss, timed
from alexsim.editions.load import load_network
from alexsim.execute.choices import Device, Precision
from alexsim.execute.context import STILL
from alexsim.execute.executor import Executor
from alexsim.interchange.module import AlexNet
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.card.predicted import Predicted
from alexsim_kernels.bench.row import Row

if torch.cuda.is_available():
    # Seconds, which pass while the part before this one is still at work.
    import torch._inductor.compile_fx

NEEDS = ("numpy", "safetensors", "torch", "triton")
_THEIRS: Mapping[Precision, tuple[Precision, ...]] = {
    "bf16": ("bf16",),
    "tf32": ("tf32",),
    "fp32": ("fp32x3", "fp32"),
}
"""Their precisions, and ours that stand beside each."""
_SECONDS = {"ours": 6.0, "theirs": 18.0}
"""What a trial takes at first: ours compiles kernels if nobody has yet, theirs all of a step."""
_NAMES = {fused: name for name, fused in FUSED.items()}


def rows(job: Job) -> Iterator[Row]:
    """Ours at every precision, then theirs beside it, of 128 images, then of 1024; then ours
    without fused layers."""
    bench = _Bench(job)
    sizes, precisions = ((BATCH,), PRECISIONS[:2]) if job.rehearse else (SIZES, PRECISIONS)
    for size in sizes:
        for precision in precisions:
            yield from bench.ours(size, precision, fused=True)
    for precision in _THEIRS:
        for size in sizes:
            yield from bench.theirs(size, precision)
    for size in sizes:
        for precision in precisions:
            yield from bench.ours(size, precision, fused=False)


@dataclass(slots=True)
class _Bench:
    job: Job
    device: Device = field(init=False)
    network: Network = field(init=False)
    flop: float = field(init=False)
    """Of an image."""
    _trials: Trials = field(init=False)
    _predicted: Predicted = field(init=False)
    _state: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weights are drawn once."""
    _batch: tuple[torch.Tensor, torch.Tensor] | None = None
    """The latest: of a thousand images it takes seconds to draw."""
    _ours: dict[tuple[int, Precision], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = device_of(self.job)
        self.network = tiny(1) if self.job.rehearse else load_network("alexnet-1gpu")
        self.flop = sum(op.count.flop for op in plan(self.network, batch_size=1).ops())
        self._trials = Trials(self.job, dict(_SECONDS))
        self._predicted = Predicted.of(self.job)

    def ours(self, size: int, precision: Precision, *, fused: bool) -> Iterator[Row]:
        """Our step's row."""
        op = _NAMES[fused]
        blank = Row(
            op=op, precision=precision, batch=size,
            predicted_ms=self._predicted.ms(op, precision, size),
        )  # fmt: skip
        yield from self._trials.rows("ours", blank, partial(self._timed_ours, blank, precision))

    def _timed_ours(self, blank: Row, precision: Precision) -> Iterator[Row]:
        size, fused = blank.batch or 0, blank.op == _NAMES[True]
        planned = step_plan(size, fused=fused, network=self.network)
        executor = Executor(
            planned, device=self.device, precision=precision, graph=self.device == "cuda"
        )
        if self._state:
            executor.load_state(self._state)
        else:
            executor.initialise()
            self._state = {name: each.cpu().clone() for name, each in executor.state().items()}

        def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            losses = executor.step(images, labels, step=0, hyperparameters=STILL).losses
            assert losses is not None
            return losses

        images, labels = self._minibatch(size)
        first = step(images, labels)
        more: dict[str, object] = {"fused": fused, "planned_bytes": planned.devices[0].total_bytes}
        row = self._row(blank, timed(lambda: step(images, labels), self.device))
        if self.device == "cuda" or precision != "bf16":
            # Triton's interpreter takes bfloat16 values for whole numbers.
            more["loss"] = _same_loss(first, step(images, labels), self.network.classes)
        if self.device == "cuda":
            there = images.cuda(), labels.cuda()
            on_card = timed(lambda: step(*there), self.device).median
            more["images_on_card_ms"] = on_card
            row = replace(row, text=f"{on_card:.3f} with the images on the card")
        row = replace(row, detail={**(row.detail or {}), **more})
        if fused:
            self._ours[size, precision] = row
        yield row

    def theirs(self, size: int, precision: Precision) -> Iterator[Row]:
        """Ours again, with theirs beside it."""
        beside = [self._ours.get((size, each)) for each in _THEIRS[precision]]
        ours = [row for row in beside if row]
        if not ours:
            return
        blank = Row(op="step, compiled PyTorch", precision=precision, batch=size)
        yield from self._trials.rows(
            "theirs", blank, partial(self._timed_theirs, size, precision, ours)
        )

    def _timed_theirs(self, size: int, precision: Precision, ours: list[Row]) -> Iterator[Row]:
        step, loss = compiled_step(self.network, precision, self.device)
        images, labels = self._minibatch(size)
        step(images, labels)
        refuse_loss(float(loss().float()), self.network.classes)
        times = timed(lambda: step(images, labels), self.device)
        more = {"other_20_ms": times.low, "other_80_ms": times.high, "other_precision": precision}
        text = ""
        if self.device == "cuda":
            there = images.cuda(), labels.cuda()
            on_card = timed(lambda: step(*there), self.device).median
            more["other_images_on_card_ms"] = on_card
            text = f", theirs {on_card:.3f}"
        for row in ours:
            yield replace(
                row,
                other="compiled PyTorch",
                other_ms=times.median,
                text=row.text + text,
                detail={**(row.detail or {}), **more},
            )

    def _minibatch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self._batch is None or len(self._batch[1]) != size:
            network = self.network
            self._batch = minibatch(network.input_shape, network.classes, size, self.device)
        return self._batch

    def _row(self, blank: Row, times: Times) -> Row:
        size, seconds = blank.batch or 0, times.median / 1e3
        detail = {
            "images_per_s": round(size / seconds, 1),
            "tflop_per_s": round(self.flop * size / seconds / 1e12, 3),
        }
        return replace(
            blank, ours_ms=times.median, ours_20_ms=times.low, ours_80_ms=times.high, detail=detail
        )


def _same_loss(eager: torch.Tensor, captured: torch.Tensor, classes: int) -> float:
    """The mean loss of a step that ran op by op, and as a graph: both are of the same weights.

    Raises:
        ValueError: they are not the same, or not those of first weights.
    """
    loss, other = float(eager.mean()), float(captured.mean())
    refuse_loss(loss, classes)
    if not math.isclose(loss, other, rel_tol=1e-4):
        raise ValueError(f"the loss is {loss:.6g} op by op, and {other:.6g} as a graph")
    return loss


def compiled_step(
    network: Network, precision: Precision, device: Device
) -> tuple[Callable[[torch.Tensor, torch.Tensor], None], Callable[[], torch.Tensor]]:
    """A step of compiled PyTorch, and the latest loss. On a CPU nothing is compiled: its graph is
    traced, and runs as it is."""
    torch.backends.cudnn.benchmark = True
    allow = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow
    with torch.device(device):
        model = AlexNet(network)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(model.parameters(), 1e-6, 0.9, weight_decay=5e-4, fused=True)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, half, enabled=half is not None):
            return nn.functional.cross_entropy(model(images), labels)

    torch._dynamo.reset()
    how = {"mode": "reduce-overhead"} if device == "cuda" else {"backend": "eager"}
    compiled = torch.compile(loss_of, dynamic=False, **how)  # type: ignore[call-overload]
    latest: list[torch.Tensor] = []

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss = compiled(images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        if not latest:
            latest.append(loss.detach().clone())
        torch.autograd.backward(loss)
        optimiser.step()
        optimiser.zero_grad()

    return step, lambda: latest[-1]
