"""In which order training images come, and where all random draws of the data come from."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.data.choices import Order
from alexsim.data.dataset import Dataset, Sample
from alexsim.errors import DataError

_SHARDS_MIXED = 8
"""Shards whose images are mixed with each other, in order ``shards``."""


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


class Orders:
    """The order of the training images in every epoch; ``Loader`` says what the names mean.

    Raises:
        DataError: an order other than ``shuffled`` of a folder.
    """

    def __init__(self, dataset: Dataset, order: Order, seed: int) -> None:
        refuse_order(order, dataset)
        self._dataset, self._name, self._seed = dataset, order, seed
        self._known: dict[int, NDArray[np.int64]] = {}
        self._fetched: deque[str] = deque(maxlen=2 * _SHARDS_MIXED)

    def image(self, epoch: int, place: int) -> tuple[int, Sample]:
        """Which image stands in a place of an epoch, and its number among all."""
        index = int(self.of(epoch)[place])
        sample = self._dataset.train[index]
        if self._name != "shuffled":
            self._fetch(sample.path)
        return index, sample

    def of(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of all training images, in the order in which an epoch has them."""
        if epoch not in self._known:
            order = self._new(epoch)
            # A batch touches at most a few epochs: keep the newest two.
            self._known = {e: o for e, o in self._known.items() if e >= epoch - 1}
            self._known[epoch] = order
        return self._known[epoch]

    def _new(self, epoch: int) -> NDArray[np.int64]:
        count = len(self._dataset.train)
        if self._name == "file":
            return np.arange(count)
        if self._name == "shuffled":
            return generator(self._seed, "order", epoch, 0).permutation(count)
        shards = generator(self._seed, "shards", epoch, 0).permutation(len(self._dataset.shards))
        ends = np.cumsum(self._dataset.shards)
        mixed = []
        for first in range(0, len(shards), _SHARDS_MIXED):
            group = shards[first : first + _SHARDS_MIXED]
            parts = [np.arange(ends[k] - self._dataset.shards[k], ends[k]) for k in group]
            draw = generator(self._seed, "order", epoch, first)
            mixed.append(draw.permutation(np.concatenate(parts)))
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


def generator(seed: int, purpose: str, epoch: int, index: int) -> np.random.Generator:
    """Random numbers that follow from what they are for alone."""
    text = f"{seed}/{purpose}/{epoch}/{index}"
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
