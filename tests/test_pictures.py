"""``model predict``, ``nearest`` and ``filters``, as their users see them; pixels included."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny import CLASSES, MARGIN, SIDE, write_weights

from alexsim.cli.app import main
from alexsim.report.pictures import PAPER, Canvas, enlarged, fitted, levels
from alexsim.report.prediction import _Bar
from alexsim.train.weights import Weights, load_weights

QUICK = ("--threads", "1", "--workers", "1")
GAP, HEADING, CAPTION, ROW, PAIR = 40, 30, 48, 42, 8
"""Of the picture of guesses, as is drawn: pixels."""
TIMES = 448 // SIDE
SHOWN = TIMES * SIDE


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(one) for one in arguments])
    return int(caught.value.code or 0)


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run(*arguments, *QUICK, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def weights(model: Path) -> Weights:
    return load_weights(model)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of five pictures of the square's size, the third grey."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(3)
    for label, name in enumerate(CLASSES):
        for split, count in (("train", 3), ("val", 5)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                shape = (27, 27) if label == 2 else (27, 27, 3)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def crop_of(path: Path) -> np.ndarray:
    inner = slice(MARGIN, MARGIN + SIDE)
    return pixels_of(path)[inner, inner]


def test_probabilities_are_those_of_eval_to_the_bit(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((data / "val").glob("*/*.png"))
    for views in ("1", "10"):
        told = tmp_path / f"{views}.json"
        evaluated = ("eval", model, "--data", data, "--views", views, "--batch", "16")
        asked(capsys, *evaluated, "--predictions", told)
        document = asked(capsys, "model", "predict", model, *images, "--views", views)
        rows = json.loads(told.read_text())["predictions"]
        assert len(rows) == len(document["images"]) == 15
        for row, own in zip(rows, document["images"], strict=True):
            assert (own["file"], own["class"]) == (row["file"], row["class"])
            assert [(one["class"], one["probability"]) for one in own["guesses"]] == [
                (row[f"guess{place}"], row[f"probability{place}"]) for place in (1, 2, 3)
            ]
            assert len(own["filters"]) == 5


def test_predict_prints_bars_and_names_what_is_broken(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half.png").write_bytes((data / "val" / "dark" / "1.png").read_bytes()[:500])
    dark = data / "val" / "dark" / "0.png"
    assert (
        run("model", "predict", model, tmp_path / "half.png", dark, tmp_path / "gone.jpg", *QUICK)
        == 0
    )
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{dark} (dark)"
    bars = [line for line in lines if "%" in line]
    assert sum(float(line.split()[1]) for line in bars) == pytest.approx(100, abs=0.02)
    for line in bars:
        name, percent, *rest = line.split()
        assert len(line) <= 80
        halves = 2 * line.count("█") + line.count("▌")
        assert halves == round(2 * 28 * float(percent) / 100)
        assert ("right" in rest) == (name == "dark")
    assert [line.partition(": ")[2].partition(":")[0] for line in lines if "not read" in line] == [
        str(tmp_path / "half.png"), str(tmp_path / "gone.jpg"),
    ]  # fmt: skip


def test_guesses_are_drawn_as_in_the_paper(
    model: Path, weights: Weights, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [data / "val" / "dark" / "0.png", data / "val" / "middle" / "0.png"]
    out = tmp_path / "out.png"
    document = asked(capsys, "model", "predict", model, *images, "-o", out)
    picture = pixels_of(out)
    cell = (SHOWN - 4 * PAIR) // 5
    width = SHOWN + 2 * (cell + PAIR) + PAIR
    assert picture.shape[1] == 2 * (width + GAP) + GAP
    for index, (path, told) in enumerate(zip(images, document["images"], strict=True)):
        left, top = GAP + index * (width + GAP), GAP + HEADING
        drawn = picture[top : top + SHOWN, left : left + SHOWN]
        np.testing.assert_array_equal(drawn[::TIMES, ::TIMES], crop_of(path))
        np.testing.assert_array_equal(drawn[TIMES - 1 :: TIMES, TIMES - 1 :: TIMES], crop_of(path))
        assert_filters(picture, told["filters"], weights, crop_of(path), left + SHOWN, top, cell)
        assert_bars(picture, told, left, top + SHOWN + CAPTION, width)


def assert_filters(
    picture: np.ndarray, told: list, weights: Weights, crop: np.ndarray, left: int, top: int,
    cell: int,
) -> None:  # fmt: skip
    times = cell // 5
    shift = (cell - 5 * times) // 2
    padded = np.full((30, 30, 3), 128, np.uint8)
    padded[3:27, 3:27] = crop
    for place, one in enumerate(told):
        y = top + place * (cell + PAIR) + shift
        x = left + 2 * PAIR + shift
        own = weights.state[f"conv1.{one['column']}.weight"][one["filter"]].numpy()
        exact = 127.5 + 127.5 * own / np.abs(own).max()
        filter_ = picture[y : y + 5 * times : times, x : x + 5 * times : times]
        np.testing.assert_allclose(filter_, exact.transpose(1, 2, 0), atol=0.51)
        x += cell + PAIR
        patch = picture[y : y + 5 * times : times, x : x + 5 * times : times]
        row, column = one["top"] + 3, one["left"] + 3
        np.testing.assert_array_equal(patch, padded[row : row + 5, column : column + 5])


def assert_bars(picture: np.ndarray, told: dict, left: int, top: int, width: int) -> None:
    for place, guess in enumerate(told["guesses"]):
        # Below the letters and above the bar's end there is nothing but the bar.
        line = picture[top + place * ROW + ROW - 6, left : left + width]
        length = round(guess["probability"] * width)
        assert len(np.unique(line[:length], axis=0)) == 1
        assert (line[length:] == PAPER).all()
        red, _, blue = line[0].tolist()
        assert (red > blue) == (guess["class"] == told["class"])


def test_nearest_draws_a_row_per_image(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    images = [data / "val" / "dark" / "0.png", data / "train" / "middle" / "1.png"]
    document = asked(capsys, "model", "nearest", model, *images, "--data", data, "-k", 3, "-o", out)
    assert document["layer"] == "relu2"
    assert [one["file"] for one in document["images"]] == [str(path) for path in images]
    picture = pixels_of(out)
    times = 224 // SIDE
    side = times * SIDE
    first, step, height = 30 + side + 60, side + 12, side + 40 + 12
    assert picture.shape[1] == first + 3 * step - 12 + 30
    for index, told in enumerate(document["images"]):
        near = [Path(one["file"]) for one in told["nearest"]]
        assert len(near) == 3
        assert images[index] not in near
        assert all(path.is_relative_to(data / "val") for path in near)
        top = 30 + 44 + index * height
        for left, path in zip(
            (30, first, first + step, first + 2 * step), (images[index], *near), strict=True
        ):
            drawn = picture[top : top + side, left : left + side]
            np.testing.assert_array_equal(drawn[::times, ::times], crop_of(path))
            below = picture[top + side + 2 : top + height - 12, left : left + side].astype(int)
            other = path.parent.name != images[index].parent.name
            # Text in red where the class is another; black or grey are as bright in all colours.
            assert bool((np.ptp(below, axis=2) > 60).any()) == other
            assert (below.min(2) < 128).any()


def test_nearest_prints_a_table_per_image(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = data / "val" / "dark" / "0.png"
    document = asked(capsys, "model", "nearest", model, image, "--data", data, "--split", "train")
    assert run("model", "nearest", model, image, "--data", data, "--split", "train", *QUICK) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{image} (dark)\nnearest train images by relu2\n")
    rows = [line.split() for line in out.splitlines() if "train/" in line]
    assert [f"{data}/{row[3]}" for row in rows] == [
        one["file"] for one in document["images"][0]["nearest"]
    ]
    assert [row[:3] for row in rows] == [
        [str(place), f"{one['distance']:.2f}", one["class"]]
        for place, one in enumerate(document["images"][0]["nearest"], start=1)
    ]


def test_the_set_may_have_other_classes(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        folder = tmp_path / f"other{number}"
        folder.mkdir()
        for index in range(10):
            Image.new("L", (40, 30), 20 * number + index).save(folder / f"{index}.png")
    image = tmp_path / "other3" / "1.png"
    document = asked(
        capsys, "model", "nearest", model, image, "--data", tmp_path, "--split", "train"
    )
    (told,) = document["images"]
    assert told["class"] == "other3"
    assert len(told["nearest"]) == 5


def test_filters_stand_side_by_side(
    model: Path, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "filters.png"
    assert run("model", "filters", model, "-o", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["device"] for one in document["columns"]] == ["GPU 0", "GPU 1"]
    picture = pixels_of(out)
    # Four filters of 5 x 5 and a pixel around each: two in a row.
    times = 800 // 13
    top = 20 + 56 + 48
    for index, told in enumerate(document["columns"]):
        own = weights.state[f"conv1.{told['column']}.weight"].numpy()
        assert told["lowest"] == float(own.min())
        left = 40 + index * (13 * times + 40)
        drawn = picture[top : top + 13 * times : times, left : left + 13 * times : times]
        assert (drawn[0] == 255).all()
        for number, one in enumerate(own):
            y, x = 6 * (number // 2) + 1, 6 * (number % 2) + 1
            exact = (127.5 + 127.5 * one / np.abs(one).max()).transpose(1, 2, 0)
            np.testing.assert_allclose(drawn[y : y + 5, x : x + 5], exact, atol=0.51)


def test_one_channel_is_grey(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_weights(tmp_path, "lenet-5", classes=())
    image, out = data / "val" / "dark" / "0.png", tmp_path / "out.png"
    document = asked(capsys, "model", "predict", model, image, "-o", out)
    (told,) = document["images"]
    assert told["class"] is None
    assert {one["class"].split()[0] for one in told["guesses"]} == {"output"}
    assert len(told["filters"]) == 5
    picture = pixels_of(out).astype(int)
    side = 448 // 32 * 32
    drawn = picture[GAP + HEADING : GAP + HEADING + side, GAP:]
    assert (np.ptp(drawn, axis=2) == 0).all()
    near = asked(capsys, "model", "nearest", model, image, "--data", data, "-k", 2, "-o", out)
    assert len(near["images"][0]["nearest"]) == 2
    assert run("model", "filters", model, "-o", out) == 0
    assert (np.ptp(pixels_of(out).astype(int), axis=2) == 0).all()
    assert capsys.readouterr().out.startswith(f"{out}: ")


def test_filters_that_are_no_pictures_are_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat.py").write_text(
        "from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy\n"
        "from alexsim.network.network import Network\n"
        "net = Network(name='flat', input_shape=(3, 24, 24), layers=("
        "FullyConnected(name='fc1', units=3), SoftmaxCrossEntropy(name='softmax')))\n"
    )
    (tmp_path / "out").mkdir()
    model = write_weights(tmp_path / "out", f"{tmp_path / 'flat.py'}:net")
    image, out = data / "val" / "dark" / "0.png", tmp_path / "out.png"
    assert asked(capsys, "model", "predict", model, image, "-o", out)["images"][0]["filters"] == []
    assert pixels_of(out).shape[1] == SHOWN + 2 * GAP
    assert run("model", "filters", model, "-o", out) == 2
    assert "fc1, is no convolution" in capsys.readouterr().err
    assert run("model", "nearest", model, image, "--data", data) == 2
    assert "no hidden layer" in capsys.readouterr().err


def test_wordnet_ids_are_shown_with_their_names(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wnids = ("n00000001", "n00000002", "n00000003")
    model = write_weights(tmp_path, classes=wnids)
    image = tmp_path / "set" / wnids[1] / "a.png"
    image.parent.mkdir(parents=True)
    image.write_bytes((data / "val" / "dark" / "0.png").read_bytes())
    assert run("model", "predict", model, image, *QUICK) == 0
    assert "(n00000002)\n" in capsys.readouterr().out
    lines = "n00000001 tench, Tinca tinca\nn00000002 great white shark\nn00000003 a " + "b" * 60
    (tmp_path / "synset_words.txt").write_text(lines)
    (tmp_path / "nameless").mkdir()
    nameless = write_weights(tmp_path / "nameless", classes=())
    # Beside the set; then named; then for a network that knows no names.
    for given, own in (
        ((), model),
        (("--names", tmp_path / "synset_words.txt"), model),
        (("--names", tmp_path / "synset_words.txt"), nameless),
    ):
        assert run("model", "predict", own, image, *given, *QUICK) == 0
        out = capsys.readouterr().out
        assert "(n00000002 great white shark)\n" in out
        assert "n00000001 tench  " in out
        assert max(len(line) for line in out.splitlines()[1:]) <= 80
    document = asked(capsys, "model", "predict", model, image)
    assert {one["words"] for one in document["images"][0]["guesses"]} >= {"great white shark"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", "predict", "gone", "IMAGE", "-o", "x.jpg"), "ends in .png; got x.jpg"),
        (("model", "predict", "gone", "IMAGE", "-o", "/gone/x.png"), "there is no folder /gone"),
        (("model", "predict", "gone", "IMAGE"), "gone: no such run or file"),
        (
            ("model", "predict", "MODEL", "IMAGE", "--views", "3"),
            "--views must be one of 1, 10; got '3'",
        ),
        (("model", "predict", "MODEL", "IMAGE", "--batch", "0"), "--batch must be at least 1"),
        (("model", "predict", "MODEL", "/dev/null", "gone.jpg"), "none of 2 images can be read"),
        (("model", "predict", "MODEL", "IMAGE", "--names", "MODEL"), "cannot read"),
        (("model", "predict", "MODEL", "IMAGE", "-o", "FOLDER.png"), "cannot write"),
        (("model", "predict", "MODEL"), "IMAGE"),
        (("model", "nearest", "MODEL", "IMAGE", "--data", "gone"), "--data gone: no such folder"),
        (
            ("model", "nearest", "MODEL", "IMAGE", "--data", "DATA", "-k", "0"),
            "-k must be at least 1",
        ),
        (("model", "nearest", "MODEL", "IMAGE", "--data", "DATA", "-k", "16"), "has 15 images"),
        (("model", "nearest", "MODEL", "IMAGE", "--data", "DATA", "--split", "x"), "no split 'x'"),
        (
            ("model", "nearest", "MODEL", "gone.jpg", "--data", "DATA"),
            "none of 1 images can be read",
        ),
        (
            ("model", "nearest", "MODEL", "IMAGE", "--data", "DATA", "-o", "x"),
            "ends in .png; got x",
        ),
        (("model", "filters", "MODEL", "-o", "x.svg"), "ends in .png; got x.svg"),
        (("model", "filters", "MODEL"), "'-o'"),
    ],
)
def test_mistakes_take_one_line(
    arguments: tuple[str, ...],
    message: str,
    model: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER.png").mkdir()
    known = {"MODEL": model, "DATA": data, "IMAGE": data / "val" / "dark" / "0.png"}
    assert run(*(known.get(one, one) for one in arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("alexsim: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["FOLDER.png"]


def test_a_long_name_is_shortened_to_its_room() -> None:
    canvas = Canvas(200, 40)
    used = canvas.text(20, 20, "n" * 99 + "\nsecond line", size=20, room=120)
    drawn = np.asarray(canvas.image)
    assert used <= 120
    assert (drawn[:, 20 + 121 :] == 255).all()
    assert (drawn[:, 20:140] < 128).any()
    assert fitted("two\nlines", 20, 500) == "two lines"


def test_whole_pixels_are_enlarged_and_large_images_stay() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    drawn = np.asarray(enlarged(pixels, 7))
    assert drawn.shape == (6, 6, 3)
    np.testing.assert_array_equal(drawn[1::3, 1::3], pixels)
    assert enlarged(np.zeros((9, 9, 1), np.uint8), 7).size == (9, 9)


def test_a_filter_of_zeros_is_mid_grey() -> None:
    assert (levels(np.zeros((1, 3, 2, 2), np.float32)) == 128).all()


def test_bars_where_a_terminal_knows_no_blocks() -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)
    with console.capture() as caught:
        console.print(_Bar(0.5))
    assert caught.get().strip() == "#" * 14
