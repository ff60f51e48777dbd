"""A run's steps: data in, a step, what is logged, tests on the way, checkpoints."""

from __future__ import annotations

import contextlib
import statistics as stats
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict

import torch

from alexsim.data.interrupt import Interrupt
from alexsim.data.loader import Batch, Loader
from alexsim.errors import RunError, TrainingError
from alexsim.execute.context import Hyperparameters, StepContext
from alexsim.execute.plan_executor import PlanExecutor
from alexsim.plan.plan import Plan
from alexsim.profile.nvml import Sample, Sampler
from alexsim.trace import Trace
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.engine import Engine
from alexsim.train.feed import Feed
from alexsim.train.progress import Progress, sizes_of
from alexsim.train.settings import (
    Evaluation,
    HeldOutLine,
    LayerSize,
    PartEvaluation,
    StepLine,
    StepReport,
    TrainResult,
    ValidationLine,
    Watcher,
)

_TIMED_STEPS = 10
"""Steps of a run that are timed op by op, the second and those behind it."""


class Run:
    """The state of one run's loop."""

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        loader: Loader,
        progress: Progress,
        directory: RunDirectory,
        watch: Watcher,
        interrupt: Interrupt,
    ) -> None:
        self._settings, self._engine, self._world = engine.settings, engine, engine.world
        self._feed, self._loader = feed, loader
        self._progress, self._directory = progress, directory
        self._watch, self._interrupt = watch, interrupt
        self._hyper = Hyperparameters()
        errors = [line.validation.top1 for line in _validations(directory)]
        self._errors: list[float] = self._world.each({"errors": errors})[0]["errors"]
        """Of the validations so far: what a recipe's plateau goes by."""
        self._broken: dict[str, None] = {}
        self._saved = -1
        self._trace = Trace(spans=())
        self._timed_plan: Plan | None = None
        self._sampler = Sampler(self._sampled)
        self._images = 0
        self.stopping = False
        """Whether a process was asked to end: all do, after the same step."""

    def steps(self, done: int) -> None:
        """Train from ``done`` steps to the last."""
        settings = self._settings
        self._saved = done if done else -1
        batches = self._feed.training(done, settings.steps)
        with self._watched(), contextlib.closing(_timed(batches)) as timed:
            for number, (wait_s, batch) in enumerate(timed):
                self._enter(done)
                self._record(number)
                started = time.perf_counter()
                context = self._step(batch, done)
                done += 1
                self._images += settings.batch_size
                step_s = wait_s + time.perf_counter() - started
                self._log(context, done, step_s, wait_s)
                tested = self._progress.tests_after(done)
                if tested:
                    self._validate(done)
                self.stopping = self._world.any(self._interrupt.asked)
                last = done == settings.steps or self.stopping
                if last or tested or done % settings.checkpoint_every == 0:
                    self._save(done)
                if self.stopping:
                    break
        self._stop_timing()
        if self._saved != done:
            self._save(done)

    def _enter(self, done: int) -> None:
        """Rates and plan of the next step."""
        self._hyper = self._progress.hyperparameters(done, self._errors)
        stage = self._progress.stage(done)
        if stage.frozen != self._engine.frozen:
            # Timed steps are of one plan.
            self._stop_timing()
        self._engine.enter(stage)

    @property
    def _executor(self) -> PlanExecutor:
        return self._engine.executor

    def _validate(self, done: int) -> None:
        """Test some held-out images, and write down how large weights and increments are."""
        first, count = self._progress.tested(done)
        evaluation = self._tested(self._feed.held_out(first, count))
        state = self._executor.state()  # by all processes together
        sizes: dict[str, LayerSize] = {}
        if self._world.first:
            sizes = sizes_of(state, self._progress.recipe.optimizer, self._hyper)
        epoch = self._progress.epoch(done - 1)
        tested = PartEvaluation(**asdict(evaluation), epoch=epoch, images=count)
        line = ValidationLine(step=done, validation=tested, layers=sizes)
        self._directory.append_metrics(line)
        self._errors.append(evaluation.top1)
        self._watch.validation(line)

    def _record(self, number: int) -> None:
        """Time the second step of this process and some behind it; the first faults pages in."""
        if self._settings.graph:
            return  # a replayed graph has no ops to time
        if number == 1:
            self._executor.record(True)
            self._timed_plan = self._executor.plan
        elif number == _TIMED_STEPS + 1:
            self._stop_timing()

    def _stop_timing(self) -> None:
        if self._timed_plan is not None and not self._trace.spans:
            self._trace = self._executor.trace()
            self._executor.record(False)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Watch the cards, where there are any."""
        if self._settings.device != "cuda":
            yield
            return
        with self._sampler as sampler:
            if sampler.why:
                self._watch.note(f"no telemetry: {sampler.why}")
            yield

    def _sampled(self, sample: Sample) -> None:
        """Keep a sample; a full disk is reported where metrics are written."""
        with contextlib.suppress(RunError):
            self._directory.append_telemetry(sample)

    def evaluate(self) -> Evaluation:
        """Loss and errors on the held-out images, centre crops."""
        result = self._tested(self._feed.held_out())
        step = self._settings.steps
        self._directory.append_metrics(HeldOutLine(step=step, held_out=result))
        return result

    def _tested(self, batches: Iterator[Batch]) -> Evaluation:
        losses: list[torch.Tensor] = []
        top1: list[torch.Tensor] = []
        top5: list[torch.Tensor] = []
        for batch in batches:
            images, labels = _tensors(batch)
            context = self._executor.evaluate(images, labels, normalising=batch.normalising)
            self._count_broken(batch)
            for values, figures in (
                (losses, context.losses),
                (top1, context.top1),
                (top5, context.top5),
            ):
                assert figures is not None
                values.append(figures[: batch.valid])
        image_losses = torch.cat(losses)
        return Evaluation(
            loss=image_losses.mean().item(),
            top1=torch.cat(top1).mean().item(),
            top5=torch.cat(top5).mean().item(),
            nan_images=int(image_losses.isnan().sum()),
        )

    def result(self, held_out: Evaluation | None) -> TrainResult | None:
        """Everything the run directory and the devices know; in the first process."""
        executor = self._executor
        peaks, process_bytes = executor.peak_bytes, executor.process_bytes
        exchanged, reduced = executor.crossed_bytes_per_step()
        if not self._world.first:
            return None
        records = [line for line in self._directory.metrics() if isinstance(line, StepLine)]
        size = self._settings.batch_size
        # The first step faults the arena's pages in; it would be an outlier, not the rate.
        timed = records[1:] or records
        total = sum(r.step_s for r in timed)
        energy = self._sampler.energy
        return TrainResult(
            settings=self._settings,
            steps=len(records),
            losses=tuple(r.loss for r in records),
            held_out=held_out,
            validations=tuple(_validations(self._directory)),
            images_per_s=size / stats.median(r.step_s for r in timed),
            compute_images_per_s=size / stats.median(r.step_s - r.data_wait_s for r in timed),
            data_share=sum(r.data_wait_s for r in timed) / total,
            devices=tuple(
                (name, self._settings.budget_bytes, peak) for name, peak in peaks.items()
            ),
            process_bytes=process_bytes,
            exchanged_bytes_per_step=exchanged,
            reduced_bytes_per_step=reduced,
            trace=self._trace,
            timed_plan=self._timed_plan,
            cards=self._sampler.names,
            joules_per_image=energy.joules / self._images if energy and self._images else None,
            broken=tuple(self._broken),
            interrupted=self.stopping,
            run_dir=str(self._directory.path),
        )

    def _step(self, batch: Batch, done: int) -> StepContext:
        images, labels = _tensors(batch)
        self._count_broken(batch)
        context = self._executor.step(
            images,
            labels,
            step=done,
            hyperparameters=self._hyper,
            normalising=batch.normalising,
        )
        assert context.losses is not None
        if not bool(torch.isfinite(context.losses).all()):
            raise self._diverged("the loss is not a number", done + 1)
        return context

    def _diverged(self, what: str, step: int) -> TrainingError:
        place = self._executor.first_not_finite() or "the loss"
        newest = self._directory.newest_checkpoint()
        kept = f"; the last good checkpoint is {newest.name}" if newest else ""
        return TrainingError(
            f"{what} at step {step}, first in {place}"
            f" (weight rate {self._hyper.weight_rate:g}){kept}"
        )

    def _log(self, context: StepContext, done: int, step_s: float, wait_s: float) -> None:
        assert context.losses is not None
        assert context.top1 is not None
        assert context.top5 is not None
        line = StepLine(
            step=done,
            loss=context.losses.mean().item(),
            top1=context.top1.mean().item(),
            top5=context.top5.mean().item(),
            step_s=step_s,
            data_wait_s=wait_s,
        )
        self._directory.append_metrics(line)
        self._watch.step(StepReport(**asdict(line), steps=self._settings.steps))

    def _save(self, done: int) -> None:
        state = self._executor.state()
        # A finite loss may still have moved a weight beyond float32: never keep such a state.
        bad = any(not bool(torch.isfinite(tensor).all()) for tensor in state.values())
        if self._world.any(bad):
            raise self._diverged("a weight is no longer a number", done)
        self._directory.save_checkpoint(done, state)
        self._saved = done

    def _count_broken(self, batch: Batch) -> None:
        for failure in batch.broken:
            if failure not in self._broken:
                self._broken[failure] = None
                self._watch.note(f"skipped a broken file: {failure}")
        self._loader.refuse_many_broken(len(self._broken))


def _validations(directory: RunDirectory) -> list[ValidationLine]:
    return [line for line in directory.metrics() if isinstance(line, ValidationLine)]


def _timed(batches: Iterator[Batch]) -> Generator[tuple[float, Batch], None, None]:
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield time.perf_counter() - started, batch


def _tensors(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch.images).permute(0, 3, 1, 2), torch.from_numpy(batch.labels)
