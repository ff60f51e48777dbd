"""Images onto a device: floating ones as they are, bytes normalised where they land."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from alexsim.data.normalising import Normalising
from alexsim.execute.context import Launch, StepContext

Tensor = torch.Tensor
_CHUNK_BYTES = 1 << 19
"""Pixels at a time: they stay in the cache from one pass to the next, and a card needs no more
memory for bytes."""


class Operands(NamedTuple):
    """``Normalising`` of some images as tensors of the host, in the order of ``cpu.upload``."""

    mean: Tensor
    deviation: Tensor | None
    noise: Tensor
    factor: Tensor
    mirrored: Tensor


def operands(normalising: Normalising, part: slice = slice(None)) -> Operands:
    """What is done to some images of a minibatch; shares its memory."""
    deviation = normalising.deviation
    return Operands(
        mean=torch.from_numpy(normalising.mean),
        deviation=None if deviation is None else torch.from_numpy(deviation),
        noise=torch.from_numpy(normalising.noise[part]),
        factor=torch.from_numpy(normalising.factor[part]),
        mirrored=torch.from_numpy(normalising.mirrored[part]),
    )


def normalise(pixels: Tensor, images: Tensor, made: Operands) -> None:
    """Write ``(pixels + noise - mean) / deviation * factor`` into ``images``.

    Every operation is rounded by itself and none is a sum: the bits are the same on every device.
    On a CPU one thread does it: workers decode beside it, and threads that wait for each other
    after every pass took three times the processor's time, and longer.

    Args:
        pixels: ``[N, C, H, W]``, uint8, on the host.
        images: ``[N, C, H, W]``, floating, on any device; channels-last is fastest.
        made: what is done to them, see ``Normalising``.
    """
    place, width = images.device, images.shape[3]
    mean = made.mean.to(place).permute(2, 0, 1)
    noise, factor = made.noise.to(place), made.factor.to(place)
    mirrored = made.mirrored.to(place)
    noisy, scaled = bool(made.noise.any()), bool((made.factor != 1).any())
    deviation = None if made.deviation is None else _along(made.deviation.to(place)[None], width)
    chunk = max(1, _CHUNK_BYTES // pixels[0].numel())
    with _one_thread():
        for first in range(0, len(pixels), chunk):
            part = slice(first, first + chunk)
            landed, out = pixels[part].to(place, non_blocking=True), images[part]
            if made.mirrored[part].any():
                turned, turn = landed.flip(3), mirrored[part].view(-1, 1, 1, 1)
                landed = turned if made.mirrored[part].all() else torch.where(turn, turned, landed)
            out.copy_(landed)
            if noisy:
                out.add_(_along(noise[part], width))
            out.sub_(mean)
            if deviation is not None:
                out.div_(deviation)
            if scaled:
                out.mul_(factor[part].view(-1, 1, 1, 1))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _along(values: Tensor, width: int) -> Tensor:
    """``[n, C]`` as rows of images, ``[n, C, 1, W]``: three channels at a time would take long."""
    count, channels = values.shape
    return values.repeat(1, width).view(count, width, channels).permute(0, 2, 1).unsqueeze(2)


Write = Callable[[Tensor, Tensor, Operands], None]
"""As ``normalise``."""


def upload(
    images: Tensor, labels: Tensor | None, first_image: int, write: Write = normalise
) -> Launch:
    """The function that fills a device's buffers with a minibatch.

    Args:
        images: ``[N, C, H, W]``.
        labels: ``[N]``, where the device needs them.
        first_image: of a minibatch of which the device takes a part at a time.
        write: what normalises.
    """
    count = len(images)

    def run(context: StepContext) -> None:
        whole = len(context.images) > count
        part = slice(first_image, first_image + count) if whole else slice(None)
        if context.normalising is None:
            images.copy_(context.images[part], non_blocking=True)
        else:
            write(context.images[part], images, operands(context.normalising, part))
        if labels is not None:
            labels.copy_(context.labels, non_blocking=True)

    return run
