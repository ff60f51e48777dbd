"""Files as they come, and minibatches that depend on nothing but the seed."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batches import floats, same
from PIL import Image

from alexsim.data.dataset import Dataset
from alexsim.data.discover import discover
from alexsim.data.images import load_square
from alexsim.data.loader import Loader
from alexsim.data.statistics import Statistics, statistics
from alexsim.errors import DataError
from alexsim.recipe.file import load_recipe, recipe_name
from alexsim.recipe.recipe import Recipe

PAPER = load_recipe("paper")


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA", "LA", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("RGB", "L", "CMYK") else "a.png")
    picture(300, 280, mode).save(path)
    square = load_square(path, 256, 3)
    assert square.shape == (256, 256, 3)
    assert square.dtype == np.uint8
    assert square.std() > 10


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 700), (256, 256), (257, 256), (5000, 20), (4000, 3000)], ids=str
)
def test_every_size_becomes_a_square(tmp_path: Path, size: tuple[int, int]) -> None:
    picture(*size).save(tmp_path / "a.jpg")
    assert load_square(tmp_path / "a.jpg", 256, 3).shape == (256, 256, 3)


def test_the_central_square_is_cut_out(tmp_path: Path) -> None:
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, 128:384] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_square(tmp_path / "a.png", 256, 3) == 200).all()


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 64, 0).repeat(128, 1))
    exif = image.getexif()
    exif[0x0112] = 6  # turn right
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    square = load_square(tmp_path / "a.jpg", 64, 1)
    assert square[:, :24].mean() > 200
    assert square[:, -24:].mean() < 50


def make_loader(
    dataset: Dataset, pool: ProcessPoolExecutor, recipe: Recipe = PAPER, seed: int = 1
) -> Loader:
    measured = statistics(dataset.train, 28, 3, pool, lambda done, total: None)
    return Loader(
        dataset, measured, recipe.preparation, batch_size=16, crop_side=28, seed=seed, pool=pool
    )


def test_every_tenth_image_is_held_out(folder: Path) -> None:
    dataset = discover(folder, most_classes=10)
    assert dataset.classes == ("bright", "dark", "middle")
    assert (len(dataset.train), len(dataset.held_out)) == (54, 6)
    assert not {s.path for s in dataset.train} & {s.path for s in dataset.held_out}


def test_train_and_val_folders_are_used_as_they_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(folder)
    (tmp_path / "val").symlink_to(folder)
    dataset = discover(tmp_path, most_classes=3)
    assert (len(dataset.train), len(dataset.held_out)) == (60, 60)
    assert dataset.fingerprint() != discover(folder, most_classes=3).fingerprint()


def test_folders_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        discover(tmp_path / "gone", most_classes=3)
    with pytest.raises(DataError, match="no images"):
        discover(tmp_path, most_classes=3)
    (tmp_path / "only").symlink_to(folder / "dark")
    with pytest.raises(DataError, match="only one class, 'only'"):
        discover(tmp_path, most_classes=3)
    with pytest.raises(DataError, match="3 classes, but the network has 2"):
        discover(folder, most_classes=2)


def test_batches_depend_on_the_step_alone(folder: Path, pool: ProcessPoolExecutor) -> None:
    dataset = discover(folder, most_classes=3)
    loader = make_loader(dataset, pool)
    whole = list(loader.training(0, 9))
    assert len(whole) == 9
    later = list(make_loader(dataset, pool).training(5, 9))
    assert all(same(a, b) for a, b in zip(whole[5:], later, strict=True))
    other = next(iter(make_loader(dataset, pool, seed=2).training(0, 1)))
    assert not same(whole[0], other)


def test_an_epoch_shows_every_image_once(folder: Path, pool: ProcessPoolExecutor) -> None:
    loader = make_loader(discover(folder, most_classes=3), pool)
    labels = np.concatenate([batch.labels for batch in loader.training(0, 7)])
    for epoch in range(2):
        assert np.bincount(labels[54 * epoch : 54 * (epoch + 1)]).tolist() == [18, 18, 18]
    assert labels[:54].tolist() != labels[54:108].tolist()


def test_normalised_images_are_near_zero_mean(folder: Path, pool: ProcessPoolExecutor) -> None:
    for recipe in (PAPER, load_recipe("2012")):
        batches = list(make_loader(discover(folder, most_classes=3), pool, recipe).training(0, 8))
        values = np.concatenate([floats(batch) for batch in batches])
        assert abs(values.mean()) < 4
        assert 60 < values.std() < 100


def test_2012_draws_one_crop_per_32_images(folder: Path, pool: ProcessPoolExecutor) -> None:
    loader = make_loader(discover(folder, most_classes=3), pool, load_recipe("2012"))
    tasks = [loader._training_task(step) for step in range(8)]
    cuts = [
        (crop.top, crop.left, mirrored)
        for task in tasks
        for crop, mirrored in zip(task.crops, task.mirrored, strict=True)
    ]
    groups = [cuts[i : i + 32] for i in range(0, len(cuts), 32)]
    assert all(len(set(group)) == 1 for group in groups)
    assert len({group[0] for group in groups}) > 1
    paper = make_loader(discover(folder, most_classes=3), pool)
    task = paper._training_task(0)
    assert set(task.mirrored) == {False, True}
    drawn = [(crop.top, crop.left) for crop in task.crops]
    assert len(set(drawn)) > 4
    assert all(0 <= top <= 4 and 0 <= left <= 4 for top, left in drawn)


def test_colour_noise_moves_whole_images_along_the_axes() -> None:
    measured = Statistics(
        mean=np.zeros((32, 32, 3), np.float32),
        axes=np.eye(3, dtype=np.float32),
        deviations=np.array([0, 10, 100], np.float32),
    )
    dataset = Dataset(root="", classes=(), train=(), held_out=())
    for name, scale in (("alexnet-2012", (0, 1, 10)), ("alexnet-paper", (0, 0.0392, 3.92))):
        loader = Loader(
            dataset,
            measured,
            load_recipe(recipe_name(name)).preparation,
            batch_size=4,
            crop_side=28,
            seed=0,
            pool=None,
        )
        noise = np.stack([loader._colour_noise(0, index) for index in range(2000)])
        assert noise.std(0) == pytest.approx(scale, rel=0.1)


def test_images_without_noise_are_pixels_less_the_mean(
    folder: Path, pool: ProcessPoolExecutor
) -> None:
    dataset = discover(folder, most_classes=3)
    recipe = load_recipe("2012")
    first = recipe.stages[0]
    # 54 images in batches of 16: the second epoch, without noise, begins within the fourth batch.
    quiet = replace(first, from_epoch=2, colour_noise=False)
    loader = make_loader(dataset, pool, replace(recipe, stages=(first, quiet)))
    batches = [*loader.training(0, 6), *loader.held_out()]
    pixels = np.concatenate([floats(batch) for batch in batches]) + batches[0].normalising.mean
    whole = np.abs(pixels - np.rint(pixels)).max((1, 2, 3)) < 1e-3
    assert whole.tolist() == [False] * 54 + [True] * (6 * 16 - 54 + 16)


def test_the_last_held_out_batch_is_filled_but_not_counted(
    folder: Path, pool: ProcessPoolExecutor
) -> None:
    dataset = discover(folder, most_classes=3)
    (batch,) = make_loader(dataset, pool).held_out()
    assert batch.images.shape == (16, 28, 28, 3)
    assert batch.valid == 6
    assert batch.labels[:6].tolist() == [s.label for s in dataset.held_out]


def test_broken_files_are_named_and_replaced(
    folder: Path, tmp_path: Path, pool: ProcessPoolExecutor
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for source in (folder / "dark").iterdir():
            (tmp_path / name / source.name).write_bytes(source.read_bytes())
    good = (folder / "dark" / "00.JPEG").read_bytes()
    (tmp_path / "a" / "cut.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "a" / "empty.jpg").touch()
    (tmp_path / "b" / "text.jpg").write_text("no image")
    dataset = discover(tmp_path, most_classes=2)
    batches = list(make_loader(dataset, pool).training(0, 4))
    named = {Path(text.partition(": ")[0]).name for batch in batches for text in batch.broken}
    assert named == {"cut.jpg", "empty.jpg", "text.jpg"}
    assert all(image.any() for batch in batches for image in batch.images)


def test_too_many_broken_files_stop_the_run(folder: Path, pool: ProcessPoolExecutor) -> None:
    loader = make_loader(discover(folder, most_classes=3), pool)
    loader.refuse_many_broken(9)
    with pytest.raises(DataError, match="10 of 60 files cannot be read"):
        loader.refuse_many_broken(10)


def test_a_folder_of_nothing_but_broken_files(tmp_path: Path, pool: ProcessPoolExecutor) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_text("no image")
    with pytest.raises(DataError, match="none of 2 images can be read"):
        make_loader(discover(tmp_path, most_classes=2), pool)
