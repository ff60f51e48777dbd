"""Errors, views, ensembles: against loops written by hand."""

from __future__ import annotations

import csv
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import floats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from alexsim.cli.app import main
from alexsim.data.dataset import Dataset, Sample
from alexsim.data.discover import discover, split_of
from alexsim.data.images import load_square
from alexsim.editions.load import load_network
from alexsim.errors import DataError, RunError
from alexsim.evaluate.evaluate import (
    Answers,
    answers,
    averaged,
    class_names,
    combined,
    errors,
    feature_layer,
    forward,
    tuned,
)
from alexsim.evaluate.setup import Setup
from alexsim.execute.executor import Executor
from alexsim.plan.planner import plan
from alexsim.train.weights import Weights, load_weights, save_weights

SETUP = Setup(batch_size=16, workers=1, backend="native")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trained runs of lenet-5, from other seeds."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        assert not run(
            "train", "--net", "lenet-5", "--batch", 16, "--data", folder, "--steps", 12, "--seed",
            seed, "--learning-rate", 0.1, "--threads", 1, "--workers", 1, "-o", root / str(seed),
            "--normalise", "mean-image", "--json",
        )  # fmt: skip
    return root / "1", root / "2"


@pytest.fixture(scope="module")
def images(folder: Path) -> Dataset:
    return discover(folder, most_classes=10)


def of(probabilities: list[list[float]], labels: list[int]) -> Answers:
    return Answers(
        samples=tuple(Sample(path=str(i), label=label) for i, label in enumerate(labels)),
        probabilities=np.array(probabilities, dtype=np.float32),
        broken=(),
    )


@given(st.data())
def test_ties_share_the_credit(data: st.DataObject) -> None:
    """Over every order in which equal guesses may be named, as often wrong as the error says."""
    classes = data.draw(st.integers(2, 6))
    row = data.draw(
        st.lists(st.sampled_from([0.125, 0.25, 0.5]), min_size=classes, max_size=classes)
    )
    label = data.draw(st.integers(0, classes - 1))
    found = errors(of([row], [label]))
    for first, error in ((1, found.top1), (5, found.top5)):
        orders = list(itertools.permutations(range(classes)))
        wrong = sum(label not in sorted(order, key=lambda i: -row[i])[:first] for order in orders)
        assert error == pytest.approx(wrong / len(orders), abs=1e-12)
    assert found.loss == pytest.approx(-math.log(row[label]))


def views_by_hand(weights: Weights, sample: Sample) -> list[np.ndarray]:
    """The ten normalised crops of an image, in order, for 28 pixels out of 32."""
    square = load_square(sample.path, 32, 1).astype(np.float32)
    assert weights.mean is not None
    centre = weights.mean[2:30, 2:30]
    crops = [square[t : t + 28, le : le + 28] for t, le in ((2, 2), (0, 0), (0, 4), (4, 0), (4, 4))]
    return [crop - centre for crop in crops] + [crop[:, ::-1] - centre for crop in crops]


@pytest.mark.parametrize("views", [1, 10])
def test_views_equal_a_loop_written_by_hand_to_the_last_bit(
    views: int, runs: tuple[Path, Path], images: Dataset
) -> None:
    weights, network = load_weights(runs[0]), load_network("lenet-5")
    executor = Executor(plan(network, batch_size=16, backend="native"))
    executor.initialise()
    state = executor.state()
    for name, tensor in weights.state.items():
        state[name].copy_(tensor)
    rows = [view for sample in images.held_out for view in views_by_hand(weights, sample)[:views]]
    given_out = []
    for first in range(0, len(rows), 16):
        some = [rows[first + i % len(rows[first : first + 16])] for i in range(16)]
        x = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2)
        executor.evaluate(x, torch.zeros(16, dtype=torch.int64))
        given_out += list(executor.activation("softmax").numpy()[: len(rows) - first])
    expected = []
    for image in range(len(images.held_out)):
        total = np.zeros(10)
        for view in range(views):
            total += given_out[image * views + view]
        expected.append((total / views).astype(np.float32))
    found = answers(
        weights, images.held_out, SETUP, views=10 if views == 10 else 1, done=lambda _: None
    )
    assert np.array_equal(found.probabilities, np.stack(expected))
    assert found.samples == images.held_out


