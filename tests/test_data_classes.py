"""One rule for classes and splits: the same set in every form has the same classes and images."""

from __future__ import annotations

import io
import itertools
import json
import string
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import write_weights

from alexsim.data.discover import discover, split_of
from alexsim.data.packed.pack import pack
from alexsim.data.packed.pack_index import PackSettings
from alexsim.data.sources import names as names_module
from alexsim.data.sources.classes import ordered
from alexsim.data.sources.listing import Listing
from alexsim.data.sources.source import SourceChoices, list_source
from alexsim.errors import DataError
from alexsim.evaluate.evaluate import answers, class_names, errors
from alexsim.evaluate.setup import Setup
from alexsim.train.weights import load_weights


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    return out.getvalue()


JPEG = jpeg()
CONTENTS: dict[str, bytes] = {}
"""Of images that are not just ``JPEG``, by stem."""
NUMBER = itertools.count()


@dataclass(frozen=True)
class Drawn:
    """Classes, and of each the stems of its training and validation images."""

    train: dict[str, list[str]]
    val: dict[str, list[str]]


def data_of(stem: str) -> bytes:
    return CONTENTS.get(stem, JPEG)


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def rows_of(split: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, stem) for name in sorted(split) for stem in split[name]]


def splits_of(drawn: Drawn) -> list[tuple[str, list[tuple[str, str]]]]:
    splits = (("train", rows_of(drawn.train)), ("val", rows_of(drawn.val)))
    return [(name, rows) for name, rows in splits if rows]


def folders(drawn: Drawn, root: Path) -> Path:
    for split, rows in splits_of(drawn):
        for name, stem in rows:
            (root / split / name).mkdir(parents=True, exist_ok=True)
            (root / split / name / f"{stem}.jpg").write_bytes(data_of(stem))
    return root


def plain_tar(drawn: Drawn, root: Path) -> Path:
    files = [
        (f"set/{split}/{name}/{stem}.jpg", data_of(stem))
        for split, rows in splits_of(drawn)
        for name, stem in rows
    ]
    write_tar(root / "all.tar", files)
    return root / "all.tar"


def tar_of_tars(drawn: Drawn, root: Path) -> Path:
    for split, rows in splits_of(drawn):
        inner = []
        for name, group in itertools.groupby(rows, key=lambda row: row[0]):
            write_tar(root / "inner", [(f"{stem}.JPEG", data_of(stem)) for _, stem in group])
            inner.append((f"{name}.tar", (root / "inner").read_bytes()))
        (root / "inner").unlink()
        write_tar(root / f"ILSVRC2012_img_{split}.tar", inner[::-1])
    return root


def webdataset(drawn: Drawn, root: Path) -> Path:
    for split, rows in splits_of(drawn):
        files = []
        for name, stem in rows:
            files += [(f"x/{stem}.CLS", f"{name}\n".encode()), (f"x/{stem}.JPG", data_of(stem))]
        write_tar(root / split / "000000.tar", files)
    return root


def flat_validation(drawn: Drawn, root: Path) -> Path:
    folders(Drawn(train=drawn.train, val={}), root)
    lines = ["ImageId,PredictionString"]
    for name, stem in rows_of(drawn.val):
        (root / "val").mkdir(exist_ok=True)
        (root / "val" / f"{stem}.jpg").write_bytes(data_of(stem))
        lines.append(f"{stem},{name}")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines))
    return root


def text_parquet(drawn: Drawn, root: Path) -> Path:
    return parquet(drawn, root, number=False)


def parquet(drawn: Drawn, root: Path, *, number: bool = True) -> Path:
    names = sorted({*drawn.train, *drawn.val, "a class without images"})
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if number else {}
    root.mkdir(parents=True)
    for split, rows in splits_of(drawn):
        images = [{"bytes": data_of(stem), "path": f"{stem}.jpg"} for _, stem in rows]
        labels = [names.index(name) if number else name for name, _ in rows]
        table = pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet")
    return root


FORMS: list[Callable[[Drawn, Path], Path]] = [
    folders, plain_tar, tar_of_tars, webdataset, flat_validation, parquet, text_parquet,
]  # fmt: skip

