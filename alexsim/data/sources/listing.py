"""Every image of a source, and every image that is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Kind = Literal["files", "tar", "parquet", "arrays"]
FORMS: dict[Kind, str] = {
    "files": "class folders",
    "tar": "tars",
    "parquet": "parquet",
    "arrays": "arrays of pixels",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageClass:
    """A class: its WordNet id or folder, and its name where the source has a name for it."""

    wnid: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What claims to be an image of the source and is left out, and why."""

    file: str
    reason: str
    images: int = 1
    """More than one where the file is a folder, a tar or a parquet file."""


def left_out_lines(skipped: Sequence[Skipped]) -> list[str]:
    """What is left out, a line for each reason."""
    by_reason: dict[str, list[Skipped]] = {}
    for image in skipped:
        by_reason.setdefault(image.reason, []).append(image)
    return [
        f"{sum(image.images for image in images):,} left out: {reason}"
        f" ({'such as ' if len(images) > 1 else ''}{images[0].file})"
        for reason, images in by_reason.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every image of a source, in the source's order, as arrays of equal length.

    A place is two numbers: in ``tar`` a byte offset and a length; in ``parquet`` a row group and
    the row in it; of ``arrays`` the first is an image's number; of ``files`` neither is used.
    """

    kind: Kind
    root: str
    """The source."""
    containers: tuple[str, ...]
    """Folders of files, tars, parquet files, or files of arrays."""
    container: Integers
    first: Integers
    second: Integers
    label: Integers
    held_out: NDArray[np.bool_]
    names: tuple[str, ...]
    """Path below a source's folder, or in its tar; only for keys and messages."""
    classes: tuple[ImageClass, ...]
    side: int = 0
    """Their shorter side in pixels, where the source says one of them all; else 0."""
    skipped: tuple[Skipped, ...] = ()
    """What claims to be an image and is not among these."""
    others: int = 0
    """Files that claim to be none,"""
    other: str = ""
    """and the first of them."""

    def block(self) -> Integers:
        """Numbers of the blocks that are best read together: a row group; elsewhere an image."""
        if self.kind != "parquet":
            return np.arange(len(self.names))
        _, block = np.unique(np.stack([self.container, self.first]), axis=1, return_inverse=True)
        return block.astype(np.int64).reshape(-1)
