"""Images in chunks, and how they lie."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def chunks(images: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` images that cover ``images``."""
    for start in range(0, images, size):
        yield slice(start, min(start + size, images))


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """``[N, C, H, W]`` seen as ``[N, H, W, C]``."""
    return x.permute(0, 2, 3, 1)


def rows(x: torch.Tensor) -> torch.Tensor:
    """``[N, ...]`` as a matrix of one row per image: a view.

    Raises:
        RuntimeError: values do not lie so, and a copy would not be what is read or written later.
    """
    return x.view(len(x), -1)


def per_channel(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``[C]`` so that it broadcasts over ``[N, C, ...]``."""
    return values.view(-1, *(1,) * (like.ndim - 2))
