"""MNIST's IDX files and CIFAR: what comes back, and the line that refuses the rest."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from alexsim.data.images import Piece, read_square
from alexsim.data.packed.pack import pack, source_of
from alexsim.data.packed.pack_index import PackSettings
from alexsim.data.packed.samples import packed_dataset
from alexsim.data.sources.arrays import read_images
from alexsim.data.sources.source import SourceChoices, list_source
from alexsim.errors import DataError

NAMES = ("plane", "car", "bird")


class Split(NamedTuple):
    pixels: np.ndarray
    """``[n, height, width, channels]``"""
    labels: np.ndarray


class Drawn(NamedTuple):
    train: Split
    test: Split


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def mnist(drawn: Drawn, root: Path, ending: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", drawn.train), ("t10k", drawn.test)):
        for kind, array in (("images-idx3", split.pixels[..., 0]), ("labels-idx1", split.labels)):
            data = idx(array)
            path = root / f"{name}-{kind}-ubyte{ending}"
            path.write_bytes(gzip.compress(data) if ending else data)
    return root


class Python2(pickle._Pickler):
    """Writes text as Python 2 did, whose ``str`` was bytes."""

    def _bytes(self, data: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(data)) + data)  # type: ignore[attr-defined]

    dispatch = {**pickle._Pickler.dispatch, bytes: _bytes}  # noqa: RUF012


def python2(value: object) -> bytes:
    out = io.BytesIO()
    Python2(out, protocol=2).dump(value)
    return out.getvalue().replace(b"numpy._core", b"numpy.core")


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def batch(split: Split, key: bytes, first: int = 0) -> dict[bytes, Any]:
    names = [b"image_%d.png" % (first + i) for i in range(len(split.labels))]
    return {b"data": planes(split.pixels), key: split.labels.tolist(), b"filenames": names}


def cifar10(drawn: Drawn, write: Callable[[object], bytes] = python2) -> dict[str, bytes]:
    """Files by their names; training images are in two batches."""
    half = len(drawn.train.labels) // 2
    parts = [Split(*(a[s] for a in drawn.train)) for s in (slice(half), slice(half, None))]
    return {
        "batches.meta": write({b"label_names": [name.encode() for name in NAMES]}),
        "data_batch_1": write(batch(parts[0], b"labels")),
        "data_batch_2": write(batch(parts[1], b"labels", half)),
        "test_batch": write(batch(drawn.test, b"labels")),
    }


def python3(value: object) -> bytes:
    """As somebody writes it anew: text keys, for Python 2."""
    assert isinstance(value, dict)
    return pickle.dumps({key.decode(): each for key, each in value.items()}, protocol=2)


def cifar100(drawn: Drawn) -> dict[str, bytes]:
    coarse = {b"coarse_labels": [0], b"coarse_label_names": [b"all"]}
    return {
        "meta": python2({b"fine_label_names": [name.encode() for name in NAMES], **coarse}),
        "train": python2({**coarse, **batch(drawn.train, b"fine_labels")}),
        "test": python2({**coarse, **batch(drawn.test, b"fine_labels")}),
        "file.txt~": b"",
    }


def rows(split: Split, before: int) -> bytes:
    columns = [np.full((len(split.labels), 1), 7, np.uint8)] * (before - 1)
    return np.hstack([*columns, split.labels[:, None], planes(split.pixels)]).tobytes()


def binary10(drawn: Drawn) -> dict[str, bytes]:
    return {
        "batches.meta.txt": "\n".join((*NAMES, "", "")).encode(),
        "data_batch_1.bin": rows(drawn.train, 1),
        "test_batch.bin": rows(drawn.test, 1),
    }


def binary100(drawn: Drawn) -> dict[str, bytes]:
    return {
        "fine_label_names.txt": "\n".join(NAMES).encode(),
        "coarse_label_names.txt": b"all\n",
        "train.bin": rows(drawn.train, 2),
        "test.bin": rows(drawn.test, 2),
    }


def in_folder(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def in_tar(files: dict[str, bytes], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(f"cifar/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@st.composite
def sets(draw: st.DrawFn, side: int | None = None, channels: int = 1) -> Drawn:
    """Images of one size, every class among those of training."""
    height, width = (side or draw(st.integers(1, 9)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def split(least: int) -> Split:
        count = draw(st.integers(least, 7))
        shape = count, height, width, channels
        labels = np.concatenate([np.arange(3), rng.integers(0, 3, 7)])[-count:]
        labels = rng.permutation(np.arange(count) % 3) if least == 3 else labels
        return Split(rng.integers(0, 256, shape, np.uint8), labels.astype(np.uint8))

    return Drawn(split(3), split(1))


def listed(source: Path) -> dict[bool, list[tuple[str, bytes]]]:
    """Of each split the class and pixels of every image, in the source's order."""
    listing = list_source(source)
    images: dict[bool, list[tuple[str, bytes]]] = {False: [], True: []}
    for index in range(len(listing.names)):
        image = source_of(listing, index)
        (data,) = read_images(image.path, [image.first])
        with Image.open(io.BytesIO(data)) as opened:
            pixels = opened.tobytes()
        name = listing.classes[image.label].wnid
        images[bool(listing.held_out[index])].append((name, pixels))
    return images


