"""Training from a packed set: the same bits as ever, in three orders, and damage is seen."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batches import same
from commands import here
from PIL import Image

from alexsim.cli.app import main
from alexsim.data.choices import Order
from alexsim.data.dataset import Dataset
from alexsim.data.discover import discover
from alexsim.data.images import load_square, read_square
from alexsim.data.loader import Loader
from alexsim.data.order import Orders
from alexsim.data.packed.pack import pack
from alexsim.data.packed.pack_index import PackSettings
from alexsim.errors import DataError
from alexsim.recipe.file import load_recipe

NETWORK = """
from alexsim.network.layers import Convolution, FullyConnected, MaxPool, ReLU, SoftmaxCrossEntropy
from alexsim.network.network import Network

net = Network(
    name="colours",
    input_shape=(3, 28, 28),
    columns=1,
    layers=(
        Convolution(name="conv1", filters=8, size=5),
        ReLU(name="relu1"),
        MaxPool(name="pool1", size=4, stride=4),
        FullyConnected(name="fc2", units=3),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
"""


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 60 images of ``folder``, 54 of them to train, in 14 shards of four."""
    target = tmp_path_factory.mktemp("packed") / "set"
    pack(folder, target, PackSettings(side=32, shard_images=4), workers=1)
    return target


def loader_of(
    dataset: Dataset, pool: ProcessPoolExecutor, order: Order = "shuffled", seed: int = 1
) -> Loader:
    known = dataset.known(28, 3)
    assert known is not None
    return Loader(
        dataset, known, load_recipe("paper").preparation,
        batch_size=16, crop_side=28, seed=seed, pool=pool, order=order,
    )  # fmt: skip


def test_a_packed_set_has_the_folders_classes_and_split(folder: Path, packed: Path) -> None:
    ours, source = discover(packed, most_classes=3), discover(folder, most_classes=3)
    assert ours.classes == source.classes
    assert (len(ours.train), len(ours.held_out)) == (54, 6)
    for split in ("train", "held_out"):
        labels = [[s.label for s in getattr(d, split)] for d in (ours, source)]
        assert sorted(labels[0]) == labels[1]
    assert sum(ours.shards) == 54
    assert ours.train[-1] == ours.train[53]
    assert ours.train[4:6] == (ours.train[4], ours.train[5])
    with pytest.raises(IndexError):
        ours.train[54]
    with pytest.raises(DataError, match="3 classes, but the network has 2"):
        discover(packed, most_classes=2)


def test_pixels_are_the_squares_of_the_files(folder: Path, packed: Path) -> None:
    ours, source = discover(packed, most_classes=3), discover(folder, most_classes=3)
    means = [
        sorted(float(read_square(sample, 32, 3).mean()) for sample in dataset.train)
        for dataset in (ours, source)
    ]
    np.testing.assert_allclose(*means, atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_decoder_has_pillows_bits(packed: Path, tmp_path: Path, channels: int) -> None:
    for sample in discover(packed, most_classes=3).train[:20]:
        path = tmp_path / "a.jpg"
        with Path(sample.path).open("rb") as file:
            file.seek(sample.offset)
            path.write_bytes(file.read(sample.length))
        expected = load_square(path, 32, channels)
        np.testing.assert_array_equal(read_square(sample, 32, channels), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{"subsampling": s, "progressive": p} for s in (0, 1, 2) for p in (False, True)]
)
def test_files_of_the_right_height_have_pillows_bits(
    options: dict[str, Any], mode: str, channels: int, tmp_path: Path
) -> None:
    """Whole files too, where nothing is scaled; one that must be turned is Pillow's."""
    pixels = np.random.default_rng(1).normal(128, 50, (16, 21, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).resize((83, 64)).convert(mode)
    exif = image.getexif()
    exif[0x0112] = 3
    for name, more in (("upright", {}), ("turned", {"exif": exif})):
        path = tmp_path / f"{name}.jpg"
        image.save(path, quality=85, **options, **more)
        with Image.open(path) as opened:
            opened.draft("L" if channels == 1 else "RGB", opened.size)
            whole = np.asarray(opened.convert("L" if channels == 1 else "RGB"))
        whole = whole[::-1, ::-1] if name == "turned" else whole
        expected = whole[:, 9:73].reshape(64, 64, channels)
        np.testing.assert_array_equal(load_square(path, 64, channels), expected)


def test_another_net_may_want_another_size(packed: Path) -> None:
    dataset = discover(packed, most_classes=3)
    assert dataset.known(28, 1) is None
    assert dataset.known(224, 3) is None
    assert read_square(dataset.train[0], 48, 3).shape == (48, 48, 3)


@pytest.mark.parametrize("order", ["shuffled", "shards", "file"])
def test_batches_depend_on_the_step_alone(
    packed: Path, pool: ProcessPoolExecutor, order: Order
) -> None:
    dataset = discover(packed, most_classes=3)
    whole = list(loader_of(dataset, pool, order).training(0, 7))
    later = list(loader_of(dataset, pool, order).training(4, 7))
    assert all(same(a, b) for a, b in zip(whole[4:], later, strict=True))
    labels = np.concatenate([batch.labels for batch in whole])
    for epoch in range(2):
        assert np.bincount(labels[54 * epoch : 54 * (epoch + 1)]).tolist() == [18, 18, 18]


def test_orders_are_what_they_say(packed: Path) -> None:
    dataset = discover(packed, most_classes=3)
    seen = {
        (order, epoch): Orders(dataset, order, seed=1).of(epoch).tolist()
        for order in ("shuffled", "shards", "file")
        for epoch in range(2)
    }
    for order in seen.values():
        assert sorted(order) == list(range(54))
    assert seen["file", 0] == seen["file", 1] == list(range(54))
    assert seen["shards", 0] != seen["shards", 1]
    shards = [[place // 4 for place in seen["shards", epoch]] for epoch in range(2)]
    # Shards of four, but the last of two: the first eight come, mixed, before any other.
    assert all(len(set(order[:30])) == 8 for order in shards)
    assert shards[0][:30] != sorted(shards[0][:30])
    assert len({place // 4 for place in seen["shuffled", 0][:30]}) > 8


def test_damage_that_a_decoder_would_miss_is_named(
    packed: Path, tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    shutil.copytree(packed, tmp_path / "set")
    sample = discover(tmp_path / "set", most_classes=3).train[0]
    with Path(sample.path).open("r+b") as file:
        file.seek(sample.offset + sample.length - 40)
        file.write(b"\x55")
    dataset = discover(tmp_path / "set", most_classes=3)
    batches = list(loader_of(dataset, pool, "file").training(0, 1))
    (line,) = batches[0].broken
    assert "train-000000.tar" in line
    assert "its checksum is another" in line


def test_sets_that_are_not_whole_are_refused(packed: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(packed, tmp_path / name))

    (copy("gone") / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"train-000002.tar: missing"):
        discover(tmp_path / "gone", most_classes=3)
    (copy("short") / "val-000000.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"val-000000.tar: 1 bytes, not"):
        discover(tmp_path / "short", most_classes=3)
    for name in ("members.npy", "statistics.npz"):
        data = bytearray((packed / name).read_bytes())
        data[-30] ^= 1
        (copy(name) / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: damaged"):
            discover(tmp_path / name, most_classes=3)
    (copy("index") / "index.json").write_text("{}")
    with pytest.raises(DataError, match="schema None, not 1: no index"):
        discover(tmp_path / "index", most_classes=3)
    half = copy("half")
    (half / "index.json").rename(half / ".parts")
    (half / ".parts").unlink()
    (half / ".parts").mkdir()
    with pytest.raises(DataError, match="packing stopped half-way"):
        discover(half, most_classes=3)


def test_orders_need_shards(folder: Path, pool: ProcessPoolExecutor) -> None:
    dataset = discover(folder, most_classes=3)
    with pytest.raises(DataError, match="--order file needs a packed set"):
        Loader(
            dataset, None, load_recipe("paper").preparation,
            batch_size=16, crop_side=28, seed=0, pool=pool, order="file",
        )  # fmt: skip


def alexsim(*arguments: object) -> dict[str, Any]:
    done = here(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_training_from_shards_resumes_to_the_same_bits(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    common = (
        "--net", f"{tmp_path / 'net.py'}:net", "--batch", 16, "--data", packed, "--threads", 1,
        "--order", "shards", "--learning-rate", 0.001, "--checkpoint-every", 2,
    )  # fmt: skip
    whole = alexsim("train", *common, "--steps", 8, "-o", tmp_path / "a", "--workers", 1)
    alexsim("train", *common, "--steps", 3, "-o", tmp_path / "b", "--workers", 2)
    resumed = alexsim("train", "--resume", tmp_path / "b", "--steps", 8)
    assert resumed["losses"] == whole["losses"]
    stored = np.load(tmp_path / "a" / "statistics.npz")
    packed_mean = np.load(packed / "statistics.npz")["mean"]
    np.testing.assert_array_equal(stored["mean"], packed_mean)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "set"
    options = ("--side", 32, "--workers", 1)
    assert run("data", "pack", folder, target, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["train"], document["val"], document["shards"]) == (54, 6, 2)
    assert run("data", "pack", folder, target, *options) == 0
    out, err = capsys.readouterr()
    assert "is packed already" in err
    assert "54 training and 6 validation images of 3 classes" in out
    sheet = tmp_path / "sheet.png"
    assert run("data", "inspect", target, "--verify", "--sheet", sheet, "--workers", 1) == 0
    out = capsys.readouterr().out
    assert "checksums: all as packed" in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    with Image.open(sheet) as image:
        assert image.width > 8 * 128
    assert run("data", "inspect", folder, "--json", "--workers", 1) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["images"], document["width"]["least"]) == (60, 36)
    assert document["formats"] == {"JPEG RGB": 60}
    with (target / "train-000000.tar").open("r+b") as file:
        file.write(b"damage")
    assert run("data", "inspect", target, "--verify", "--workers", 1) == 4
    assert "1 damaged; the first: train-000000.tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pack", "gone", "DST"), "gone: no such file"),
        (("pack", "SRC", "DST", "--quality", "0"), "--quality must be 1 to 95"),
        (("pack", "SRC", "DST", "--order", "x"), "shuffled, file; got 'x'"),
        (("pack", "SRC", "DST", "--shard-images", "0"), "--shard-images must be at least 1"),
        (("inspect", "gone"), "gone: no such"),
        (("inspect", "SRC", "--sheet", "a.jpg"), "must name a .png"),
        (("bench", "gone"), "gone: no such folder"),
    ],
)
def test_mistakes_take_one_line(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"SRC": str(folder), "DST": str(tmp_path / "set")}
    assert run("data", *(places.get(word, word) for word in arguments)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_training_refuses_an_order_before_it_makes_a_directory(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--net", "lenet-5", "--data", folder, "-o", tmp_path / "run")
    assert run("train", *options, "--order", "file") == 2
    assert "--order file needs a packed set" in capsys.readouterr().err
    assert run("train", *options, "--order", "x") == 2
    assert "shuffled, shards, file; got 'x'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bench_says_what_steps_need(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--workers", "1", "--seconds", "1", "--batch", "16", "--json")
    assert run("data", "bench", packed, *options) == 0
    document = json.loads(capsys.readouterr().out)
    (rate,) = document["rates"]
    assert rate["images_per_s"] > 0
    assert rate["worker_bytes"] > 2**20
    assert document["needs"].keys() == {"gtx580x2", "h200"}
