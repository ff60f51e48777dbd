"""Minibatches: which file, which crop, in which order, to be normalised how.

Everything random is drawn from (seed, purpose, epoch, image), so a run can stop and resume
anywhere, with any number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from alexsim.data.augmentation import Preparation
from alexsim.data.choices import Order, Views
from alexsim.data.dataset import Dataset, Sample
from alexsim.data.images import TASK_IMAGES, Crop, cut_into
from alexsim.data.normalising import Normalising
from alexsim.data.order import Orders, generator
from alexsim.data.slots import Lease, Pixels, Slots
from alexsim.data.statistics import Floats, Statistics
from alexsim.errors import DataError
from alexsim.network.part import square_side

_View = tuple[int, int, bool]
"""Top and left of a crop, and whether it is mirrored."""

_BATCHES_AHEAD = 2
_FEWEST_BROKEN, _MOST_BROKEN_SHARE = 10, 0.1
_SAME_CROP_IMAGES = 32
"""Images that share one crop and mirror in 2012."""
_CHANNEL_MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
_CHANNEL_STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)
"""ImageNet's channel means and deviations for pixels 0...1, as the articles give them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One minibatch on the host."""

    images: Pixels
    """``[N, H, W, C]``, as decoded and cut out; shared memory that others fill once the last view
    of it is gone."""
    normalising: Normalising
    """What is still to be done to them."""
    labels: NDArray[np.int64]
    valid: int
    """Images of the whole minibatch that count; the rest repeats them to fill it."""
    readable: NDArray[np.bool_]
    """Of each image, whether its file could be read; else it is a neighbour in the batch."""
    broken: tuple[str, ...]
    """Why files could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    labels: tuple[int, ...]
    crops: tuple[Crop, ...]
    mirrored: tuple[bool, ...]
    noise: Floats
    noisy: tuple[bool, ...]
    """Whether an image's epoch has noisy colours; images held out never have."""
    valid: int
    needs_readable: bool
    """Whether a minibatch without a readable image is refused."""


_Begun = tuple[_Task, list[Future[list[str | None]]], Lease]


