"""What WordNet ids mean: from a packed set's index, or the files that come with ILSVRC."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexsim.data.packed.index import read_index
from alexsim.data.packed.pack_index import INDEX
from alexsim.data.sources.names import names_beside

_WNID = re.compile(r"n[0-9]{8}")


def words_of(
    classes: Sequence[str], near: Sequence[Path], given: Path | None = None
) -> Mapping[str, str]:
    """Names by WordNet id, as in ``tench, Tinca tinca``: from a given file, or a place near.

    A place is a packed set, whose index has names, or a folder of images, as for ``names_beside``;
    the first with any names is taken. Empty where no class is a WordNet id, or no place has names.

    Raises:
        DataError: the given file, or a place's file of names, cannot be read.
    """
    if given is not None:
        return names_beside(given.parent, given)
    if not any(_WNID.fullmatch(name) for name in classes):
        return {}
    lists = (_words_in(place) for place in near)
    return next((words for words in lists if words), {})


def _words_in(place: Path) -> Mapping[str, str]:
    if (place / INDEX).is_file():
        classes = read_index(place).classes
        return {known.wnid: known.name for known in classes if known.name}
    return names_beside(place, None)