LETTERS = st.text("ab0123 -_.é\N{GREEK SMALL LETTER ALPHA}" + string.ascii_uppercase, min_size=1)
NAMES = LETTERS.filter(
    lambda name: name.strip() == name and name[0] != "." and not name.isdecimal()
)
NUMBERS = st.integers(0, 10**9).map(str)
PADDED = st.integers(0, 99).map(lambda number: f"{number:03}")


@st.composite
def sets(draw: st.DrawFn) -> Drawn:
    kind = draw(st.sampled_from([NAMES, NUMBERS, PADDED]))
    classes = draw(st.lists(kind, min_size=2, max_size=4, unique=True))
    with_validation = draw(st.booleans())
    count = itertools.count()

    def stems(least: int) -> list[str]:
        return [f"{next(count):04}" for _ in range(draw(st.integers(least, 11)))]

    train = {name: stems(1) for name in classes}
    val = {name: stems(0) for name in classes} if with_validation else {}
    return Drawn(train=train, val={name: images for name, images in val.items() if images})


def held(listing: Listing) -> dict[tuple[str, str], bool]:
    """Of each image its class and stem, and whether it is held out."""
    return {
        (listing.classes[label].wnid, Path(name).stem): bool(held_out)
        for label, name, held_out in zip(
            listing.label, listing.names, listing.held_out, strict=True
        )
    }


@given(drawn=sets())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_same_set_in_every_form_has_the_same_classes_and_splits(
    drawn: Drawn, tmp_path: Path
) -> None:
    seen = {}
    for form in FORMS:
        listing = list_source(form(drawn, tmp_path / f"{next(NUMBER)}"))
        assert listing.skipped == (), form.__name__
        order = [image_class.wnid for image_class in listing.classes]
        if form is parquet and not all(name.isdecimal() for name in order):
            # Its own list has an order; here that of sorted names, as everywhere.
            assert order == sorted(order)
        seen[form.__name__] = order, held(listing)
    first = seen["folders"]
    assert {name: found for name, found in seen.items() if found != first} == {}
    assert first[0] == list(ordered(set(drawn.train)))
    assert len(first[1]) == len(rows_of(drawn.train)) + len(rows_of(drawn.val))


