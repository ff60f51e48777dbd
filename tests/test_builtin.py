"""The drawn sets: each picture follows from its class and index, a set is there whole or not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import here
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.builtin import sets
from alexsim.builtin.digits import DIGITS, SIDE
from alexsim.builtin.drawn import DrawnSet
from alexsim.builtin.sets import SETS, set_for, set_in
from alexsim.builtin.textures import TEXTURES
from alexsim.data.discover import discover
from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.part import square_side
from alexsim.plan.planner import plan
from alexsim.recipe.file import load_recipe, recipe_name
from alexsim.train import built_in

by_name = pytest.mark.parametrize("drawn", SETS, ids=lambda drawn: drawn.name)


@by_name
@given(label=st.integers(0, 9), index=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_a_picture_follows_from_its_class_and_index(
    drawn: DrawnSet, label: int, index: int
) -> None:
    picture = drawn.draw(label, index)
    assert picture.tobytes() == drawn.draw(label, index).tobytes()
    assert picture.tobytes() != drawn.draw(label, index + 1).tobytes()
    assert picture.tobytes() != drawn.draw((label + 1) % 10, index).tobytes()


@given(label=st.integers(0, 9), index=st.integers(0, 10**6))
@settings(deadline=None)
def test_a_digit_is_light_on_dark_and_whole_in_every_crop(label: int, index: int) -> None:
    """Nothing of the pen is cut off, whichever 28 x 28 of 32 x 32 the network sees."""
    picture = DIGITS.draw(label, index)
    assert (picture.mode, picture.size) == ("L", (SIDE, SIDE))
    pixels = np.asarray(picture, dtype=float)
    border = np.concatenate([*pixels[[0, 1, -2, -1]], *pixels[:, [0, 1, -2, -1]].T])
    assert border.mean() + 30 < np.sort(pixels, axis=None)[-20:].mean()
    assert border.mean() < 70


def test_textures_are_256_pixels_high() -> None:
    sizes = {TEXTURES.draw(0, index).size for index in range(8)}
    assert {min(size) for size in sizes} == {256}
    assert len(sizes) > 4


@by_name
def test_a_set_appears_whole_or_not_at_all(drawn: DrawnSet, tmp_path: Path) -> None:
    few = replace(drawn, train_per_class=2, held_out_per_class=1)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        few.ensure(tmp_path, stop)
    assert not (tmp_path / few.folder).exists()
    dataset = discover(few.ensure(tmp_path), most_classes=10)
    assert (len(dataset.train), len(dataset.held_out)) == (20, 10)
    assert dataset.classes == few.classes
    train = {Path(s.path).read_bytes() for s in dataset.train}
    assert not train & {Path(s.path).read_bytes() for s in dataset.held_out}


def test_a_network_has_a_set_of_its_channels_and_a_folder_tells_its_set() -> None:
    for name in ("lenet-5", "cifar10-quick", "alexnet-2012"):
        channels, side, _ = load_network(name).input_shape
        drawn = set_for(channels)
        assert (len(drawn.draw(0, 0).getbands()) == 1) == (channels == 1)
        # LeNet-5's crops are of whole files: nothing is scaled.
        assert drawn is TEXTURES or square_side(side) == SIDE
    for drawn in SETS:
        assert set_in(drawn.folder) is drawn
        assert set_in(f"{drawn.name}-0") is None


def digits(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of every class from an index on, as LeNet-5 has them, and their classes."""
    rows = [(label, first + index) for label in range(10) for index in range(count)]
    pixels = np.stack([np.asarray(DIGITS.draw(*row))[2:30, 2:30] for row in rows])
    images = torch.from_numpy(pixels[:, None].astype(np.float32))
    return (images - 62) / 60, torch.tensor([label for label, _ in rows])


def test_lenet_learns_digits_that_it_has_not_seen() -> None:
    network, recipe = load_network("lenet-5"), load_recipe(recipe_name("lenet-5"))
    (stage,) = recipe.stages
    rates = Hyperparameters(
        weight_rate=stage.weight_rate,
        bias_rate=stage.bias_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    executor = Executor(plan(network, batch_size=32, backend="aten"), seed=0)
    executor.initialise()
    images, labels = digits(0, 64)
    drawn = torch.Generator().manual_seed(0)
    for step in range(150):
        chosen = torch.randint(len(images), (32,), generator=drawn)
        executor.step(images[chosen], labels[chosen], step=step, hyperparameters=rates)
    images, labels = digits(DIGITS.train_per_class, 16)
    parts = zip(images.split(32), labels.split(32), strict=True)
    tested = [executor.evaluate(*part) for part in parts]
    losses = torch.cat([each.losses for each in tested if each.losses is not None])
    # Guessing costs 2.3.
    assert losses.mean() < 1.5


def test_a_run_without_data_is_of_its_networks_set_and_goes_on_without_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(DIGITS, train_per_class=2, held_out_per_class=1)
    monkeypatch.setattr(sets, "DIGITS", few)
    monkeypatch.setattr(sets, "SETS", (few,))
    monkeypatch.setattr(built_in, "cache", lambda: tmp_path)
    common = ("--batch", 8, "--backend", "aten", "--threads", 1, "--workers", 1)
    run = tmp_path / "run"
    began = here("train", "--net", "lenet-5", *common, "--steps", 1, "-o", run)
    assert began.returncode == 0, began.stderr
    drawn = tmp_path / few.folder
    shutil.rmtree(drawn)
    resumed = here("train", "--resume", run, "--steps", 2)
    assert resumed.returncode == 0, resumed.stderr
    assert drawn.is_dir()
    shutil.rmtree(drawn)
    monkeypatch.setattr(sets, "SETS", (replace(few, version=few.version + 1),))
    gone = here("train", "--resume", run, "--steps", 3)
    assert gone.returncode == 2
    assert f"its data folder {drawn} is gone" in gone.stderr