def wanted(drawn: Drawn, names: tuple[str, ...]) -> dict[bool, list[tuple[str, bytes]]]:
    return {
        split is drawn.test: [
            (names[label], pixels.tobytes())
            for pixels, label in zip(split.pixels, split.labels, strict=True)
        ]
        for split in drawn
    }


@pytest.mark.parametrize("ending", ["", ".gz"])
@given(data=st.data())
@settings(deadline=None)
def test_idx_comes_back(
    ending: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    drawn = data.draw(sets())
    source = mnist(drawn, tmp_path_factory.mktemp("idx") / "MNIST" / "raw", ending)
    assert listed(source.parent) == wanted(drawn, ("0", "1", "2"))
    assert list_source(source).side == min(drawn.train.pixels.shape[1:3])


FORMS: dict[str, Callable[[Drawn, Path], Path]] = {
    "pickles": lambda drawn, root: in_folder(cifar10(drawn), root / "cifar-10-batches-py"),
    "pickles of Python 3": lambda drawn, root: in_folder(cifar10(drawn, python3), root),
    "a tar of pickles": lambda drawn, root: in_tar(cifar10(drawn), root / "cifar-10-python.tar.gz"),
    "CIFAR-100": lambda drawn, root: in_folder(cifar100(drawn), root / "cifar-100-python"),
    "bytes": lambda drawn, root: in_folder(binary10(drawn), root / "cifar-10-batches-bin"),
    "CIFAR-100 of bytes": lambda drawn, root: in_folder(binary100(drawn), root),
    "a tar of bytes": lambda drawn, root: in_tar(binary10(drawn), root / "cifar-10-binary.tar.gz"),
}


@pytest.mark.parametrize("form", FORMS)
@given(drawn=sets(side=32, channels=3))
@settings(max_examples=4, deadline=None)
def test_cifar_comes_back(
    form: str, drawn: Drawn, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("cifar")
    source = FORMS[form](drawn, root)
    right = wanted(drawn, NAMES)
    # The classes keep the order of the list: car before bird.
    assert listed(source) == listed(root) == right
    known = {NAMES[label] for label in drawn.train.labels}
    assert [c.wnid for c in list_source(root).classes] == [n for n in NAMES if n in known]


SMALL = Drawn(
    *(
        Split(
            np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8),
            (np.arange(count) % 3).astype(np.uint8),
        )
        for count in (4, 3)
    )
)
TINY = Drawn(*(Split(split.pixels[:, :2, :3, :1], split.labels) for split in SMALL))


def refused(source: Path, **choices: Any) -> str:
    with pytest.raises(DataError) as caught:
        list_source(source, SourceChoices(**choices))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("kind", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_idx_that_is_cut_off_anywhere_is_named(ending: str, kind: str, tmp_path: Path) -> None:
    path = mnist(TINY, tmp_path, ending) / f"{kind}{ending}"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert path.name in refused(tmp_path)


@pytest.mark.parametrize("form", ["pickles", "a tar of pickles", "bytes", "a tar of bytes"])
@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_cifar_that_is_cut_off_or_damaged_is_named(
    form: str, data: st.DataObject, tmp_path: Path
) -> None:
    source = FORMS[form](SMALL, tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and "meta" not in p.name]
    path = data.draw(st.sampled_from(sorted(files)))
    whole = path.read_bytes()
    length = data.draw(st.integers(1, len(whole) - 1))
    path.write_bytes(whole[:length])
    # Bytes alone do not say how many images there are.
    if path.suffix != ".bin" or length % 3073:
        assert path.name in refused(source)
    broken = bytearray(whole)
    broken[length] ^= data.draw(st.integers(1, 255))
    path.write_bytes(broken)
    # Where it still is a set, pixels or labels are others.
    with suppress(DataError):
        list_source(source)
    path.write_bytes(whole)


class Call:
    """What a pickle may ask for."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.what = function, given

    def __reduce__(self) -> tuple[Any, Any]:
        return self.what


@pytest.mark.parametrize(
    "call",
    [
        Call(exec, "import sys; sys.modules['called'] = 1"),
        Call(np.fromfile, "/dev/null"),
        Call(np.ndarray, (1 << 60,)),
        Call(getattr, "", "join"),
    ],
    ids=["builtins", "numpy's", "an array as large as it likes", "getattr"],
)
def test_a_pickle_calls_nothing(call: Call, tmp_path: Path) -> None:
    files = cifar10(SMALL)
    for name in ("data_batch_1", "batches.meta"):
        source = in_folder({**files, name: python2({b"data": call})}, tmp_path)
        message = refused(source)
        assert str(tmp_path / name) in message
        # That of arrays is a name it knows, and a record of what was asked for.
        assert ("which is not read" in message) == (call.what[0] is not np.ndarray)
    assert "called" not in sys.modules


def test_what_does_not_fit_together_is_named(tmp_path: Path) -> None:
    short = Split(TINY.train.pixels, TINY.train.labels[:-1])
    assert "4 images, but 3 in train-labels" in refused(mnist(Drawn(short, TINY.test), tmp_path))
    source = mnist(TINY, tmp_path)
    (source / "train-labels-idx1-ubyte").write_bytes(idx(TINY.train.pixels[..., 0]))
    assert "magic number is 0x00000803; bytes of 1 axes have 0x00000801" in refused(source)
    (source / "train-labels-idx1-ubyte").unlink()
    assert "its labels, train-labels-idx1-ubyte, do not lie beside it" in refused(source)
    (mnist(TINY, source) / "t10k-images-idx3-ubyte").unlink()
    (source / "train-images-idx3-ubyte").rename(source / "t10k-images-idx3-ubyte")
    (source / "train-labels-idx1-ubyte").rename(source / "t10k-labels-idx1-ubyte")
    assert "no training images, only test" in refused(source)
    files = cifar10(SMALL)
    wrong = {b"data": planes(SMALL.test.pixels), b"labels": [0, 1]}
    for table, message in (
        (wrong, "3 images, 2 labels, 3 file names"),
        ({**wrong, b"labels": [0, 1, 3]}, "class 3, but batches.meta has 3 names"),
        ({**wrong, b"labels": [0, 1, -1]}, "class -1, but batches.meta has 3 names"),
        ({**wrong, b"labels": b"012"}, "'labels' is no list of whole numbers"),
        ({**wrong, b"data": planes(SMALL.test.pixels)[:, 1:]}, "no array of bytes, 3,072 for"),
        ({**wrong, b"data": planes(SMALL.test.pixels).astype(float)}, "no array of bytes"),
        ([1], "a pickled list; expected a dict"),
    ):
        source = in_folder({**files, "test_batch": python2(table)}, tmp_path / "cifar")
        assert f"{source / 'test_batch'}: " in refused(source)
        assert message in refused(source)


def test_of_two_sets_one_is_read(tmp_path: Path) -> None:
    """What is there packed and unpacked is read once; two sets are not mixed."""
    mnist(TINY, tmp_path / "MNIST" / "raw")
    mnist(TINY, tmp_path / "MNIST" / "raw", ".gz")
    listing = list_source(tmp_path)
    assert len(listing.names) == 7
    assert {s.file: s.images for s in listing.skipped} == {
        f"MNIST/raw/{name}-images-idx3-ubyte.gz": 0 for name in ("train", "t10k")
    }
    mnist(TINY, tmp_path / "FashionMNIST" / "raw")
    assert "both have t" in refused(tmp_path)
    rules = (("FashionMNIST/*", "none"),)
    assert len(list_source(tmp_path, SourceChoices(splits=rules)).names) == 7
    assert "there is no x in" in refused(tmp_path, splits=(("x", "none"), *rules))
    two = tmp_path / "two"
    FORMS["a tar of pickles"](SMALL, two)
    FORMS["pickles"](SMALL, two)
    assert [s.file for s in list_source(two).skipped] == ["cifar-10-python.tar.gz"]
    FORMS["bytes"](SMALL, two)
    assert "both have" in refused(two)
    (two / "a.tar").write_bytes(b"")
    assert "give one form" in refused(two)


@pytest.mark.parametrize("form", ["idx", "a tar of pickles"])
def test_packed_images_are_those_of_the_file_but_for_jpeg(
    form: str, tmp_path: Path, packing_pool: ProcessPoolExecutor
) -> None:
    """At their own side, or at that which was asked for."""
    y, x = np.mgrid[0:32, 0:32]
    ramps = np.stack([[x * 5 + i, y * 5, 255 - x - y] for i in range(7)]).transpose(0, 2, 3, 1)
    splits = (ramps[:4].astype(np.uint8), ramps[4:].astype(np.uint8))
    drawn = Drawn(*(Split(s, np.arange(len(s), dtype=np.uint8) % 3) for s in splits))
    if form == "idx":
        drawn = Drawn(*(Split(s.pixels[:, :28, :28, :1], s.labels) for s in drawn))
        source = mnist(drawn, tmp_path / "source")
    else:
        source = FORMS[form](drawn, tmp_path / "source")
    order = PackSettings(side=0, order="file")
    index = pack(source, tmp_path / "set", order, workers=1)
    side, channels = drawn.train.pixels.shape[2:]
    assert index.settings.side == side
    assert dict(index.images) == {"train": 4, "val": 3}
    assert pack(source, tmp_path / "set", order, workers=1) == index
    dataset = packed_dataset(tmp_path / "set")
    for split, samples in zip(drawn, (dataset.train, dataset.held_out), strict=True):
        for pixels, label, sample in zip(*split, samples, strict=True):
            piece = Piece(
                path=sample.path, offset=sample.offset, length=sample.length, crc=sample.crc
            )
            square = read_square(piece, side, channels)
            assert np.abs(square.astype(int) - pixels).mean() < 4
            assert dataset.classes[sample.label] == ("012" if form == "idx" else NAMES)[label]
    larger = pack(source, tmp_path / "larger", PackSettings(side=40), workers=1)
    assert larger.settings.side == 40
