"""Packing: the same bits from every source, after every kill, and nothing lost without a word."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alexsim.data.discover import discover
from alexsim.data.packed.index import read_index, read_members, verify
from alexsim.data.packed.pack import pack
from alexsim.data.packed.pack_index import PackIndex, PackSettings
from alexsim.errors import DataError

SMALL = PackSettings(side=32, shard_images=16)


@pytest.fixture(scope="session")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 textured images of four classes with WordNet ids, 160 to train and 40 to validate."""
    root = tmp_path_factory.mktemp("wordnet")
    rng = np.random.default_rng(1)
    for label in range(4):
        wnid = f"n{label + 1:08}"
        for split, count in (("train", 40), ("val", 10)):
            (root / split / wnid).mkdir(parents=True)
            for index in range(count):
                height, width = (40, 36 + index % 9)
                coarse = rng.integers(0, 256, (height // 4, width // 4 + 1, 3))
                pixels = np.kron(coarse, np.ones((4, 4, 1)))[:, :width]
                name = f"{split}_{wnid}_{index:03}.JPEG"
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / wnid / name)
    return root


@pytest.fixture(scope="session")
def packed(wordnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That set, packed by one worker in one go."""
    target = tmp_path_factory.mktemp("packed") / "set"
    pack(wordnet, target, SMALL, workers=1)
    return target


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def images_of(folder: Path, pattern: str) -> dict[str, tuple[bytes, int]]:
    """Key to JPEG and class, by the standard library's tar reader."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        with tarfile.open(path) as archive:
            names = archive.getnames()
            assert [name.rpartition(".")[2] for name in names] == ["cls", "jpg"] * (len(names) // 2)
            for label, jpeg in zip(names[::2], names[1::2], strict=True):
                key = jpeg.removesuffix(".jpg")
                assert label == f"{key}.cls"
                text, data = archive.extractfile(label), archive.extractfile(jpeg)
                assert text is not None
                assert data is not None
                found[key] = (data.read(), int(text.read()))
    return found


def test_shards_hold_every_image_once(packed: Path) -> None:
    train, val = images_of(packed, "train-*.tar"), images_of(packed, "val-*.tar")
    assert (len(train), len(val)) == (160, 40)
    assert not train.keys() & val.keys()
    for key, (data, label) in (train | val).items():
        assert f"_n{label + 1:08}_" in key
        with Image.open(io.BytesIO(data)) as image:
            assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "JPEG")
    labels = [label for _, label in train.values()]
    assert labels != sorted(labels)
    index = json.loads((packed / "index.json").read_text())
    assert index["images"] == {"train": 160, "val": 40}
    assert [c["wnid"] for c in index["classes"]] == [f"n{n:08}" for n in (1, 2, 3, 4)]
    assert not (packed / ".parts").exists()


def test_members_lead_to_the_images(packed: Path) -> None:
    index = read_index(packed)
    members = read_members(packed, index)
    images = list((images_of(packed, "train-*.tar") | images_of(packed, "val-*.tar")).items())
    place = 0
    for shard in index.all_shards:
        data = (packed / shard.file).read_bytes()
        for member in members[place : place + shard.images]:
            key, (jpeg, label) = images[place]
            assert data[member["offset"] : member["offset"] + member["length"]] == jpeg
            assert (member["label"], member["number"]) == (label, int(key[:8]))
            place += 1
    assert place == len(images)


def test_statistics_are_those_of_the_packed_squares(packed: Path) -> None:
    squares = [
        np.asarray(Image.open(io.BytesIO(data)), dtype=np.float64)
        for data, _ in images_of(packed, "train-*.tar").values()
    ]
    stored = np.load(packed / "statistics.npz")
    assert stored["images"] == 160
    np.testing.assert_array_equal(stored["total"], np.sum(squares, axis=0))
    np.testing.assert_array_equal(stored["mean"], np.mean(squares, axis=0).astype(np.float32))
    pixels = np.concatenate([square.reshape(-1, 3) for square in squares])
    values, axes = np.linalg.eigh(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(stored["deviations"], np.sqrt(values), rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(stored["axes"] * axes, axis=0)), 1, rtol=1e-5)


def tar_of(path: Path, files: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return out.getvalue()


def files_of(folder: Path) -> list[tuple[str, bytes]]:
    return [(p.name, p.read_bytes()) for p in sorted(folder.iterdir())]


def ilsvrc(root: Path, made: Path) -> None:
    """Its tar of tars, its flat validation tar, and Kaggle's list of classes."""
    inner = [
        (f"{folder.name}.tar", tar_of(made / "inner.tar", files_of(folder)[::-1]))
        for folder in sorted((root / "train").iterdir(), reverse=True)
    ]
    (made / "inner.tar").unlink()
    tar_of(made / "ILSVRC2012_img_train.tar", inner)
    flat = [one for folder in sorted((root / "val").iterdir()) for one in files_of(folder)]
    tar_of(made / "ILSVRC2012_img_val.tar", flat)
    rows = [f"{name.removesuffix('.JPEG')},{name.split('_')[1]} 1 2 3 4" for name, _ in flat]
    (made / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))


def webdataset(root: Path, made: Path) -> None:
    for split in ("train", "val"):
        files = []
        for label, folder in enumerate(sorted((root / split).iterdir())):
            for name, data in files_of(folder):
                key = name.removesuffix(".JPEG")
                files += [(f"{key}.cls", str(label).encode()), (f"{key}.jpg", data)]
        for part in range(2):
            half = files[part * len(files) // 2 : (part + 1) * len(files) // 2]
            tar_of(made / f"{split}-{part:06}.tar", half)


def parquet(root: Path, made: Path) -> None:
    """As Hugging Face writes it; a row group per image, or images would be mixed in groups."""
    made.mkdir()
    names = ["tench, Tinca tinca", "goldfish", "great white shark", "tiger shark"]
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    for split, file in (("train", "train"), ("val", "validation")):
        rows = [
            ({"bytes": data, "path": name}, label)
            for label, folder in enumerate(sorted((root / split).iterdir()))
            for name, data in files_of(folder)
        ]
        table = pa.table({"image": [r[0] for r in rows], "label": [r[1] for r in rows]})
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        half = len(rows) // 2
        for part, rest in enumerate((table[:half], table[half:])):
            path = made / f"{file}-{part:05}-of-00002.parquet"
            pq.write_table(rest.replace_schema_metadata(metadata), path, row_group_size=1)


@pytest.mark.usefixtures("packing_pool")
@pytest.mark.parametrize("form", [ilsvrc, webdataset, parquet])
def test_every_form_of_source_gives_the_same_shards(
    form: object, wordnet: Path, packed: Path, tmp_path: Path
) -> None:
    assert callable(form)
    form(wordnet, tmp_path / "source")
    index = pack(tmp_path / "source", tmp_path / "set", SMALL, workers=2)
    ours, first = contents(tmp_path / "set"), contents(packed)
    ours.pop("index.json"), first.pop("index.json")
    assert ours == first
    assert index.shards == read_index(packed).shards
    if form is parquet:
        assert index.classes[0].wnid == "tench, Tinca tinca"


@pytest.mark.usefixtures("packing_pool")
def test_row_groups_are_mixed_as_wholes(wordnet: Path, tmp_path: Path) -> None:
    """With several rows per group, a shard reads few groups, and still every image is there."""
    parquet(wordnet, tmp_path / "small")
    (tmp_path / "big").mkdir()
    for path in sorted((tmp_path / "small").iterdir()):
        pq.write_table(pq.read_table(path), tmp_path / "big" / path.name, row_group_size=8)
    for order in ("shuffled", "file"):
        settings = PackSettings(side=32, shard_images=16, order=order)
        pack(tmp_path / "big", tmp_path / order, settings, workers=1)
    mixed, lying = (images_of(tmp_path / name, "train-*.tar") for name in ("shuffled", "file"))
    assert list(lying) == sorted(lying)
    assert list(mixed) != sorted(mixed)
    assert mixed == {key: lying[key] for key in mixed}
    assert len(mixed) == len(lying) == 160


def test_workers_and_seed(wordnet: Path, packed: Path, tmp_path: Path) -> None:
    pack(wordnet, tmp_path / "three", SMALL, workers=3)
    assert contents(tmp_path / "three") == contents(packed)
    other = PackSettings(side=32, shard_images=16, seed=1)
    pack(wordnet, tmp_path / "other", other, workers=2)
    ours, first = images_of(tmp_path / "other", "train-*.tar"), images_of(packed, "train-*.tar")
    assert list(ours) != list(first)
    assert ours == first


def test_killed_at_any_moment_it_goes_on_to_the_same_bits(
    wordnet: Path, packed: Path, tmp_path: Path
) -> None:
    rng, target = random.Random(0), tmp_path / "set"
    command = [
        sys.executable, "-m", "alexsim", "data", "pack", str(wordnet), str(target),
        "--side", "32", "--shard-images", "16", "--workers", "1",
    ]  # fmt: skip
    killed_at = []
    for _ in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = len(list(target.glob("*.tar")))
        while process.poll() is None and len(list(target.glob("*.tar"))) <= before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
        killed_at.append(len(list(target.glob("*.tar"))))
    # Half-written files, as a kill within a write leaves them.
    (target / ".train-000009.tar.7.tmp").write_bytes(b"half of")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert killed_at[0] < 13, "the first kill came after the last shard"
    assert contents(target) == contents(packed)


def test_ctrl_c_ends_it_at_once_however_often_it_comes(
    wordnet: Path, packed: Path, tmp_path: Path
) -> None:
    target = tmp_path / "set"
    command = [
        sys.executable, "-m", "alexsim", "data", "pack", str(wordnet), str(target),
        "--side", "32", "--shard-images", "16", "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(target.glob("*.tar")):
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    # 0 where it was done before the first signal arrived.
    # The second signal may find it on its way out, which a shell calls 130 as well.
    assert process.wait(timeout=20) in (130, -signal.SIGINT, 0)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert contents(target) == contents(packed)


def test_a_shard_that_was_damaged_meanwhile_is_written_anew(
    wordnet: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexsim.data.packed import pack as module

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(wordnet, tmp_path / "set", SMALL, workers=1)
    with (tmp_path / "set" / "train-000003.tar").open("r+b") as file:
        file.seek(2000)
        file.write(b"damage")
    (tmp_path / "set" / ".parts" / "train-000005.tar.npz").write_bytes(b"damage")
    (tmp_path / "set" / "train-000006.tar").unlink()
    with pytest.raises(DataError, match="begun with other settings"):
        pack(wordnet, tmp_path / "set", PackSettings(side=16), workers=1)
    pack(wordnet, tmp_path / "set", SMALL, workers=1)
    assert contents(tmp_path / "set") == contents(packed)


def test_what_is_whole_stays_and_what_is_not_ours_too(
    wordnet: Path, packed: Path, tmp_path: Path
) -> None:
    shutil.copytree(packed, tmp_path / "set")
    (tmp_path / "set" / ".parts").mkdir()
    assert pack(wordnet, tmp_path / "set", SMALL, workers=1) == read_index(packed)
    assert contents(tmp_path / "set") == contents(packed)
    with pytest.raises(DataError, match="packed with other settings"):
        pack(wordnet, tmp_path / "set", PackSettings(), workers=1)
    with pytest.raises(DataError, match="is packed already"):
        pack(packed, tmp_path / "again", SMALL, workers=1)
    # Without its members it is a damaged set, not one of tars whose classes are numbers.
    shutil.copytree(packed, tmp_path / "lost")
    (tmp_path / "lost" / "members.npy").unlink()
    with pytest.raises(DataError, match=r"members\.npy: cannot be read"):
        discover(tmp_path / "lost", most_classes=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(DataError, match="is not empty"):
        pack(wordnet, tmp_path / "mine", SMALL, workers=1)


def test_damage_is_found(packed: Path, tmp_path: Path, pool: ProcessPoolExecutor) -> None:
    index = read_index(packed)
    assert verify(packed, index, pool) == []
    shutil.copytree(packed, tmp_path / "set")
    for name, at in (("train-000001.tar", 3000), ("statistics.npz", 300)):
        with (tmp_path / "set" / name).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
    (tmp_path / "set" / "val-000000.tar").write_bytes(b"")
    found = verify(tmp_path / "set", index, pool)
    assert [line.partition(":")[0] for line in found] == [
        "train-000001.tar", "val-000000.tar", "statistics.npz",
    ]  # fmt: skip


@pytest.mark.usefixtures("packing_pool")
def test_numbers_are_classes_in_numerical_order_and_leave_no_gaps(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    files = []
    for number, label in enumerate((10, 2, 2, 10)):
        files += [(f"{number}.jpg", out.getvalue()), (f"{number}.cls", str(label).encode())]
    tar_of(tmp_path / "a.tar", files)
    index = pack(tmp_path / "a.tar", tmp_path / "set", PackSettings(side=8), workers=1)
    assert [image_class.wnid for image_class in index.classes] == ["2", "10"]
    images = images_of(tmp_path / "set", "*.tar")
    assert sorted(label for _, label in images.values()) == [0, 0, 1, 1]


@pytest.mark.usefixtures("packing_pool")
def test_names_come_from_a_file_beside_the_data(wordnet: Path, tmp_path: Path) -> None:
    (tmp_path / "source").symlink_to(wordnet)
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "n00000001 tench, Tinca tinca\nn00000002 goldfish\n"
    )
    index = pack(tmp_path / "source", tmp_path / "set", SMALL, workers=2)
    assert [c.name for c in index.classes] == ["tench, Tinca tinca", "goldfish", "", ""]


def packs(source: Path, target: Path) -> PackIndex:
    return pack(source, target, PackSettings(side=32), workers=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.mkdir(), "no images"),
        (lambda p: p.with_suffix(".tgz").touch(), "no such file"),
        (lambda p: (p.mkdir(), (p / "a.tar.gz").touch()), "cannot be read in place"),
        (lambda p: (p.mkdir(), (p / "a.tar").write_bytes(b"x" * 2000)), "not a plain tar"),
        (lambda p: (p.mkdir(), (p / "a.parquet").write_bytes(b"x" * 2000)), "not a parquet"),
        (lambda p: (p.mkdir(), tar_of(p / "val.tar", [("a.JPEG", b"x")])), "--split NAME=train"),
        (lambda p: (p.mkdir(), tar_of(p / "a.tar", [("a.JPEG", b"x")])), "in no class folder"),
    ],
)
def test_sources_that_cannot_be_used_are_named(make: object, message: str, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "source")
    with pytest.raises(DataError, match=message) as caught:
        packs(tmp_path / "source", tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_a_tar_that_ends_early_is_named(wordnet: Path, tmp_path: Path) -> None:
    data = tar_of(tmp_path / "train.tar", files_of(wordnet / "train" / "n00000001"))
    (tmp_path / "train.tar").write_bytes(data[: len(data) // 2 - 300])
    with pytest.raises(DataError, match=r"cut off in|damaged"):
        packs(tmp_path / "train.tar", tmp_path / "set")


def test_the_development_kit_tells_names_and_validation_classes(
    wordnet: Path, packed: Path, tmp_path: Path
) -> None:
    io_module = pytest.importorskip("scipy.io")
    ilsvrc(wordnet, tmp_path / "source")
    (tmp_path / "source" / "LOC_val_solution.csv").unlink()
    kit = tmp_path / "source" / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    # Its ids are not in the order of the WordNet ids.
    rows = [(n, f"n{5 - n:08}", f"name {n}") for n in (1, 2, 3, 4)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    io_module.savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    truth = [str(4 - number // 10) for number in range(40)]
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(truth))
    index = pack(tmp_path / "source", tmp_path / "set", SMALL, workers=1)
    assert index.shards == read_index(packed).shards
    assert index.classes[0].name == "name 4"