@pytest.mark.usefixtures("packing_pool")
def test_the_same_images_have_the_same_error_in_every_form(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed from any form, with a network that numbers the classes in an order of its own."""
    weights = load_weights(write_weights(tmp_path, classes=("middle", "bright", "dark")))
    drawn = Drawn(train={}, val={})
    for place, path in enumerate(sorted(folder.rglob("*.JPEG"))):
        stem = f"{path.parent.name}-{path.stem}"
        monkeypatch.setitem(CONTENTS, stem, path.read_bytes())
        split = drawn.val if place % 4 == 0 else drawn.train
        split.setdefault(path.parent.name, []).append(stem)
    seen = []
    for form in (folders, webdataset, flat_validation, parquet):
        source = form(drawn, tmp_path / form.__name__)
        packed = tmp_path / f"{form.__name__}-packed"
        pack(source, packed, PackSettings(side=27, shard_images=64), workers=1)
        images = discover(packed, most_classes=3)
        names = class_names([weights], images)
        samples = images.renumbered(split_of(images, "held-out").samples, names)
        setup = Setup(batch_size=16, workers=1)
        found = answers(weights, samples, setup, views=1, done=lambda _: None)
        seen.append((names, len(found.samples), errors(found)))
    assert seen == [seen[0]] * 4
    assert seen[0][:2] == (("middle", "bright", "dark"), 15)


@given(st.sets(NUMBERS, min_size=1))
def test_numbers_are_in_their_order_and_names_in_theirs(numbers: set[str]) -> None:
    assert list(ordered(numbers)) == sorted(numbers, key=int)
    assert list(ordered(numbers | {"a"})) == sorted(numbers | {"a"})


def test_a_declared_list_keeps_its_order_unless_it_counts() -> None:
    assert ordered({"b", "a", "z"}, ("z", "unused", "b", "a")) == ("z", "b", "a")
    assert ordered({"10", "2"}, ("10", "2")) == ("2", "10")
    with pytest.raises(DataError, match="'01' and '1' are one number"):
        ordered({"1", "01"})


def images(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)


def classes_of(source: Path, **choices: object) -> list[str]:
    listing = list_source(source, SourceChoices(**choices))  # type: ignore[arg-type]
    return [image_class.wnid for image_class in listing.classes]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("latest", "train"), ("contest", "train"), ("festival-000", "train"),
        ("interval-000", "train"), ("retrain", "train"), ("evaluate", "train"),
        ("ILSVRC2012_img_val", "val"), ("val2017", "val"), ("my-validation.v2", "val"),
        ("TEST-0", "test"), ("dev_00", "val"),
    ],
)  # fmt: skip
def test_splits_are_told_by_whole_words(name: str, split: str, tmp_path: Path) -> None:
    files = [(f"{n}.{end}", data) for n in "01" for end, data in (("cls", b"7"), ("jpg", JPEG))]
    for stem in (name, "train-0"):
        write_tar(tmp_path / f"{stem}.tar", files)
    listing = list_source(tmp_path)
    held_out = [listing.containers[i] for i in listing.container[listing.held_out]]
    expected = [] if split == "train" else [str(tmp_path / f"{name}.tar")] * 2
    assert held_out == expected
    assert len(listing.names) == 4
    # What the user says goes before its name.
    again = list_source(tmp_path, SourceChoices(splits=((f"{name}.tar", "train"),)))
    assert not again.held_out.any()
    with pytest.raises(DataError, match=r"there is no gone\.tar"):
        list_source(tmp_path, SourceChoices(splits=(("gone.tar", "train"),)))


def test_names_of_two_splits_and_sources_without_training_are_one_line(tmp_path: Path) -> None:
    files = [("0.cls", b"7"), ("0.jpg", JPEG)]
    write_tar(tmp_path / "two" / "train-val.tar", files)
    with pytest.raises(DataError, match="train and val are both in its name; --split train-val"):
        list_source(tmp_path / "two")
    write_tar(tmp_path / "only" / "test.tar", files)
    with pytest.raises(DataError, match="no training images, only test"):
        list_source(tmp_path / "only")
    images(tmp_path / "folders", "val/a/0.jpg", "val/b/0.jpg")
    with pytest.raises(DataError, match="no training images, only val"):
        list_source(tmp_path / "folders")


def test_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    images(tmp_path / "vehicles", "boat/0.jpg", "train/0.jpg", "test/0.jpg")
    assert classes_of(tmp_path / "vehicles") == ["boat", "test", "train"]
    images(tmp_path / "splits", "train/boat/0.jpg", "train/train/0.jpg", "val/train/1.jpg")
    assert classes_of(tmp_path / "splits") == ["boat", "train"]
    # Without train/, a folder of class folders is still no class.
    images(tmp_path / "beside", "a/0.jpg", "b/0.jpg", "valid/a/1.jpg", "valid/b/1.jpg")
    assert classes_of(tmp_path / "beside") == ["a", "b"]
    assert int(list_source(tmp_path / "beside").held_out.sum()) == 2


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Three classes called by WordNet ids, three images each, and three to validate, flat."""
    ids = ("n01440764", "n01443537", "n01484850")
    images(tmp_path / "set", *(f"train/{wnid}/{i}.jpg" for wnid in ids for i in range(3)))
    images(tmp_path / "set", "val/v1.jpg", "val/v2.jpg", "val/v3.jpg")
    words = ("tench, Tinca tinca", "goldfish", "great white shark")
    lines = [" ".join(pair) for pair in zip(ids, words, strict=True)]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("scheme", "lines"),
    [
        (None, ["n01484850", "n01440764", "n01443537"]),
        ("names", ["v3.jpg n01443537", "v2.jpg,n01440764", "val/v1.jpg\tn01484850"]),
        ("words", ["great white shark", "tench, Tinca tinca", "goldfish"]),
        ("words", ["v2,tench, Tinca tinca", "v1,great white shark", "v3,goldfish"]),
        ("0-based", ["2", "0", "1"]),
        ("1-based", ["003", "001", "002"]),
        ("ilsvrc", ["9", "490", "361"]),
    ],
)
def test_labels_are_read_by_their_scheme(
    scheme: str | None, lines: list[str], flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = {9: "n01484850", 490: "n01440764", 361: "n01443537", 1: "n09999999"}
    monkeypatch.setattr(names_module, "_scipy", lambda: True)
    monkeypatch.setattr(names_module, "_meta", lambda _: {n: (w, "") for n, w in kit.items()})
    (flat / "meta.mat").touch()
    (flat / "labels.txt").write_text("\n".join(lines))
    choices = SourceChoices(labels=flat / "labels.txt", scheme=scheme)  # type: ignore[arg-type]
    listing = list_source(flat / "set", choices)
    of = dict(zip(listing.names, listing.label.tolist(), strict=True))
    assert [of[f"val/v{number}.jpg"] for number in (1, 2, 3)] == [2, 0, 1]
    assert listing.classes[0].name == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("scheme", "lines", "message"),
    [
        (None, ["490", "361", "171"], r"3 of its labels \(171, 361, 490\) are no classes of the"),
        (None, ["490", "361", "171"], "--label-scheme reads others: words, ilsvrc, 0-based"),
        ("1-based", ["0", "1", "2"], r"1 of its labels \(0\) are no numbers"),
        ("0-based", ["1", "2", "3"], r"1 of its labels \(3\)"),
        ("names", ["n01440764"] * 2, "2 labels for 3 images"),
        ("names", ["v1 n01440764", "v2 n01440764"], "no label for val/v3"),
        ("names", ["v1 n01440764", "v1 n01443537"], "two labels for val/v1"),
        ("ilsvrc", ["1", "2", "3"], "development kit"),
        ("names", [], "it is empty"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    scheme: str | None, lines: list[str], message: str, flat: Path
) -> None:
    (flat / "labels.txt").write_text("\n".join(lines))
    choices = SourceChoices(labels=flat / "labels.txt", scheme=scheme)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message) as caught:
        list_source(flat / "set", choices)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="images without classes"):
        discover(flat / "set", most_classes=9)


