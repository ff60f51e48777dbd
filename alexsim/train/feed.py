"""Minibatches for every process: on each host, one process per part reads for the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from alexsim.data.loader import Batch, Loader
from alexsim.data.normalising import Normalising
from alexsim.data.statistics import Floats, Statistics
from alexsim.network.part import square_side
from alexsim.processes.world import World


class Feed:
    """A loader's minibatches, in every process that they are for.

    Args:
        loader: of this process's part of every minibatch.
        world: the run's processes.
        shape: of the part, ``(images, height, width, channels)``.
        held_out: images held out.
        batch_size: of whole minibatches.
    """

    def __init__(
        self,
        loader: Loader,
        world: World,
        *,
        shape: tuple[int, int, int, int],
        held_out: int,
        batch_size: int,
    ) -> None:
        self._loader, self._world, self._shape = loader, world, shape
        self._held_out, self._batch_size = held_out, batch_size

    def training(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """Minibatches of steps ``first_step`` ... ``last_step - 1``."""
        if not self._world.reads:
            return self._received(last_step - first_step)
        return self._passed_on(self._loader.training(first_step, last_step))

    def held_out(self, first: int = 0, count: int = 0) -> Iterator[Batch]:
        """Centre crops of held-out images: ``count`` from ``first`` on, around the end; 0: all."""
        if not self._world.reads:
            return self._received(-(-(count or self._held_out) // self._batch_size))
        return self._passed_on(self._loader.held_out(first, count))

    def _passed_on(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            broken = self._all_broken(batch.broken)
            if self._world.size > 1:
                self._world.shared(torch.from_numpy(batch.images))
                self._world.shared(torch.from_numpy(_drawn(batch.normalising)))
                self._world.shared(torch.from_numpy(batch.labels))
                self._world.shared(torch.tensor([batch.valid]))
            yield replace(batch, broken=broken)

    def _received(self, count: int) -> Iterator[Batch]:
        for _ in range(count):
            broken = self._all_broken(())
            images = self._world.shared(torch.empty(self._shape, dtype=torch.uint8))
            drawn = self._world.shared(torch.empty(self._shape[0], self._shape[3] + 2)).numpy()
            labels = self._world.shared(torch.empty(self._shape[0], dtype=torch.int64))
            valid = self._world.shared(torch.zeros(1, dtype=torch.int64))
            yield Batch(
                images=images.numpy(),
                normalising=self._loader.normalising(
                    noise=np.ascontiguousarray(drawn[:, 2:]),
                    factor=np.ascontiguousarray(drawn[:, 0]),
                    mirrored=drawn[:, 1] != 0,
                ),
                labels=labels.numpy(),
                valid=int(valid),
                readable=np.ones(len(labels), dtype=np.bool_),
                broken=broken,
            )

    def _all_broken(self, broken: tuple[str, ...]) -> tuple[str, ...]:
        """Those of every replica: all processes stop where too many files are broken."""
        if not self._world.any(bool(broken)):
            return ()
        processes = self._world.each({"broken": broken})
        return tuple(sorted({reason for process in processes for reason in process["broken"]}))


def _drawn(normalising: Normalising) -> Floats:
    """What differs between images: factor, whether mirrored, noise; a row of each image."""
    n = normalising
    return np.column_stack((n.factor, n.mirrored, n.noise)).astype(np.float32)


def shared_statistics(
    world: World, measured: Statistics | None, crop_side: int, channels: int
) -> Statistics:
    """The first process's mean image and principal components, in every process."""
    side = square_side(crop_side)
    shapes = {
        "mean": (side, side, channels),
        "axes": (channels, channels),
        "deviations": (channels,),
    }
    arrays = {
        name: getattr(measured, name) if measured else np.empty(shape, dtype=np.float32)
        for name, shape in shapes.items()
    }
    return Statistics(
        **{
            name: world.broadcast(torch.from_numpy(value), patient=True).numpy()
            for name, value in arrays.items()
        }
    )
