"""Two virtual GPUs of 3 GB on one card: exchanges over both transports, and caps by processes.

``alexnet-2012``, 128 images, float32. First in one process, op by op and as one CUDA graph; then a
process per virtual GPU (``--strict``), whose budget the card's allocator keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from alexsim.bench.card.strict import BUDGET, Processes, two_columns, used_bytes
from alexsim.bench.card.trials import Times, Trials, device_of, minibatch, refuse_loss, timed
from alexsim.execute.choices import Device
from alexsim.execute.context import STILL
from alexsim.execute.executor import Executor
from alexsim.plan.choices import TRANSPORTS
from alexsim.plan.plan import Plan
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.card.predicted import Predicted
from alexsim_kernels.bench.row import Row

NEEDS = ("numpy", "torch", "triton")
_SECONDS = {"process": 8.0, "processes": 12.0}


def rows(job: Job) -> Iterator[Row]:
    """Of each transport, then of the caps."""
    device, predicted = device_of(job), Predicted.of(job)
    trials = Trials(job, dict(_SECONDS))
    # They import PyTorch while this process measures.
    with Processes(device, rehearse=job.rehearse) as processes:
        for transport in TRANSPORTS:
            made = two_columns(transport=transport, rehearse=job.rehearse)
            op = f"two GPUs, {transport}"
            known = predicted.ms(op, "fp32", made.batch_size)
            blank = Row(op=op, precision="fp32", batch=made.batch_size, predicted_ms=known)
            yield from trials.rows("process", blank, partial(_in_one_process, blank, made, device))
        blank = Row(op="two GPUs, strict", precision="fp32", batch=made.batch_size)
        used = used_bytes(torch.device(device, 0)) if device == "cuda" else 0
        yield from trials.rows(
            "processes", blank, lambda: _strict(blank, processes, max(job.left_s - 1, 5), used)
        )


def _in_one_process(blank: Row, made: Plan, device: Device) -> Iterator[Row]:
    transport, batch = made.transport, made.batch_size
    before = _allocated(device)
    steps = _Steps(made, device, graph=False)
    loss = steps.loss()
    refuse_loss(loss, made.network.classes)
    times = timed(steps, device)
    yield _beside(blank, times, loss=loss)
    exchanged = steps.executor.transport.exchanged_bytes / steps.count
    expected = made.exchanged_bytes
    yield _figure(f"exchanged, {transport}", batch, exchanged, expected, exact=True)
    planned = sum(each.total_bytes for each in made.devices)
    if device == "cuda":
        cards = range(torch.cuda.device_count())
        peak = sum(map(torch.cuda.max_memory_allocated, cards)) - before
    else:
        peak = sum(steps.executor.peak_bytes.values())
    yield _figure(f"peak memory, {transport}", batch, peak, planned, budget_bytes=2 * BUDGET)
    alone = timed(partial(_exchange, steps.executor), device)
    yield Row(
        op=f"exchange rate, {transport}",
        batch=batch,
        ours_ms=alone.median,
        value=round(expected / alone.median / 1e6, 3),
        unit="GB/s",
        text="each byte crosses twice" if transport == "host" else "",
        detail={"bytes": expected, "share_of_step": round(alone.median / times.median, 4)},
    )
    if {runner.place for runner in steps.executor.runners} == {torch.device("cuda", 0)}:
        captured = replace(blank, op=f"{blank.op}, captured", predicted_ms=None)
        yield _beside(captured, timed(_Steps(made, device, graph=True), device))


class _Steps:
    """The same step, as often as it is called."""

    def __init__(self, made: Plan, device: Device, *, graph: bool) -> None:
        self.executor = Executor(made, device=device, budget_bytes=BUDGET, graph=graph)
        self.executor.initialise()
        network = made.network
        self._batch = minibatch(network.input_shape, network.classes, made.batch_size, device)
        self.count = 0

    def __call__(self) -> torch.Tensor | None:
        self.count += 1
        images, labels = self._batch
        return self.executor.step(images, labels, step=0, hyperparameters=STILL).losses

    def loss(self) -> float:
        """A step's mean loss."""
        losses = self()
        assert losses is not None
        return float(losses.mean())


