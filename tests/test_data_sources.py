"""Sources as people have them: what each becomes, or the one line that refuses it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alexsim.data.discover import discover, split_of
from alexsim.data.sources.source import SourceChoices, list_source
from alexsim.errors import DataError


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    return out.getvalue()


JPEG = jpeg()


def tar(*names: str, contents: Mapping[str, bytes] = {}) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in (*names, *contents):
            data = contents.get(name, JPEG)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def made(root: Path, *names: str, **files: bytes) -> Path:
    for name in names:
        data = files.get(name, JPEG)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def seen(source: Path, **choices: object) -> dict[str, tuple[str, bool]]:
    """Of each image its class and whether it is held out."""
    listing = list_source(source, SourceChoices(**choices))  # type: ignore[arg-type]
    return {
        name: (listing.classes[label].wnid, bool(held_out))
        for name, label, held_out in zip(
            listing.names, listing.label, listing.held_out, strict=True
        )
    }


FOLDERS = {
    "a stray image in train": (
        "train/a/0.jpg train/b/0.jpg train/sample.jpg docs/fig.png",
        "train/a/0.jpg:a train/b/0.jpg:b",
    ),
    "a stray image in val": (
        "train/a/0.jpg train/b/0.jpg val/a/1.jpg val/x.jpg",
        "train/a/0.jpg:a train/b/0.jpg:b val/a/1.jpg:a!",
    ),
    "a wrapper": (
        "set/train/a/0.jpg set/train/b/0.jpg set/val/a/1.jpg set/logo.png",
        "set/train/a/0.jpg:a set/train/b/0.jpg:b set/val/a/1.jpg:a!",
    ),
    "two wrappers": ("x/y/a/0.jpg x/y/b/0.jpg", "x/y/a/0.jpg:a x/y/b/0.jpg:b"),
    "one class with folders": ("cat/0.jpg cat/sub/1.jpg", "cat/0.jpg:cat cat/sub/1.jpg:cat"),
    "vehicles": (
        "bus/1.jpg train/1.jpg test/1.jpg",
        "bus/1.jpg:bus train/1.jpg:train test/1.jpg:test",
    ),
    "words in names": (
        "bullet_train/0.jpg steam_engine/0.jpg",
        "bullet_train/0.jpg:bullet_train steam_engine/0.jpg:steam_engine",
    ),
    "sets": (
        "training_set/a/0.jpg training_set/b/0.jpg test_set/a/1.jpg",
        "training_set/a/0.jpg:a training_set/b/0.jpg:b test_set/a/1.jpg:a!",
    ),
    "a test without classes": (
        "train/a/0.jpg train/b/0.jpg test/unknown/1.jpg test/2.jpg",
        "train/a/0.jpg:a train/b/0.jpg:b",
    ),
    "a hidden split": (
        "train/a/0.jpg train/b/0.jpg .val/a/1.jpg",
        "train/a/0.jpg:a train/b/0.jpg:b",
    ),
    "system folders": (
        "a/0.jpg b/0.jpg #recycle/1.jpg @eaDir/2.jpg System_/3.jpg",
        "a/0.jpg:a b/0.jpg:b System_/3.jpg:System_",
    ),
}  # fmt: skip


def expected(text: str) -> dict[str, tuple[str, bool]]:
    pairs = (pair.rpartition(":") for pair in text.split())
    return {name: (word.removesuffix("!"), word.endswith("!")) for name, _, word in pairs}


@pytest.mark.parametrize("form", ["folders", "tar"])
@pytest.mark.parametrize(("files", "right"), FOLDERS.values(), ids=FOLDERS)
def test_folders_tell_the_same_in_a_tar(form: str, files: str, right: str, tmp_path: Path) -> None:
    if form == "folders":
        source = made(tmp_path / "set", *files.split())
    else:
        source = tmp_path / "all.tar"
        source.write_bytes(tar(*files.split()))
    assert seen(source) == expected(right)
    listing = list_source(source)
    assert len(listing.names) + sum(s.images for s in listing.skipped) == len(files.split())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            "train/cat.0.jpg train/dog.0.jpg test/1.jpg",
            "such as train/cat.0.jpg: in no class folder",
        ),
        ("fold_1/train/a/0.jpg fold_2/train/a/0.jpg", "has train/ in it: give that folder"),
        ("train_val/a/0.jpg val/a/0.jpg", "train and val are both in its name; --split train_val"),
        ("train/a/0.jpg train/b/0.jpg val/images/0.jpg", "--val-labels"),
    ],
)
def test_folders_that_tell_nothing_are_refused(files: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        list_source(made(tmp_path / "set", *files.split()))
    assert "\n" not in str(caught.value)


def test_tars_of_one_set_are_read_together(tmp_path: Path) -> None:
    (tmp_path / "s0.tar").write_bytes(tar("x/a/0.jpg", "x/b/0.jpg"))
    (tmp_path / "s1.tar").write_bytes(tar("x/b/sub/1.jpg"))
    assert {image for image, _ in seen(tmp_path).values()} == {"a", "b"}


def test_a_tar_in_a_tar_is_a_folder(tmp_path: Path) -> None:
    inner = {"train/n1.tar": tar("0.jpg"), "train/n2.tar": tar("0.jpg"), "val/n1.tar": tar("1.jpg")}
    (tmp_path / "a.tar").write_bytes(tar(contents=inner))
    assert sorted(seen(tmp_path / "a.tar").values()) == [("n1", False), ("n1", True), ("n2", False)]
    splits = {"train.tar": tar("a/0.jpg", "b/0.jpg"), "val.tar": tar("a/1.jpg")}
    (tmp_path / "b.tar").write_bytes(tar(contents=splits))
    assert sorted(seen(tmp_path / "b.tar").values()) == [("a", False), ("a", True), ("b", False)]
    samples = tar("0.jpg", "1.jpg", contents={"0.cls": b"x", "1.cls": b"y"})
    (tmp_path / "c.tar").write_bytes(tar(contents={"shard-000.tar": samples}))
    assert sorted(seen(tmp_path / "c.tar").values()) == [("x", False), ("y", False)]
    out = io.BytesIO(tar(contents={"n1.tar": tar("0.jpg", "0.jpg"), "n2.tar": tar("0.jpg")}))
    (tmp_path / "d.tar").write_bytes(out.getvalue())
    (skipped,) = list_source(tmp_path / "d.tar").skipped
    assert skipped.reason == "a second file of this name"


def damaged(kind: str) -> bytes:
    members = {
        f"{n}.{end}": JPEG if end == "jpg" else b"1" for n in range(4) for end in ("cls", "jpg")
    }
    whole = tar(contents=members)
    if kind == "header":
        at = whole.index(b"2.cls")
        return whole[:at] + b"\xff" + whole[at + 1 :]
    if kind == "cut in a header":
        return whole[: whole.index(b"2.cls") + 100]
    if kind == "cut before a header":
        return whole[: whole.index(b"2.cls")]
    if kind == "two":
        return whole + whole
    inner = {"n1.tar": tar("0.jpg"), "n2.tar": b"<html>" * 200, "n3.tar": tar("0.jpg")}
    if kind == "empty inside":
        inner["n2.tar"] = b""
    return tar(contents=inner)


@pytest.mark.parametrize(
    "kind",
    ["header", "cut in a header", "cut before a header", "two", "page inside", "empty inside"],
)
def test_a_damaged_tar_is_no_shorter_set(kind: str, tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(damaged(kind))
    with pytest.raises(
        DataError, match=r"damaged at byte|cut off at byte|not a plain tar"
    ) as caught:
        list_source(tmp_path)
    assert ("n2.tar" in str(caught.value)) == ("inside" in kind)


def test_links_in_circles_and_to_nowhere_are_listed(tmp_path: Path) -> None:
    made(tmp_path / "set", "a/0.jpg", "b/0.jpg")
    (tmp_path / "set" / "a" / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "set" / "c").symlink_to("/nonexistent")
    listing = list_source(tmp_path / "set")
    assert {(s.file, s.images) for s in listing.skipped} == {("a/self.jpg", 1), ("c", 0)}


LABELS = {
    "name last": ("dog,v2.jpg\ncat,v1.jpg\ncat,v3.jpg", "cat dog cat"),
    "index, name, label": ("0,v1.jpg,cat\n1,v2.jpg,dog\n2,v3.jpg,cat", "cat dog cat"),
    "last of two words": ("dog val/v2.jpg\ncat val/v1.jpg\ncat val/v3.jpg", "cat dog cat"),
    "spaces": (
        "v1.jpg,golden retriever\nv2.jpg,golden\nv3.jpg,hot dog",
        "golden_retriever golden hot_dog",
    ),
    "quoted list": ('"golden retriever"\ngolden\n"hot dog"', "golden_retriever golden hot_dog"),
    "semicolons": ("v1.jpg;cat\nv2.jpg;dog\nv3.jpg;cat", "cat dog cat"),
    "backslashes": ("C:\\x\\val\\v1.jpg,cat\nval\\v2.jpg,dog\nv3.jpg,cat", "cat dog cat"),
    "capitals": ("V1.JPG,cat\nV2.JPG,dog\nv3.jpg,cat", "cat dog cat"),
    "a heading": ("image_id,label\nv1,cat\nv2,dog\nv3,cat", "cat dog cat"),
    "a heading of a list": ("label\ncat\ndog\ncat", "cat dog cat"),
    "mark and line ends": ("\ufeffv1.jpg,cat\r\nv2.jpg,dog\r\nv3.jpg,cat\r\n", "cat dog cat"),
    "tabs and more columns": (
        "v1.jpg\tcat\t0\t9\nv2.jpg\tdog\t1\t9\nv3.jpg\tcat\t2\t9",
        "cat dog cat",
    ),
}


@pytest.mark.parametrize(("text", "right"), LABELS.values(), ids=LABELS)
def test_label_files_by_hand(text: str, right: str, tmp_path: Path) -> None:
    classes = ("cat", "dog", "golden", "golden retriever", "hot", "hot dog")
    names = [f"train/{name}/0.jpg" for name in classes]
    source = made(tmp_path / "set", *names, *(f"val/v{n}.jpg" for n in (1, 2, 3)))
    (tmp_path / "l.csv").write_bytes(text.encode())
    of = seen(source, labels=tmp_path / "l.csv")
    assert [of[f"val/v{n}.jpg"][0].replace(" ", "_") for n in (1, 2, 3)] == right.split()


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        ("1 2 10", "cat\ndog\ncat", "10.jpg stands before val/2.jpg"),
        ("x/1 y/1", "1.jpg,cat", "several images are called '1.jpg'; give folders"),
        ("x/1 y/1", "x/1.jpg,cat", "no label for val/y/1.jpg"),
    ],
)
def test_label_files_that_could_be_read_in_two_ways_are_refused(
    images: str, text: str, message: str, tmp_path: Path
) -> None:
    val = (f"val/{name}.jpg" for name in images.split())
    source = made(tmp_path / "set", "train/cat/0.jpg", "train/dog/0.jpg", *val)
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        list_source(source, SourceChoices(labels=tmp_path / "l.csv"))


def table(path: Path, labels: list[object], names: object = None, column: str = "image") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
    images = [{"bytes": JPEG, "path": f"{n}.jpg"} for n in range(len(labels))]
    made = pa.table({column: images, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(made, path)


def test_parquet_as_people_have_it(tmp_path: Path) -> None:
    table(tmp_path / "hidden/data/train-0.parquet", [0, 1], ["x", "y"])
    table(tmp_path / "hidden/.cache/train-0.parquet", [0, 1], ["x", "y"])
    assert len(seen(tmp_path / "hidden")) == 2
    table(tmp_path / "dict/train.PARQUET", [0, 1], {"1": "dog", "0": "cat"})
    assert [c.wnid for c in list_source(tmp_path / "dict").classes] == ["cat", "dog"]
    table(tmp_path / "text/train.parquet", ["cat", "-1", "a\nb", "", "dog\r\n"])
    assert {image for image, _ in seen(tmp_path / "text").values()} == {"cat", "dog"}
    table(tmp_path / "mixed/train-0.parquet", [0, 1], ["x", "y"])
    table(tmp_path / "mixed/train-1.parquet", [0, 1])
    with pytest.raises(DataError, match="its list of class names is not that of"):
        list_source(tmp_path / "mixed")
    table(tmp_path / "side/meta.parquet", [0], column="x")
    assert len(seen(made(tmp_path / "side", "a/0.jpg", "b/0.jpg"))) == 2
    table(tmp_path / "none/train.parquet", [0, 1])
    table(tmp_path / "none/test.parquet", [0], column="x")
    assert len(seen(tmp_path / "none", splits=(("test.parquet", "none"),))) == 2


def test_what_lies_beside_decides_no_form(tmp_path: Path) -> None:
    source = made(tmp_path / "folders", "train/a/0.jpg", "train/b/0.jpg", "val/a/1.jpg")
    (source / "backup.tar").write_bytes(tar(contents={"notes.txt": b"notes"}))
    (source / "index.json").write_text("{}")
    assert len(seen(source)) == 3
    assert len(discover(source, most_classes=2).train) == 2
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "train.tar").write_bytes(tar("a/0.jpg", "b/0.jpg"))
    (tmp_path / "kit" / "devkit.tar.gz").touch()
    assert len(seen(tmp_path / "kit")) == 2
    (tmp_path / "deep" / "data").mkdir(parents=True)
    (tmp_path / "deep" / "data" / "train-000.tar").write_bytes(tar("a/0.jpg", "b/0.jpg"))
    assert len(seen(tmp_path / "deep")) == 2


def test_a_split_beside_several_training_folders_has_their_classes(tmp_path: Path) -> None:
    names = ("train1/b/0.jpg", "train2/a/0.jpg", "train2/c/0.jpg", "val/a/1.jpg", "test/c/5.jpg")
    dataset = discover(made(tmp_path / "set", *names), most_classes=3)
    samples, left_out = split_of(dataset, "test/")
    assert [(dataset.classes[s.label], Path(s.path).name) for s in samples] == [("c", "5.jpg")]
    assert left_out == ()
    with pytest.raises(DataError, match="has no split 'a'"):
        split_of(discover(made(tmp_path / "flat", "a/0.jpg", "b/0.jpg"), most_classes=3), "a")


def test_numbers_of_any_length_are_classes(tmp_path: Path) -> None:
    digits = "9" * 5000
    table(tmp_path / "train.parquet", ["7", "70", "8"])
    assert [c.wnid for c in list_source(tmp_path).classes] == ["7", "8", "70"]
    table(tmp_path / "long" / "train.parquet", ["7", digits, "8"])
    assert [c.wnid for c in list_source(tmp_path / "long").classes] == ["7", "8"]


def test_names_that_look_alike_are_pointed_out(tmp_path: Path) -> None:
    source = made(tmp_path / "set", "train/Caf\u00e9/0.jpg", "train/b/0.jpg", "val/b/1.jpg")
    made(source, "val/cafe\u0301/1.jpg")
    (skipped,) = list_source(source).skipped
    assert "'Caf\u00e9' differs in case, or in how letters are written" in skipped.reason