def test_ensembles_equal_a_loop_written_by_hand_to_the_last_bit(
    runs: tuple[Path, Path], images: Dataset
) -> None:
    each = [
        answers(load_weights(path), images.held_out, SETUP, views=1, done=lambda _: None)
        for path in runs
    ]
    shares = (0.3, 0.7)
    expected = np.empty_like(each[0].probabilities)
    for image, output in np.ndindex(expected.shape):
        total = 0.0
        for share, one in zip(shares, each, strict=True):
            total += share * float(one.probabilities[image, output])
        expected[image, output] = total
    assert np.array_equal(averaged(each, shares).probabilities, expected)
    equal = combined(each, shares=None, tuned_on=None)
    assert equal.shares == (0.5, 0.5)
    assert np.array_equal(equal.together.probabilities, averaged(each, (0.5, 0.5)).probabilities)
    with pytest.raises(DataError, match="same images"):
        averaged([each[0], replace(each[1], samples=each[1].samples[::-1])], shares)


def test_tuned_shares_are_the_best_there_are() -> None:
    rng = np.random.default_rng(4)
    labels = [int(label) for label in rng.integers(0, 4, 60)]
    sharp = rng.dirichlet(np.ones(4), 60)
    good = sharp.copy()
    good[np.arange(60), labels] += 0.8
    rows = [good / good.sum(1, keepdims=True), sharp, rng.dirichlet(np.ones(4), 60)]
    each = [of(one.tolist(), labels) for one in rows]
    found = tuned(each)
    assert sum(found) == pytest.approx(1)
    best = errors(averaged(each, found)).loss
    for a, b in itertools.product(np.linspace(0, 1, 21), repeat=2):
        if a + b <= 1:
            assert best <= errors(averaged(each, (a, b, 1 - a - b))).loss + 1e-6
    assert combined(each, shares=None, tuned_on=each).shares == found