def _beside(blank: Row, times: Times, **detail: object) -> Row:
    return replace(
        blank,
        ours_ms=times.median,
        ours_20_ms=times.low,
        ours_80_ms=times.high,
        detail=detail or None,
    )


def _exchange(executor: Executor) -> None:
    """All exchanges of a step, and nothing else."""
    memory = {runner.device.name: runner.memory for runner in executor.runners}
    transport = executor.transport
    for exchange in executor.plan.posted:
        transport.post(exchange, memory[exchange.source].buffer(exchange.source_buffer))
        transport.pull(exchange, memory[exchange.target].buffer(exchange.target_buffer))


def _strict(blank: Row, processes: Processes, limit_s: float, used: int) -> Iterator[Row]:
    """Rows of what the processes tell; ``used``: bytes of the card that were taken before."""
    records: list[dict[str, Any]] = []
    batch = blank.batch
    for record in processes.go(limit_s):
        gpu = f"gpu{record['rank']}"
        if "failed" in record:
            yield replace(blank, op=f"{blank.op}, {gpu}", failed=record["failed"])
        elif "refused" in record:
            op, said = f"half the budget, {gpu}", record["refused"]
            yield (
                Row(op=op, batch=batch, text=f"refused by {said}")
                if said
                else Row(op=op, batch=batch, failed="was not refused")
            )
        else:
            records.append(record)
            yield from _of_a_process(blank, gpu, record)
    cards = [record["card_used_bytes"] for record in records if record["card_used_bytes"]]
    if cards:
        yield _figure(
            "both processes, by the card", batch, max(cards) - used, 2 * BUDGET, within=True
        )


def _of_a_process(blank: Row, gpu: str, record: dict[str, Any]) -> Iterator[Row]:
    batch = blank.batch
    if gpu == "gpu0":
        yield replace(
            blank, ours_ms=record["step_ms"], ours_20_ms=record["step_20_ms"],
            ours_80_ms=record["step_80_ms"], detail=record,
        )  # fmt: skip
        yield _figure(
            "exchanged, strict", batch, record["exchanged_bytes"], record["expected_bytes"],
            exact=True,
        )  # fmt: skip
    yield _figure(
        f"peak memory, strict, {gpu}", batch, record["peak_bytes"], record["planned_bytes"],
        budget_bytes=BUDGET, reserved_bytes=record["reserved_bytes"],
    )  # fmt: skip
    op = f"process, by the driver, {gpu}"
    if record["driver_bytes"] is not None:
        yield _figure(op, batch, record["driver_bytes"], BUDGET, within=True)
    elif record["card_used_bytes"] is not None:
        yield Row(op=op, batch=batch, text="the driver does not know the process by its id")


def _figure(
    op: str,
    batch: int | None,
    value: float,
    expected: float,
    *,
    exact: bool = False,
    within: bool = False,
    **detail: object,
) -> Row:
    """Bytes, and those expected; failed where they must be these, or within these, and are not."""
    off = (exact and value != expected) or (within and value > expected)
    failed = f"{value:.0f} bytes, and {expected:.0f} expected" if off else ""
    return Row(
        op=op, batch=batch, value=value, unit="bytes", expected=expected, failed=failed,
        detail=detail or None,
    )  # fmt: skip


def _allocated(device: Device) -> int:
    """Bytes on all cards; from here on their peaks are counted anew."""
    if device == "cpu":
        return 0
    cards = range(torch.cuda.device_count())
    for card in cards:
        torch.cuda.reset_peak_memory_stats(card)
    return sum(map(torch.cuda.memory_allocated, cards))