class Loader:
    """Minibatches of a dataset, decoded ahead in worker processes.

    ``order``: ``shuffled`` draws every epoch's order over all images; ``shards`` draws the order
    of the shards and mixes the images of eight at a time, so that a slow disk reads whole files;
    ``file`` goes through the shards as they lie, in every epoch, as in 2012.

    ``part``: which of how many equal parts of every minibatch this loader loads.

    Raises:
        DataError: an order other than ``shuffled`` of a folder: its files lie class by class.
    """

    def __init__(  # noqa: PLR0913 - what a minibatch is made of
        self,
        dataset: Dataset,
        statistics: Statistics,
        preparation: Preparation,
        *,
        batch_size: int,
        crop_side: int,
        seed: int,
        pool: ProcessPoolExecutor,
        order: Order = "shuffled",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._orders = Orders(dataset, order, seed)
        share = batch_size // part[1]
        self._places = range(part[0] * share, (part[0] + 1) * share)
        self._dataset, self._statistics, self._preparation = dataset, statistics, preparation
        self._batch_size, self._crop_side, self._seed = batch_size, crop_side, seed
        self._pool = pool
        self._margin = square_side(crop_side) - crop_side
        middle = self._margin // 2
        inner = slice(middle, middle + crop_side)
        # The centre of the mean image is subtracted wherever the crop lies, as in 2012.
        self._mean = np.ascontiguousarray(statistics.mean[inner, inner])
        channels, self._deviation = self._mean.shape[2], None
        if preparation.normalisation == "channels":
            mean = _CHANNEL_MEAN if channels == 3 else _CHANNEL_MEAN.mean()
            std = _CHANNEL_STD if channels == 3 else _CHANNEL_STD.mean()
            self._mean = np.broadcast_to(255 * mean, self._mean.shape).copy()
            self._deviation = np.broadcast_to(255 * std, channels).copy()
        self._slots = Slots((len(self._places), crop_side, crop_side, channels))
        end = self._margin
        places = [(middle, middle), (0, 0), (0, end), (end, 0), (end, end)]
        self._views = [(*place, mirror) for mirror in (False, True) for place in places]

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Minibatches of steps ``first_step`` ... ``last_step - 1``."""
        return self._ahead(partial(self._training_task, s) for s in range(first_step, last_step))

    def held_out(self, first: int = 0, count: int = 0) -> Iterator[Batch]:
        """Centre crops of held-out images: ``count`` from ``first`` on, around the end; 0: all."""
        held_out = self._dataset.held_out
        samples = [held_out[(first + i) % len(held_out)] for i in range(count or len(held_out))]
        return self._tests(samples, self._views[:1], needs_readable=True)

    def views(self, samples: Sequence[Sample], count: Views = 1) -> Iterator[Batch]:
        """The centre crop of every image, or all its ten views one after the other.

        Ten are the centre and the four corners, and their mirrors (paper, section 4.1).
        """
        return self._tests(samples, self._views[:count], needs_readable=False)

    def _tests(
        self, samples: Sequence[Sample], views: Sequence[_View], *, needs_readable: bool
    ) -> Iterator[Batch]:
        size, total = self._batch_size, len(samples) * len(views)
        # Views of one image stand side by side: it is decoded once for its views in a batch.
        draw = partial(self._test_task, samples, views, needs_readable=needs_readable)
        return self._ahead(
            partial(draw, range(first, min(first + size, total))) for first in range(0, total, size)
        )

    def refuse_many_broken(self, broken: int) -> None:
        """Stop a run whose data is damaged rather than sprinkled with broken files.

        Raises:
            DataError: over a tenth of the files, and ten or more, could not be read.
        """
        files = len(self._dataset.train) + len(self._dataset.held_out)
        if broken >= _FEWEST_BROKEN and broken > _MOST_BROKEN_SHARE * files:
            raise DataError(f"{broken} of {files} files cannot be read: too many to go on")

    def _ahead(self, tasks: Iterator[Callable[[], _Task]]) -> Iterator[Batch]:
        # A thread draws tasks while the main thread computes.
        with ThreadPoolExecutor(1) as drawer:
            begun: deque[Future[_Begun]] = deque()
            try:
                for draw in tasks:
                    begun.append(drawer.submit(self._begin, draw))
                    if len(begun) > _BATCHES_AHEAD:
                        yield self._assemble(*begun.popleft().result())
                while begun:
                    yield self._assemble(*begun.popleft().result())
            finally:
                for given_up in begun:
                    given_up.add_done_callback(_cancel)

    def _begin(self, draw: Callable[[], _Task]) -> _Begun:
        task, lease = draw(), self._slots.take()
        futures = []
        try:
            for first in range(0, len(task.crops), TASK_IMAGES):
                crops = task.crops[first : first + TASK_IMAGES]
                side, channels = self._mean.shape[1:]
                future = self._pool.submit(cut_into, lease.place, first, crops, side, channels)
                # Whatever becomes of the minibatch, its slot is not free before its workers are.
                future.add_done_callback(partial(_done_with, lease))
                futures.append(future)
        except BrokenProcessPool as error:
            raise _dead_worker() from error
        return task, futures, lease

    def _training_task(self, step: int) -> _Task:
        count = len(self._dataset.train)
        labels, crops, mirrored, noise, noisy = [], [], [], [], []
        drawn: dict[int, _View] = {}
        for place_in_batch in self._places:
            position = step * self._batch_size + place_in_batch
            epoch, place = divmod(position, count)
            index, sample = self._orders.image(epoch, place)
            # 2012 draws once for consecutive images; the paper for each.
            shared = self._preparation.augmentation == "2012"
            group = position // _SAME_CROP_IMAGES if shared else index
            if not (shared and group in drawn):
                draw = generator(self._seed, "crop", 0 if shared else epoch, group)
                top, left = (int(v) for v in draw.integers(0, self._margin + 1, 2))
                mirror = self._preparation.augmentation != "crops" and bool(draw.integers(2))
                drawn[group] = top, left, mirror
            top, left, mirror = drawn[group]
            labels.append(sample.label)
            crops.append(crop_of(sample, top, left))
            mirrored.append(mirror)
            noise.append(self._colour_noise(epoch, index))
            noisy.append(self._preparation.noisy(epoch + 1))
        return _Task(
            labels=tuple(labels),
            crops=tuple(crops),
            mirrored=tuple(mirrored),
            noise=np.stack(noise),
            noisy=tuple(noisy),
            valid=self._batch_size,
            needs_readable=True,
        )

    def _test_task(
        self, samples: Sequence[Sample], views: Sequence[_View], shown: range, needs_readable: bool
    ) -> _Task:
        # The plan's batch is fixed: repeat images to fill the last minibatch.
        filled = [divmod(shown[i % len(shown)], len(views)) for i in self._places]
        channels = self._mean.shape[2]
        return _Task(
            labels=tuple(samples[image].label for image, _ in filled),
            crops=tuple(crop_of(samples[image], *views[view][:2]) for image, view in filled),
            mirrored=tuple(views[view][2] for _, view in filled),
            noise=np.zeros((len(filled), channels), dtype=np.float32),
            noisy=(False,) * len(filled),
            valid=len(shown),
            needs_readable=needs_readable,
        )

    def _colour_noise(self, epoch: int, index: int) -> Floats:
        s = self._statistics
        if not self._preparation.noisy(epoch + 1):
            return np.zeros(len(s.deviations), dtype=np.float32)
        z = generator(self._seed, "colour", epoch, index).standard_normal(
            len(s.deviations), np.float32
        )
        if self._preparation.augmentation == "2012":
            along = 0.1 * s.deviations * z
        else:
            # The paper multiplies by eigenvalues: of pixels 0...1, else they would be thousands.
            along = 0.1 * z * (s.deviations / 255) ** 2 * 255
        return np.asarray(s.axes @ along, dtype=np.float32)

    def _assemble(
        self, task: _Task, futures: list[Future[list[str | None]]], lease: Lease
    ) -> Batch:
        try:
            failures = [failure for future in futures for failure in future.result()]
        except BrokenProcessPool as error:
            raise _dead_worker() from error
        good = [i for i, failure in enumerate(failures) if failure is None]
        if task.needs_readable and not good:
            raise DataError(f"no image of a whole batch can be read; the first: {failures[0]}")
        images, sources = lease.pixels, list(range(len(failures)))
        for index, failure in enumerate(failures):
            if failure is not None:
                sources[index] = _nearest(index, good or [index], len(failures))
                images[index] = images[sources[index]] if good else 0
        factor = np.ones(len(sources), dtype=np.float32)
        if self._deviation is None and self._preparation.augmentation == "2012":
            # Keeps the deviation of noisy images near that of clean images (as released).
            factor[list(task.noisy)] = 1 / 1.1
        return Batch(
            images=images,
            normalising=self.normalising(
                noise=task.noise,
                factor=factor,
                mirrored=np.array([task.mirrored[i] for i in sources]),
            ),
            labels=np.array([task.labels[i] for i in sources], dtype=np.int64),
            valid=task.valid,
            readable=np.array([failure is None for failure in failures]),
            broken=tuple(sorted({failure for failure in failures if failure is not None})),
        )

    def normalising(
        self, *, noise: Floats, factor: Floats, mirrored: NDArray[np.bool_]
    ) -> Normalising:
        """What is done to images of this training set, given what was drawn for each."""
        return Normalising(
            mean=self._mean,
            deviation=self._deviation,
            noise=noise,
            factor=factor,
            mirrored=mirrored,
        )


def _cancel(begun: Future[_Begun]) -> None:
    """Spare workers what nobody waits for; what they have begun they end."""
    if not begun.cancelled() and begun.exception() is None:
        for future in begun.result()[1]:
            future.cancel()


def _done_with(_lease: Lease, _future: Future[list[str | None]]) -> None:
    """Nothing: a future keeps its callbacks, and so the slot, as long as its pool keeps it."""


def _dead_worker() -> DataError:
    return DataError("a decoding worker died, perhaps for want of memory")


def crop_of(sample: Sample, top: int, left: int) -> Crop:
    """What to cut out of an image, wherever its bytes lie."""
    return Crop(
        path=sample.path,
        offset=sample.offset,
        length=sample.length,
        crc=sample.crc,
        top=top,
        left=left,
    )


def _nearest(index: int, good: list[int], count: int) -> int:
    """The readable image that stands in for ``index``: itself, or the next around the batch."""
    return min(good, key=lambda other: (other - index) % count)
