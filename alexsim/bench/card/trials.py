"""Trials of a part: each in the time that it has left, and none the end of the others."""

from __future__ import annotations

import gc
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from alexsim.execute.cards import Timeline, places
from alexsim.execute.choices import Device
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row

_WARM_UPS, _REPEATS, _MOST_CALLS = 4, 9, 10
_REPEAT_MS = 50.0
_SLOWER = 1.3
"""A trial is begun if that many times what the last of its kind took is left."""
_LOSS_OFF = 1.5


def device_of(job: Job) -> Device:
    """Where a part computes.

    Raises:
        AlexsimError: there is no CUDA device.
    """
    if job.rehearse:
        # Threads that wait for one another on cores that others use take ten times the work.
        torch.set_num_threads(1)
        return "cpu"
    places("cuda", 1)
    return "cuda"


@dataclass(slots=True)
class Trials:
    """Begins what there is time for.

    ``seconds``: what a trial of each kind takes, as far as is known; what it took from then on.
    """

    job: Job
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self, kind: str, blank: Row, run: Callable[[], Iterable[Row]]) -> Iterator[Row]:
        """The rows of a trial; ``blank`` with why there are none, if there is no time or it fails.

        Args:
            kind: of the trial, in ``seconds``.
            blank: says what was to be measured.
            run: measures.
        """
        needed_s, left_s = _SLOWER * self.seconds[kind], self.job.left_s
        if needed_s > left_s and not self.job.rehearse:
            text = f"left out: it may take {needed_s:.0f} s, and {left_s:.0f} s are left"
            yield replace(blank, text=text)
            return
        began = time.monotonic()
        try:
            yield from run()
        except Exception as error:
            traceback.print_exc()
            yield replace(blank, failed=failure(error))
        finally:
            # An executor's memory goes with it, and it has cycles.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.seconds[kind] = time.monotonic() - began


def failure(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300]


@dataclass(frozen=True, slots=True)
class Times:
    """Median, 20 % and 80 % quantiles, in milliseconds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Times:
        """Of some measurements."""
        if len(values) < 2:
            return Times(*values, *values, *values)
        fifths = statistics.quantiles(values, n=5, method="inclusive")
        return Times(statistics.median(values), fifths[0], fifths[-1])


def timed(step: Callable[[], object], device: Device) -> Times:
    """Of a step among others, by a card's events; of a rehearsal's, by the clock, once.

    Several steps in a row: the host may run ahead, as it does in training.
    """
    if device == "cpu":
        return Times.of([_elapsed_ms(step, 1, device)])
    for _ in range(_WARM_UPS):
        step()
    calls = max(1, min(_MOST_CALLS, int(_REPEAT_MS / max(_elapsed_ms(step, 1, device), 1e-3))))
    return Times.of([_elapsed_ms(step, calls, device) / calls for _ in range(_REPEATS)])


def _elapsed_ms(step: Callable[[], object], calls: int, device: Device) -> float:
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(calls):
            step()
        return 1e3 * (time.perf_counter() - started)
    begin = Timeline.mark()
    for _ in range(calls):
        step()
    end = Timeline.mark()
    end.synchronize()
    return float(begin.elapsed_time(end))


def minibatch(
    shape: Sequence[int], classes: int, size: int, device: Device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images ``[N, C, H, W]``, channels last, and labels; pinned where a card reads them."""
    images = (60 * torch.randn(size, *shape)).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (size,))
    return (images.pin_memory(), labels.pin_memory()) if device == "cuda" else (images, labels)


def refuse_loss(loss: float, classes: int) -> None:
    """Of first weights it is near that of a guess; a step that computes something else is not worth
    timing.

    Raises:
        ValueError: it is another.
    """
    if not abs(loss - math.log(classes)) < _LOSS_OFF:
        raise ValueError(f"the loss is {loss:.4g}, and that of a guess {math.log(classes):.4g}")
