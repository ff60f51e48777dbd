"""Minibatches: which file, which crop, in which order, normalised how.

Everything random is drawn from (seed, purpose, epoch, image), so a run can stop and resume
anywhere, with any number of workers.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.data.augmentation import Preparation
from alexsim.data.choices import Order, Views
from alexsim.data.dataset import Dataset, Sample
from alexsim.data.images import TASK_IMAGES, Crop, Pixels, load_crops
from alexsim.data.statistics import Floats, Statistics
from alexsim.errors import DataError
from alexsim.network.part import square_side

_View = tuple[int, int, bool]
"""Top and left of a crop, and whether it is mirrored."""

_BATCHES_AHEAD = 2
_SHARDS_MIXED = 8
"""Shards whose images are mixed with each other, in order ``shards``."""
_FEWEST_BROKEN, _MOST_BROKEN_SHARE = 10, 0.1
_SAME_CROP_IMAGES = 32
"""Images that share one crop and mirror in 2012."""
_CHANNEL_MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
_CHANNEL_STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)
"""ImageNet's channel means and deviations for pixels 0...1, as the articles give them."""


def refuse_order(order: Order, dataset: Dataset) -> None:
    """A folder's files can only be shuffled.

    Raises:
        DataError: they are to come as they lie, which is class by class.
    """
    if order != "shuffled" and not dataset.shards:
        raise DataError(
            f"--order {order} needs a packed set (alexsim data pack): the files of"
            f" {dataset.root} lie class by class"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One minibatch on the host. ``images``: ``[N, H, W, C]`` float32."""

    images: Floats
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
    noise: Floats
    noisy: tuple[bool, ...]
    """Whether an image's epoch has noisy colours; images held out never have."""
    valid: int
    needs_readable: bool
    """Whether a minibatch without a readable image is refused."""


_Begun = tuple[_Task, list[Future[tuple[Pixels, list[str | None]]]]]


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
        refuse_order(order, dataset)
        share = batch_size // part[1]
        self._places = range(part[0] * share, (part[0] + 1) * share)
        self._dataset, self._statistics, self._preparation = dataset, statistics, preparation
        self._batch_size, self._crop_side, self._seed = batch_size, crop_side, seed
        self._pool = pool
        self._margin = square_side(crop_side) - crop_side
        middle = self._margin // 2
        inner = slice(middle, middle + crop_side)
        # The centre of the mean image is subtracted wherever the crop lies, as in 2012.
        self._mean = statistics.mean[inner, inner]
        end = self._margin
        places = [(middle, middle), (0, 0), (0, end), (end, 0), (end, end)]
        self._views = [(*place, mirror) for mirror in (False, True) for place in places]
        self._order_name: Order = order
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._fetched: deque[str] = deque(maxlen=2 * _SHARDS_MIXED)

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
        # A thread draws tasks, another waits for them and normalises; the main thread computes.
        with ThreadPoolExecutor(1) as drawer, ThreadPoolExecutor(1) as assembler:
            waiting: deque[Future[Batch]] = deque()
            for draw in tasks:
                drawn = drawer.submit(self._begin, draw)
                waiting.append(assembler.submit(self._assemble, drawn))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _begin(self, draw: Callable[[], _Task]) -> _Begun:
        task, channels = draw(), self._mean.shape[2]
        return task, [
            self._pool.submit(
                load_crops, task.crops[i : i + TASK_IMAGES], self._crop_side, channels
            )
            for i in range(0, len(task.crops), TASK_IMAGES)
        ]

    def _training_task(self, step: int) -> _Task:
        count = len(self._dataset.train)
        labels, crops, noise, noisy = [], [], [], []
        for place_in_batch in self._places:
            position = step * self._batch_size + place_in_batch
            epoch, place = divmod(position, count)
            index = int(self._order(epoch)[place])
            sample = self._dataset.train[index]
            if self._order_name != "shuffled":
                self._fetch(sample.path)
            # 2012 draws once for consecutive images; the paper for each.
            shared = self._preparation.augmentation == "2012"
            group = position // _SAME_CROP_IMAGES if shared else index
            draw = self._draw("crop", 0 if shared else epoch, group)
            top, left = (int(v) for v in draw.integers(0, self._margin + 1, 2))
            mirror = bool(draw.integers(2))
            labels.append(sample.label)
            crops.append(crop_of(sample, top, left, mirror))
            noise.append(self._colour_noise(epoch, index))
            noisy.append(self._preparation.noisy(epoch + 1))
        return _Task(
            labels=tuple(labels),
            crops=tuple(crops),
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
            crops=tuple(crop_of(samples[image], *views[view]) for image, view in filled),
            noise=np.zeros((len(filled), channels), dtype=np.float32),
            noisy=(False,) * len(filled),
            valid=len(shown),
            needs_readable=needs_readable,
        )

    def _colour_noise(self, epoch: int, index: int) -> Floats:
        s = self._statistics
        if not self._preparation.noisy(epoch + 1):
            return np.zeros(len(s.deviations), dtype=np.float32)
        z = self._draw("colour", epoch, index).standard_normal(len(s.deviations), np.float32)
        if self._preparation.augmentation == "2012":
            along = 0.1 * s.deviations * z
        else:
            # The paper multiplies by eigenvalues: of pixels 0...1, else they would be thousands.
            along = 0.1 * z * (s.deviations / 255) ** 2 * 255
        return np.asarray(s.axes @ along, dtype=np.float32)

    def _assemble(self, begun: Future[_Begun]) -> Batch:
        try:
            task, futures = begun.result()
            loaded = [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise DataError("a decoding worker died, perhaps for want of memory") from error
        pixels = np.concatenate([part for part, _ in loaded])
        failures = [failure for _, part in loaded for failure in part]
        good = [i for i, failure in enumerate(failures) if failure is None]
        if task.needs_readable and not good:
            raise DataError(f"no image of a whole batch can be read; the first: {failures[0]}")
        sources = [_nearest(i, good or [i], len(failures)) for i in range(len(failures))]
        images = np.empty(pixels.shape, dtype=np.float32)
        # One image at a time, so that each pass finds it in the cache.
        for index, source in enumerate(sources):
            images[index] = pixels[source]
            self._normalise(images[index], task.noise[index], noisy=task.noisy[index])
        return Batch(
            images=images,
            labels=np.array([task.labels[i] for i in sources], dtype=np.int64),
            valid=task.valid,
            readable=np.array([failure is None for failure in failures]),
            broken=tuple(sorted({failure for failure in failures if failure is not None})),
        )

    def _normalise(self, image: Floats, noise: Floats, *, noisy: bool) -> None:
        # Over whole rows: three channels at a time would take numpy ten times as long.
        width, rows = image.shape[1], image.reshape(len(image), -1)
        if noise.any():
            rows += np.tile(noise, width)
        if self._preparation.normalisation == "channels":
            channels = image.shape[2]
            mean = _CHANNEL_MEAN if channels == 3 else _CHANNEL_MEAN.mean()
            std = _CHANNEL_STD if channels == 3 else _CHANNEL_STD.mean()
            rows -= np.tile(255 * mean, width)
            rows /= np.tile(255 * std, width)
            return
        image -= self._mean
        if noisy and self._preparation.augmentation == "2012":
            # Keeps the deviation of noisy images near that of clean images (as released).
            image *= np.float32(1 / 1.1)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            order = self._new_order(epoch)
            # A batch touches at most a few epochs: keep the newest two.
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = order
        return self._orders[epoch]

    def _new_order(self, epoch: int) -> NDArray[np.int64]:
        count = len(self._dataset.train)
        if self._order_name == "file":
            return np.arange(count)
        if self._order_name == "shuffled":
            return self._draw("order", epoch, 0).permutation(count)
        shards = self._draw("shards", epoch, 0).permutation(len(self._dataset.shards))
        ends = np.cumsum(self._dataset.shards)
        mixed = []
        for first in range(0, len(shards), _SHARDS_MIXED):
            group = shards[first : first + _SHARDS_MIXED]
            parts = [np.arange(ends[k] - self._dataset.shards[k], ends[k]) for k in group]
            mixed.append(self._draw("order", epoch, first).permutation(np.concatenate(parts)))
        return np.concatenate(mixed)

    def _fetch(self, path: str) -> None:
        """Have the system read a whole shard, in one go, as its first image is wanted."""
        if path in self._fetched:
            return
        self._fetched.append(path)
        # A shard that is gone is for the worker to name.
        if Path(path).is_file() and hasattr(os, "posix_fadvise"):
            with Path(path).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _draw(self, purpose: str, epoch: int, index: int) -> np.random.Generator:
        text = f"{self._seed}/{purpose}/{epoch}/{index}"
        key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
        return np.random.Generator(np.random.Philox(key=key))


def crop_of(sample: Sample, top: int, left: int, mirror: bool) -> Crop:
    """What to cut out of an image, wherever its bytes lie."""
    return Crop(
        path=sample.path,
        offset=sample.offset,
        length=sample.length,
        crc=sample.crc,
        top=top,
        left=left,
        mirror=mirror,
    )


def _nearest(index: int, good: list[int], count: int) -> int:
    """The readable image that stands in for ``index``: itself, or the next around the batch."""
    return min(good, key=lambda other: (other - index) % count)
