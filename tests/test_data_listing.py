"""Whatever goes into a source comes out, or is listed with its reason; names are bytes."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from alexsim.cli.app import main
from alexsim.data.discover import discover
from alexsim.data.packed.pack import pack
from alexsim.data.packed.pack_index import PackSettings
from alexsim.data.sources.listing import Listing
from alexsim.data.sources.source import SourceChoices, list_source
from alexsim.errors import DataError
from alexsim.names import name_of, name_text


def encoded(form: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, form)
    return out.getvalue()


JPEG = encoded()
IMAGE_NAMES = (
    "a.jpg", "b.JPG", "c.jpeg", "d.jpe", "e.jfif", "f.png", "g.gif", "h.tif", "i.TIFF", "j.avif",
    "k.jp2", "l.heic", "m.svg", "._n.jpg", ".o.png", "cam.0000.jpg", "cam.0001.jpg", "p.left.jpg",
    "p.right.jpg", "q.seg.png", "q.jpg", "no-ending", "what.jpg_large", "r/deep.jpg", "s.bmp",
    ".ipynb_checkpoints/t.jpg", "__MACOSX/u.jpg", "@eaDir/v/w.webp", "x.ico",
)  # fmt: skip
OTHER_NAMES = ("notes.txt", "Thumbs.db", ".DS_Store", "y.json", "z.xml", "README")
FOLDERS = ("a", "b", "train/a", "train/b", "val/a", "val/c", "test/a", "train", "val", "", "other")


def total(listing: Listing) -> int:
    return len(listing.names) + sum(skipped.images for skipped in listing.skipped)


@st.composite
def trees(draw: st.DrawFn) -> tuple[set[str], set[str]]:
    """Paths of files that claim to be images, and of others."""
    folders = draw(st.sets(st.sampled_from(FOLDERS), max_size=5)) | {
        draw(st.sampled_from(["a", "train/a"]))
    }
    images, others = set(), set()
    for folder in sorted(folders):
        for names, into in ((IMAGE_NAMES, images), (OTHER_NAMES, others)):
            chosen = draw(st.sets(st.sampled_from(names), max_size=6))
            into |= {f"{folder}/{name}".removeprefix("/") for name in chosen}
    return images | {f"{draw(st.sampled_from(sorted(folders)))}/sure.jpg".removeprefix("/")}, others


def made(root: Path, images: Iterable[str], others: Iterable[str]) -> Path:
    for names, data in ((images, JPEG), (others, b"no image")):
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return root


@given(tree=trees())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_image_of_folders_is_taken_or_listed(
    tree: tuple[set[str], set[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    images, others = tree
    root = made(tmp_path_factory.mktemp("tree"), images, others)
    try:
        listing = list_source(root)
    except DataError as error:
        # A source that cannot be used is one line, whatever is in it.
        assume("\n" in str(error))
        raise
    assert total(listing) == len(images)
    # In a hidden folder, files that are no images are not counted as ours.
    assert listing.others <= len(others)
    assert all(skipped.reason for skipped in listing.skipped)
    train = discover(root, most_classes=9) if len(listing.classes) > 1 else None
    if train:
        assert len(train.train) + len(train.held_out) == len(listing.names)


@st.composite
def samples(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Members of a tar of samples, some without a class, some with several images, some twice."""
    members: list[tuple[str, bytes]] = []
    for number in range(draw(st.integers(1, 6))):
        stem = draw(st.sampled_from([f"{number}", f"cam.{number:04}", f"./x/{number}", "same"]))
        ends = draw(st.sets(st.sampled_from(["jpg", "JPEG", "png", "seg.png", "left.jpg"])))
        members += [(f"{stem}.{end}", JPEG) for end in sorted(ends)]
        label = draw(st.sampled_from([b"0", b"1", b"cat", b"", b"x" * 400, b"a\nb"]))
        if draw(st.booleans()):
            members.append((f"{stem}.{draw(st.sampled_from(['cls', 'CLS']))}", label))
        if draw(st.booleans()):
            members.append((f"./._{number}.jpg", b"\0\5\x16\7"))
    return [*draw(st.permutations(members)), ("sure.jpg", JPEG), ("sure.cls", b"0")]


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@given(members=samples())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_image_of_a_tar_is_taken_or_listed(
    members: list[tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_tar(tmp_path_factory.mktemp("tar") / "0.tar", members)
    listing = list_source(path)
    assert total(listing) == sum(not name.lower().endswith("cls") for name, _ in members)
    # A sample gives one image, and its own class.
    classes: dict[str, str] = {}
    for name, data in members:
        stem, _, end = name.removeprefix("./").rpartition(".")
        if end.lower() == "cls":
            classes.setdefault(stem, data.decode())
    samples = []
    for name, label in zip(listing.names, listing.label, strict=True):
        samples.append(max((stem for stem in classes if name.startswith(f"{stem}.")), key=len))
        assert listing.classes[label].wnid == classes[samples[-1]]
    assert len(set(samples)) == len(samples)


def test_which_image_of_a_sample_is_taken_is_a_rule_and_an_option(tmp_path: Path) -> None:
    ends = ("seg.png", "right.jpg", "left.jpg", "png", "cls")
    members = [(f"{n}.{end}", b"7" if end == "cls" else JPEG) for n in "01" for end in ends]
    path = write_tar(tmp_path / "0.tar", members)
    assert list_source(path).names == ("0.png", "1.png")
    listing = list_source(path, SourceChoices(image="right.jpg"))
    assert listing.names == ("0.right.jpg", "1.right.jpg")
    assert {s.reason for s in listing.skipped} == {
        "another image of its sample; --image ENDING takes it"
    }
    with pytest.raises(
        DataError, match=r"--image up\.jpg: images of samples end in left\.jpg, png"
    ):
        list_source(path, SourceChoices(image="up.jpg"))


def test_links_and_hidden_members_of_a_tar_are_listed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("0.jpg", JPEG), ("0.cls", b"1")])
    with tarfile.open(path, "a") as archive:
        for kind, name in ((tarfile.SYMTYPE, "link.jpg"), (tarfile.LNKTYPE, "hard.jpg")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "0.jpg"
            archive.addfile(link)
    skipped = {skipped.file: skipped.reason for skipped in list_source(path).skipped}
    assert skipped == dict.fromkeys(("link.jpg", "hard.jpg"), "a link, which is not followed")


def test_links_that_lead_nowhere_or_in_circles_are_listed(tmp_path: Path) -> None:
    made(tmp_path, ("a/0.jpg", "b/0.jpg"), ())
    (tmp_path / "a" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    listing = list_source(tmp_path)
    reasons = {skipped.file: skipped.reason for skipped in listing.skipped}
    assert reasons["a/gone.jpg"] == "a link that leads nowhere"
    assert reasons["b/pipe.jpg"] == "not a file"


@pytest.mark.usefixtures("packing_pool")
def test_every_ending_that_pillow_reads_is_packed(tmp_path: Path) -> None:
    forms = {
        "jfif": "JPEG", "jpe": "JPEG", "gif": "GIF", "tif": "TIFF", "tiff": "TIFF", "avif": "AVIF",
        "jp2": "JPEG2000", "dib": "BMP", "ppm": "PPM",
    }  # fmt: skip
    assert features.check("avif")
    made(tmp_path / "in", ("a/0.jpg", "b/0.jpg"), ())
    for ending, form in forms.items():
        (tmp_path / "in" / "a" / f"1.{ending}").write_bytes(encoded(form))
    index = pack(tmp_path / "in", tmp_path / "set", PackSettings(side=8), workers=1)
    packed = index.images["train"] + index.images["val"]
    assert (packed, index.left_out) == (2 + len(forms), 0), index.skipped


def test_pack_says_both_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ("train/a/0.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/z/3.jpg", "train/a/.4.jpg")
    made(tmp_path / "in", images, ("train/a/notes.txt", "train/b/broken.jpg"))
    command = ["data", "pack", str(tmp_path / "in"), str(tmp_path / "set"), "--workers", "1"]
    for arguments in (command, [*command, "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        if "--json" not in arguments:
            said = capsys.readouterr().out.splitlines()
            assert "3 images packed, 3 left out, of 6" in said[-1]
            assert "left out: val/z/3.jpg: class 'z' has no training images" in said
            assert "1 other file(s) that are no images, such as train/a/notes.txt" in said
    document = json.loads(capsys.readouterr().out)
    assert (document["packed"], document["left_out"], document["others"]) == (3, 3, 1)
    assert {row["file"] for row in document["skipped"]} == {
        "val/z/3.jpg", "train/a/.4.jpg", "train/b/broken.jpg",
    }  # fmt: skip


BYTES = st.one_of(
    st.binary(min_size=1).filter(lambda name: b"/" not in name and b"\0" not in name),
    st.lists(st.sampled_from([b"\\", b"x", b"e9", b"\xe9", b"u", b"00e9"])).map(b"".join),
)


@given(first=BYTES, second=BYTES)
def test_names_are_bytes_and_come_back(first: bytes, second: bytes) -> None:
    names = [os.fsdecode(name) for name in (first, second)]
    texts = [name_text(name) for name in names]
    for name, text in zip(names, texts, strict=True):
        assert name_of(text.encode().decode()) == name
        assert json.loads(json.dumps(text)) == text
        if "\\" not in name and name.isprintable():
            assert text == name
    assert (texts[0] == texts[1]) == (first == second)


def test_classes_that_are_not_utf8_are_told_apart(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"caf\\xe9", b"caf\xc3\xa9"):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)  # noqa: PTH102 - a path of bytes
        Path(os.fsdecode(folder + b"/Mu\xf1oz.jpg")).write_bytes(JPEG)
    dataset = discover(tmp_path, most_classes=3)
    assert set(dataset.classes) == {"caf\\xe9", "caf\\\\xe9", "caf\u00e9"}
    assert dataset.fingerprint()
    assert {Path(sample.place).name for sample in dataset.train} == {"Mu\\xf1oz.jpg"}
    assert all(Path(sample.path).is_file() for sample in dataset.train)
