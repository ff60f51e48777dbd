"""CIFAR-10 and CIFAR-100 as they are distributed: pickles or plain bytes, in a folder or a tar.

An image is 3,072 bytes: 32 x 32 of red, of green and of blue (cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexsim.arrays.batch import Arrays, Batch, whole
from alexsim.arrays.pickled import byte_rows, text, unpickled
from alexsim.errors import DataError

_SIDE, _BYTES = 32, 3 * 32 * 32
_ARCHIVE = re.compile(r"cifar-100?-(python|binary)\.tar\.gz", re.IGNORECASE)


class _Form(NamedTuple):
    """One of the ways that they are distributed."""

    names: str
    """The file of the classes' names,"""
    key: str
    """and where they are in it, of a pickle; empty where they are lines."""
    files: str
    """A pattern of the files of images."""
    labels: str = ""
    """Where the labels of a pickle are."""
    label_bytes: int = 0
    """Before an image's pixels; the last is the label."""


Read = Callable[[Path], bytes]
"""Reads a file, of a folder or of a tar."""
_Parts = tuple[NDArray[np.uint8], list[int], list[str]]
"""Images as rows of bytes, their labels and names."""

_FORMS = (
    _Form("batches.meta", "label_names", r"data_batch_\d+|test_batch", "labels"),
    _Form("meta", "fine_label_names", r"train|test", "fine_labels"),
    _Form("batches.meta.txt", "", r"(data_batch_\d+|test_batch)\.bin", label_bytes=1),
    _Form("fine_label_names.txt", "", r"(train|test)\.bin", label_bytes=2),
)


def is_archive(name: str) -> bool:
    """Whether a file is called as the tars are: ``cifar-10-python.tar.gz``."""
    return _ARCHIVE.fullmatch(name) is not None


def files_of_images(names: Collection[str]) -> list[str]:
    """Of the files of a folder those that hold images, if the file of classes is among them."""
    return sorted(name for name in names if _form_of(name, names) is not None)


def read_batch(path: Path) -> Arrays:
    """Images of a file in a folder.

    Raises:
        DataError: it or the file of classes is damaged, or the two do not fit together.
    """
    form = _form_of(path.name, [each.name for each in path.parent.iterdir()])
    if form is None:
        raise DataError(f"{path}: no file of CIFAR's classes lies beside it")
    return Arrays({path: _batch(path, form, whole)}, _declared(path, form, whole))


def read_archive(path: Path) -> Arrays:
    """All that a packed tar holds.

    Raises:
        DataError: it is damaged, or holds no such files.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(whole(path)), mode="r:") as tar:
            members = {
                path / PurePosixPath(member.name): file.read()
                for member in tar
                if member.isfile() and (file := tar.extractfile(member)) is not None
            }
    except tarfile.TarError as error:
        raise DataError(f"{path}: damaged: {error}") from error
    batches: dict[Path, Batch] = {}
    names: tuple[str, ...] = ()
    for at in sorted(members):
        beside = [other.name for other in members if other.parent == at.parent]
        if (form := _form_of(at.name, beside)) is not None:
            batches[at] = _batch(at, form, members.__getitem__)
            names = _declared(at, form, members.__getitem__)
    if not batches:
        raise DataError(f"{path}: no batches of CIFAR, with a file of classes beside them")
    return Arrays(batches, names)


def _form_of(name: str, beside: Collection[str]) -> _Form | None:
    forms = (form for form in _FORMS if form.names in beside and re.fullmatch(form.files, name))
    return next(forms, None)


def _declared(path: Path, form: _Form, read: Read) -> tuple[str, ...]:
    where = path.with_name(form.names)
    data = read(where)
    if form.key:
        names = _texts(unpickled(data, str(where)).get(form.key))
    else:
        names = data.decode("utf-8", errors="surrogateescape").split()
    if not names or len(set(names)) < len(names):
        raise DataError(f"{where}: {len(names)} names of classes, {len(set(names))} different ones")
    return tuple(names)


def _texts(listed: object) -> list[str]:
    """A list's texts; none if it is no list of texts."""
    texts = [text(each) for each in listed] if isinstance(listed, list) else []
    known = [each for each in texts if each is not None]
    return known if len(known) == len(texts) else []


def _batch(path: Path, form: _Form, read: Read) -> Batch:
    names, data = _declared(path, form, read), read(path)
    planes, labels, called = (_pickled if form.key else _plain)(data, form, path)
    if len(labels) != len(planes) or len(called) != len(planes):
        raise DataError(
            f"{path}: {len(planes):,} images, {len(labels):,} labels, {len(called):,} file names"
        )
    if wrong := [label for label in labels if not 0 <= label < len(names)]:
        raise DataError(f"{path}: class {wrong[0]}, but {form.names} has {len(names)} names")
    pixels = planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Batch(pixels=pixels, classes=[names[label] for label in labels], names=called)


def _pickled(data: bytes, form: _Form, path: Path) -> _Parts:
    table = unpickled(data, str(path))
    planes, labels = byte_rows(table.get("data"), _BYTES), table.get(form.labels)
    if planes is None:
        raise DataError(f"{path}: `data` is no array of bytes, {_BYTES:,} for an image")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: {form.labels!r} is no list of whole numbers")
    return planes, labels, _texts(table.get("filenames")) or _numbers(len(planes))


def _plain(data: bytes, form: _Form, path: Path) -> _Parts:
    record = form.label_bytes + _BYTES
    if len(data) % record:
        raise DataError(
            f"{path}: {len(data):,} bytes are not whole images of {record:,}: cut off, or another"
            " file"
        )
    rows = np.frombuffer(data, dtype=np.uint8).reshape(-1, record)
    labels = rows[:, form.label_bytes - 1].tolist()
    return rows[:, form.label_bytes :], labels, _numbers(len(rows))


def _numbers(count: int) -> list[str]:
    return [str(index) for index in range(count)]