def test_choices_that_change_nothing_are_refused(flat: Path) -> None:
    (flat / "names.txt").write_text("n00000001 mouse\n")
    (flat / "labels.txt").write_text("\n".join(["n01440764"] * 3))
    for choices, message in (
        (SourceChoices(names=flat / "names.txt", labels=flat / "labels.txt"), "none of its ids"),
        (SourceChoices(scheme="0-based"), "--label-scheme is of the file"),
        (SourceChoices(image="left.jpg"), "--image left.jpg: only WebDataset"),
    ):
        with pytest.raises(DataError, match=message):
            list_source(flat / "set", choices)
    images(flat / "plain", "a/0.jpg", "b/0.jpg")
    with pytest.raises(DataError, match="no validation images to label"):
        list_source(flat / "plain", SourceChoices(labels=flat / "labels.txt"))


def test_a_class_of_validation_alone_is_left_out_and_said(tmp_path: Path) -> None:
    images(tmp_path, *(f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in "ab" for i in "01"))
    images(tmp_path, "val/z/0.jpg", "extra/a/2.jpg", "extra/q/3.jpg")
    dataset = discover(tmp_path, most_classes=2)
    assert dataset.classes == ("a", "b")
    assert len(dataset.held_out) == 4
    assert {(s.file, s.images) for s in dataset.left_out} == {("val/z/0.jpg", 1), ("extra", 2)}
    extra, left_out = split_of(dataset, "extra")
    assert [(Path(s.path).name, s.label) for s in extra] == [("2.jpg", 0)]
    assert [s.file for s in left_out] == ["extra/q/3.jpg"]
    (tmp_path / "val").rename(tmp_path / "old")
    (tmp_path / "val" / "y").mkdir(parents=True)
    images(tmp_path, "val/y/0.jpg")
    with pytest.raises(DataError, match=r"none of the held-out images' classes \(y\)"):
        discover(tmp_path, most_classes=2)


def test_other_forms_than_folders_are_packed_first(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", [("0.cls", b"7"), ("0.jpg", JPEG)])
    with pytest.raises(DataError, match="tars are packed first: `alexsim data pack"):
        discover(tmp_path, most_classes=2)
    parquet(Drawn(train={"a": ["0"], "b": ["1"]}, val={}), tmp_path / "data")
    with pytest.raises(DataError, match=r"both train-00000-of-00001.parquet and train.tar"):
        list_source(tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0.5, 1.5], "has floats"), ([True, False], "has bools"), ([0, 3], "class 3, but its list")],
)
def test_parquet_labels_of_other_types_are_named(
    labels: list[object], message: str, tmp_path: Path
) -> None:
    features = {"label": {"names": ["a", "b"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    images = [{"bytes": JPEG, "path": "0.jpg"}] * 2
    table = pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        list_source(tmp_path)