def test_eval_is_what_the_run_itself_said(
    runs: tuple[Path, Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = json.loads((runs[0] / "metrics.jsonl").read_text().splitlines()[-1])["held_out"]
    assert not run(
        "eval", runs[0], "--data", folder, "--batch", 16, "--workers", 1, "--threads", 1, "--json"
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["top1"], found["top5"]) == pytest.approx((last["top1"], last["top5"]))
    assert found["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert (found["images"], found["views"], found["split"]) == (6, 1, "held-out")


def test_predictions_hold_the_five_best(
    runs: tuple[Path, Path], folder: Path, tmp_path: Path, images: Dataset
) -> None:
    weights = load_weights(runs[0])
    found = answers(weights, images.train, SETUP, views=1, done=lambda _: None)
    for name in ("p.csv", "p.parquet", "p.json"):
        assert not run(
            "eval", runs[0], "--data", folder, "--split", "train", "--batch", 16, "--workers", 1,
            "--threads", 1, "--predictions", tmp_path / name,
        )  # fmt: skip
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert rows == json.loads((tmp_path / "p.json").read_text())["predictions"]
    with (tmp_path / "p.csv").open() as file:
        texts = list(csv.DictReader(file))
    assert len(rows) == len(texts) == len(images.train)
    for row, text, sample, own in zip(rows, texts, images.train, found.probabilities, strict=True):
        assert row["file"] == text["file"] == sample.path
        assert row["class"] == text["class"] == images.classes[sample.label]
        guesses = [row[f"probability{place}"] for place in range(1, 6)]
        assert guesses == sorted(own.astype(float), reverse=True)[:5]
        likeliest = int(own.argmax())
        # Outputs beyond the data's three classes have no names.
        assert row["guess1"] == (
            images.classes[likeliest] if likeliest < 3 else f"output {likeliest}"
        )


def test_ensembles_on_the_command_line(
    runs: tuple[Path, Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("eval", *runs, "--data", folder, "--batch", 16, "--workers", 1, "--threads", 1)
    assert not run(*base, "--shares", "1,3", "--json")
    document = json.loads(capsys.readouterr().out)
    assert [one["share"] for one in document["models"]] == [0.25, 0.75]
    assert not run(*base, "--tune", "train", "--views", 10)
    out = capsys.readouterr().out
    assert "tuned average" in out
    assert "6 held-out images, 10 views" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--views", 5), "--views must be one of 1, 10; got '5'"),
        (("--shares", "1,2"), "--tune and --shares are for several networks"),
        (("--split", "nowhere"), "no split 'nowhere'"),
        (("--split", "bright"), "no split 'bright'"),
        (("--predictions", "p.txt"), "--predictions must name a file in .csv, .json, .parquet"),
        (("--batch", 0), "--batch must be at least 1"),
        (("--workers", 0), "--workers must be at least 1"),
    ],
)
def test_mistakes_are_named(
    more: tuple[object, ...], says: str, runs: tuple[Path, Path], folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run("eval", runs[0], "--data", folder, *more) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--shares", "1"), "--shares must be 2 numbers >= 0, one per network; got '1'"),
        (("--shares", "0,0"), "--shares are all 0"),
        (("--shares", "1,-1"), "--shares must be 2 numbers"),
        (("--shares", "1,2", "--tune", "train"), "give --shares or --tune, not both"),
        (("--tune", "held-out"), "these images are tested"),
    ],
)
def test_mistakes_with_several_networks(
    more: tuple[object, ...], says: str, runs: tuple[Path, Path], folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run("eval", *runs, "--data", folder, *more) == 2
    assert says in capsys.readouterr().err


def test_files_that_cannot_be_read_are_left_out_and_named(
    runs: tuple[Path, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val", "other"):
        for name in ("bright", "dark", "middle"):
            (tmp_path / split / name).mkdir(parents=True)
            for file in sorted((folder / name).iterdir())[:3]:
                (tmp_path / split / name / file.name).write_bytes(file.read_bytes())
    whole = discover(tmp_path, most_classes=10)
    weights = load_weights(runs[0])
    before = answers(weights, whole.held_out, SETUP, views=10, done=lambda _: None)
    (tmp_path / "val" / "dark" / "01.JPEG").write_bytes(b"no image")
    after = answers(weights, whole.held_out, SETUP, views=10, done=lambda _: None)
    assert len(after.broken) == 1
    assert "01.JPEG" in after.broken[0]
    assert after.samples == tuple(s for i, s in enumerate(before.samples) if i != 4)
    kept = np.delete(before.probabilities, 4, 0)
    assert np.allclose(after.probabilities, kept, rtol=1e-5, atol=1e-7)
    assert len(split_of(whole, "other").samples) == 9
    small = ("--batch", 2, "--workers", 1, "--threads", 1)
    assert not run("eval", runs[0], "--data", tmp_path, "--views", 10, *small)
    assert "not read: " in capsys.readouterr().out
    for name in ("bright", "dark", "middle"):
        for file in (tmp_path / "val" / name).iterdir():
            file.write_bytes(b"")
    assert run("eval", runs[0], "--data", tmp_path, "--workers", 1, "--threads", 1) == 2
    assert "none of 9 images can be read" in capsys.readouterr().err


def test_features_are_what_the_last_projection_reads(
    runs: tuple[Path, Path], images: Dataset
) -> None:
    weights = load_weights(runs[0])
    assert feature_layer("alexnet-2012") == "relu7"
    assert feature_layer("alexnet-6conv") == "bottleneck"
    assert feature_layer("lenet-5") == "sigmoid4"
    with forward(weights, SETUP) as asked:
        found = np.concatenate(
            [one.values for one in asked.activations(images.train, "sigmoid4", done=lambda _: None)]
        )
    own = answers(weights, images.train, SETUP, views=1, done=lambda _: None).probabilities
    logits = torch.from_numpy(found) @ weights.state["fc5.a.weight"].T + weights.state["fc5.a.bias"]
    assert np.allclose(torch.softmax(logits, 1).numpy(), own, atol=1e-6)


def test_classes_are_matched_by_name(runs: tuple[Path, Path], images: Dataset) -> None:
    weights = load_weights(runs[0])
    assert class_names([weights], images) == ("bright", "dark", "middle")
    other = replace(weights, classes=("middle", "dark", "bright"))
    names = class_names([other], images)
    assert [names[s.label] for s in images.renumbered(images.held_out, names)] == [
        images.classes[s.label] for s in images.held_out
    ]
    with pytest.raises(DataError, match="different classes"):
        class_names([weights, other], images)
    with pytest.raises(DataError, match=r"1 of its 3 classes .* such as 'middle'"):
        class_names([replace(weights, classes=("bright", "dark"))], images)
    with pytest.raises(DataError, match="10 outputs without names"):
        class_names([replace(weights, classes=())], images)


def test_weights_go_through_a_file_to_the_bit(runs: tuple[Path, Path], tmp_path: Path) -> None:
    weights, path = load_weights(runs[0]), tmp_path / "w.safetensors"
    save_weights(path, weights)
    again = load_weights(path)
    assert again.state.keys() == weights.state.keys()
    assert all(torch.equal(tensor, weights.state[name]) for name, tensor in again.state.items())
    assert (again.network, again.classes, again.normalisation) == (
        weights.network, weights.classes, weights.normalisation,
    )  # fmt: skip
    assert again.mean is not None
    assert np.array_equal(again.mean, weights.mean)
    with pytest.raises(RunError, match=r"ends in \.safetensors"):
        save_weights(tmp_path / "w.bin", weights)
    state = dict(weights.state) | {"conv1.a.weight": torch.zeros(6, 1, 5, 4)}
    save_weights(path, replace(weights, state=state))
    with pytest.raises(RunError, match=r"conv1\.a\.weight is \(6, 1, 5, 4\)"):
        load_weights(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such run or file"), (b"", "no file of weights"), (b"x" * 99, "no file of weights")],
)
def test_files_that_are_no_weights(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=says):
        load_weights(path)


def test_a_run_without_a_checkpoint_has_no_weights(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((runs[0] / "config.json").read_text())
    with pytest.raises(RunError, match="no checkpoint yet"):
        load_weights(tmp_path)


def test_ten_views_of_a_large_image_are_its_corners(tmp_path: Path, pool: Any) -> None:
    """A picture whose corners differ: every view sees its own."""
    from alexsim.data.augmentation import Preparation
    from alexsim.data.loader import Loader
    from alexsim.data.statistics import Statistics

    pixels = np.arange(32 * 32, dtype=np.float32).reshape(32, 32) % 251
    path = tmp_path / "a.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    nothing = Statistics(
        mean=np.zeros((32, 32, 1), dtype=np.float32),
        axes=np.eye(1, dtype=np.float32),
        deviations=np.zeros(1, dtype=np.float32),
    )
    loader = Loader(
        Dataset(root="", classes=(), train=(), held_out=()), nothing,
        Preparation(),
        batch_size=4, crop_side=28, seed=0, pool=pool,
    )  # fmt: skip
    batches = list(loader.views([Sample(path=str(path), label=3)], 10))
    seen = np.concatenate([floats(batch)[: batch.valid, ..., 0] for batch in batches])
    assert [batch.valid for batch in batches] == [4, 4, 2]
    places = ((2, 2), (0, 0), (0, 4), (4, 0), (4, 4))
    expected = [pixels[t : t + 28, le : le + 28] for t, le in places]
    assert np.array_equal(seen, np.stack(expected + [one[:, ::-1] for one in expected]))
