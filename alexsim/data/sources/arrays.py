"""MNIST's IDX files and CIFAR's batches as a source: raw pixels, with labels beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from alexsim.arrays.batch import Arrays
from alexsim.arrays.files import read_arrays, set_of, unpacked_of
from alexsim.data.sources.rows import Row, Rows
from alexsim.data.sources.splits import SourceSplit, SplitRules, refuse_idle_rules, split_of_file
from alexsim.errors import DataError

_KEPT = 8
"""Files that a worker keeps: those of a CIFAR, of which it reads images in any order."""
_UNPACKED = "it lies there unpacked too"


def list_arrays(
    paths: Sequence[Path], source: Path, rules: SplitRules, progress: Callable[[int], None]
) -> Rows:
    """Every image of the files, with its class; its place is its number in its file.

    Raises:
        DataError: a file is damaged or does not fit to its labels, or two files are one split.
    """
    rows, of_split, sides = Rows(kind="arrays", source=source), dict[SourceSplit, Path](), set()
    contents = {}
    for path in paths:
        if unpacked_of(path, paths):
            rows.skip(os.path.relpath(path, source), _UNPACKED, 0)
        else:
            contents[path] = read_arrays(path)
    refuse_idle_rules(rules, source, [at for arrays in contents.values() for at in arrays.batches])
    for path, arrays in contents.items():
        rows.declared = arrays.declared or rows.declared
        for at, batch in arrays.batches.items():
            split = split_of_file(rules, source, at)
            if split != "none" and of_split.setdefault(split, set_of(path)) != set_of(path):
                raise DataError(
                    f"{of_split[split]} and {set_of(path)} both have {split} images: give one, or"
                    " leave files of the other out with --split"
                )
            for place, (name, label) in enumerate(zip(batch.names, batch.classes, strict=True)):
                rows.add(Row(str(at), name, label, place, -1, split))
            sides.add(batch.side)
            progress(len(rows))
    rows.side = sides.pop() if len(sides) == 1 else 0
    return rows


def read_images(container: str, places: Sequence[int]) -> Iterator[bytes]:
    """Images of a file, by their numbers, as files of the same pixels.

    Raises:
        DataError: the file is damaged.
        OSError: it cannot be read.
    """
    path = Path(container)
    # What is in a tar has a path as if the tar were a folder.
    file = next((above for above in path.parents if above.is_file()), path)
    batch = _kept(file).batches[path]
    return (batch.encoded(place) for place in places)


@lru_cache(maxsize=_KEPT)
def _kept(file: Path) -> Arrays:
    return read_arrays(file)
