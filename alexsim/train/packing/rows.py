"""A listing as it grows: one row per image, kept as columns."""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

from alexsim.train.packing.records import ImageClass, Kind, Listing


class Row(NamedTuple):
    """One image: where it lies (see ``Listing``), its name, and its class."""

    container: str
    name: str
    wnid: str
    first: int = 0
    second: int = -1
    held_out: bool = False


class Rows:
    """Images of a source, in its order; 1.3 million take some 200 MB."""

    def __init__(self, kind: Kind, classes: tuple[ImageClass, ...] = ()) -> None:
        self.kind: Kind = kind
        self.classes = classes
        """Known from the source itself; else they follow from the rows."""
        self._containers: dict[str, int] = {}
        self._wnids: dict[str, int] = {}
        self._names: list[str] = []
        self._columns = tuple(array("q") for _ in range(4))
        self._held_out = bytearray()

    def __len__(self) -> int:
        return len(self._names)

    def add(self, row: Row) -> None:
        """Append one image."""
        container = self._containers.setdefault(row.container, len(self._containers))
        wnid = self._wnids.setdefault(row.wnid, len(self._wnids))
        values = (container, row.first, row.second, wnid)
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._held_out.append(row.held_out)
        self._names.append(row.name)

    def wnids(self) -> set[str]:
        """Every class that a row has."""
        return set(self._wnids)

    def listing(self, classes: tuple[ImageClass, ...]) -> Listing:
        """The rows as arrays, labelled by their place in ``classes``."""
        label_of = {c.wnid: label for label, c in enumerate(classes)}
        # Numbered as they came; a class's label is its place in the sorted list.
        labels = np.array([label_of[wnid] for wnid in self._wnids], dtype=np.int64)
        container, first, second, wnid = (np.array(c, dtype=np.int64) for c in self._columns)
        return Listing(
            kind=self.kind,
            containers=tuple(self._containers),
            container=container,
            first=first,
            second=second,
            label=labels[wnid],
            held_out=np.frombuffer(bytes(self._held_out), dtype=np.bool_).copy(),
            names=tuple(self._names),
            classes=classes,
        )
