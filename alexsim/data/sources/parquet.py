"""Hugging Face's parquet: a column of ``{bytes, path}`` and a column of class numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alexsim.data.sources.classes import class_of_label
from alexsim.data.sources.rows import Row, Rows
from alexsim.data.sources.splits import SplitRules, refuse_idle_rules, split_by_rules, split_of_file
from alexsim.errors import DataError, reason_of

_IMAGES, _LABELS = ("image", "img", "jpg"), ("label", "labels", "cls", "fine_label")


def list_parquet(
    paths: Sequence[Path], source: Path, rules: SplitRules, progress: Callable[[int], None]
) -> Rows:
    """Every row with its class: a number is a place in the file's list of names.

    Raises:
        DataError: a file is no parquet file, lacks an image or label column, or has another list
            of names.
    """
    refuse_idle_rules(rules, source, paths)
    rows = Rows(kind="parquet", source=source)
    first: Path | None = None
    for path in paths:
        if split_by_rules(rules, source, path) == "none":
            rows.skip(path.relative_to(source).as_posix(), "left out by --split", 0)
            continue
        split = split_of_file(rules, source, path)
        file, image, label = _open(path)
        names = _class_names(file, label)
        if first is not None and names != rows.declared:
            raise DataError(f"{path}: its list of class names is not that of {first}")
        rows.declared, first = names, first or path
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[f"{image}.path", label])
            labels = table.column(label).to_pylist()
            for place, (value, name) in enumerate(zip(labels, _paths(table, image), strict=True)):
                image_class = _class_of(path, label, value, names)
                where = name or f"{group}-{place}"
                rows.add(Row(str(path), where, image_class, group, place, split))
            progress(len(rows))
    return rows


def _class_of(path: Path, column: str, value: object, names: Sequence[str]) -> str:
    """A label as the name of its class; empty for what has none: null, and numbers below 0."""
    if value is None:
        return ""
    if isinstance(value, str):
        return class_of_label(value)
    if isinstance(value, bool) or not isinstance(value, int):
        kind = type(value).__name__
        raise DataError(f"{path}: column {column!r} has {kind}s; expected whole numbers or text")
    if value < 0:
        return ""
    if names and value >= len(names):
        raise DataError(f"{path}: class {value}, but its list has {len(names)} names")
    return names[value] if names else str(value)


def holds_images(path: Path) -> bool:
    """Whether a parquet file has a column of images; other tables may lie beside a set."""
    try:
        _open(path)
    except DataError:
        return False
    return True


def read_rows(path: str, group: int) -> Iterator[bytes | None]:
    """The images of a row group, encoded as they are; None where a row has no image.

    Raises:
        DataError: the file is damaged.
    """
    file, image, _ = _open(Path(path))
    try:
        column = file.read_row_group(group, columns=[f"{image}.bytes"]).column(image)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: row group {group} cannot be read: {reason_of(error)}") from error
    for chunk in column.chunks:
        for value in chunk.field("bytes"):
            yield value.as_py()


def _open(path: Path) -> tuple[pq.ParquetFile, str, str]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: not a parquet file, or a damaged one: {reason_of(error)}"
        ) from error
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


def _class_names(file: pq.ParquetFile, label: str) -> tuple[str, ...]:
    """The class names that the file declares; empty if it declares none, or a name twice."""
    metadata = file.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        listed = features[label]["names"]
        if isinstance(listed, dict):
            # By number, as in {"0": "cat"}.
            listed = [listed[number] for number in sorted(listed, key=int)]
        names = tuple(str(name).strip() for name in listed)
    except (KeyError, TypeError, ValueError):
        return ()
    return names if len(set(names)) == len(names) and all(names) else ()
