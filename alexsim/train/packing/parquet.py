"""Hugging Face's parquet: a column of ``{bytes, path}`` and one of class numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alexsim.errors import DataError
from alexsim.train.packing.records import ImageClass
from alexsim.train.packing.rows import Row, Rows

_IMAGES, _LABELS = ("image", "img", "jpg"), ("label", "labels", "cls", "fine_label")


def list_parquet(paths: Sequence[Path], found: Callable[[int], None]) -> Rows:
    """Every labelled row, in the files' order; unlabelled ones (-1) are test images, left out.

    Raises:
        DataError: a file is none, or has no image or label column.
    """
    rows = Rows(kind="parquet")
    names: tuple[str, ...] = ()
    # Where there is a validation split, test images are not wanted too.
    validation = any(_split(path) == "val" for path in paths)
    for path in paths:
        if _split(path) == "test" and validation:
            continue
        file, image, label = _open(path)
        names = names or _class_names(file, label)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[f"{image}.path", label])
            labels = table.column(label).to_pylist()
            for place, (value, name) in enumerate(zip(labels, _paths(table, image), strict=True)):
                if value is None or value < 0:
                    continue
                where = f"{path.stem}/{name or f'{group}-{place}'}"
                held_out = _split(path) != "train"
                rows.add(Row(str(path), where, str(value), group, place, held_out))
            found(len(rows))
    last = max((int(wnid) for wnid in rows.wnids()), default=-1)
    rows.classes = tuple(
        ImageClass(wnid=str(n), name=names[n] if n < len(names) else "") for n in range(last + 1)
    )
    return rows


def read_rows(path: str, group: int) -> Iterator[bytes | None]:
    """The images of one row group, encoded as they are; None where a row has none.

    Raises:
        DataError: the file is damaged.
    """
    file, image, _ = _open(Path(path))
    try:
        column = file.read_row_group(group, columns=[f"{image}.bytes"]).column(image)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: row group {group} cannot be read: {error}") from error
    for chunk in column.chunks:
        for value in chunk.field("bytes"):
            yield value.as_py()


def _open(path: Path) -> tuple[pq.ParquetFile, str, str]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a parquet file, or a damaged one: {error}") from error
    names = file.schema_arrow.names
    image = next((name for name in _IMAGES if name in names), None)
    label = next((name for name in _LABELS if name in names), None)
    if image is None or label is None:
        raise DataError(f"{path}: columns {', '.join(names)}; expected `image` and `label`")
    kind = file.schema_arrow.field(image).type
    if not pa.types.is_struct(kind) or {"bytes"} - {field.name for field in kind}:
        raise DataError(f"{path}: column {image!r} is {kind}; expected a struct of bytes and path")
    return file, image, label


def _paths(table: Any, image: str) -> list[str]:
    if image not in table.column_names:
        return [""] * table.num_rows
    return [(value or {}).get("path") or "" for value in table.column(image).to_pylist()]


def _split(path: Path) -> str:
    """Hugging Face names files ``train-00000-of-00294.parquet``, or folders ``train``."""
    for part in (path.stem.lower(), path.parent.name.lower()):
        for start, split in (("train", "train"), ("val", "val"), ("test", "test")):
            if part.startswith(start):
                return split
    return "train"


def _class_names(file: pq.ParquetFile, label: str) -> tuple[str, ...]:
    metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return tuple(str(name) for name in features[label]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
