"""Filters that images excite, and their neighbours: each figure by another road."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASSES, MARGIN, SIDE, convolved, features, write_weights

from alexsim.data.dataset import Sample
from alexsim.data.words import words_of
from alexsim.editions.load import load_network
from alexsim.errors import DataError, NetworkError
from alexsim.evaluate import explain
from alexsim.evaluate.evaluate import feature_layer, forward
from alexsim.evaluate.explain import Picture, labelled, pictures, predictions, responses
from alexsim.evaluate.neighbours import neighbours
from alexsim.evaluate.setup import Setup
from alexsim.train.weights import Weights, load_weights

SETUP = Setup(batch_size=4, workers=1)


def nothing(_: int) -> None:
    pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return load_weights(write_weights(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fourteen pictures of just the square's size, without loss: what is read is what is there."""
    root = tmp_path_factory.mktemp("noisy")
    rng = np.random.default_rng(5)
    paths = []
    for index in range(14):
        path = root / CLASSES[index % 3] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (27, 27, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def crop_of(path: Path) -> np.ndarray:
    inner = slice(MARGIN, MARGIN + SIDE)
    return np.asarray(Image.open(path))[inner, inner]


def shown(weights: Weights, paths: list[Path]) -> tuple[Picture, ...]:
    return pictures(labelled(paths, CLASSES), load_network(weights.network))[0]


def test_pictures_are_the_centre_and_broken_ones_are_named(
    weights: Weights, noisy: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "half.png").write_bytes(noisy[0].read_bytes()[:900])
    paths = [tmp_path / "half.png", noisy[3], tmp_path, tmp_path / "gone.jpg", noisy[4]]
    found, broken = pictures(labelled(paths, CLASSES), load_network(weights.network))
    assert [one.sample.path for one in found] == [str(noisy[3]), str(noisy[4])]
    for one in found:
        np.testing.assert_array_equal(one.crop, crop_of(Path(one.sample.path)))
    assert [line.partition(":")[0] for line in broken] == [str(paths[i]) for i in (0, 2, 3)]
    with pytest.raises(DataError, match="none of 2 images can be read; the first: "):
        pictures(labelled(paths[2:4], CLASSES), load_network(weights.network))


def test_labels_come_from_folders(noisy: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(noisy[1].parent)
    given = [noisy[0], Path(noisy[1].name), noisy[2].parent.parent / "x.png"]
    assert [one.label for one in labelled(given, CLASSES)] == [0, 1, explain.NO_CLASS]


def test_the_strongest_filters_are_those_of_a_plain_convolution(
    weights: Weights, noisy: list[Path]
) -> None:
    found = responses(weights, shown(weights, noisy), SETUP)
    assert len(found) == len(noisy)
    over_the_edge = 0
    for path, own in zip(noisy, found, strict=True):
        crop = crop_of(path)
        # Grey where the image ends: one pixel before it, and two behind.
        padded = np.full((27, 27, 3), 128, np.uint8)
        padded[1:25, 1:25] = crop
        exact = convolved(weights, crop)
        peaks = exact.flatten(1).max(1)
        order = torch.argsort(peaks.values, descending=True)[:5].tolist()
        assert [4 * "ab".index(one.column) + one.filter for one in own] == order
        for index, one in zip(order, own, strict=True):
            assert one.layer == "conv1"
            assert one.activation == pytest.approx(float(peaks.values[index]), rel=1e-5)
            y, x = divmod(int(peaks.indices[index]), 12)
            assert (one.top, one.left) == (2 * y - 1, 2 * x - 1)
            np.testing.assert_array_equal(one.patch, padded[2 * y : 2 * y + 5, 2 * x : 2 * x + 5])
            over_the_edge += min(y, x) == 0 or max(y, x) == 11
    assert over_the_edge


def test_of_equal_filters_and_places_the_first_counts(weights: Weights, noisy: list[Path]) -> None:
    state = {
        name: torch.zeros_like(value) if name.startswith("conv1") else value
        for name, value in weights.state.items()
    }
    flat = Weights(
        network=weights.network,
        state=state,
        classes=CLASSES,
        normalisation="mean-image",
        mean=weights.mean,
    )
    (own,) = responses(flat, shown(weights, noisy[:1]), SETUP)
    assert [(one.column, one.filter, one.top, one.left) for one in own] == [
        ("a", 0, -1, -1), ("a", 1, -1, -1), ("a", 2, -1, -1), ("a", 3, -1, -1), ("b", 0, -1, -1),
    ]  # fmt: skip


def brute_force(weights: Weights, query: Path, paths: list[Path]) -> list[tuple[str, float]]:
    own = features(weights, crop_of(query))
    found = [
        (str(path), float(np.linalg.norm(features(weights, crop_of(path)) - own)))
        for path in paths
        if path != query
    ]
    return sorted(found, key=lambda one: one[1])


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_neighbours_are_those_of_brute_force(
    batch: int, weights: Weights, noisy: list[Path]
) -> None:
    queries, told = [noisy[9], noisy[0]], []
    found = neighbours(
        weights, shown(weights, queries), labelled(noisy, CLASSES),
        Setup(batch_size=batch, workers=1), count=5, done=told.append,
    )  # fmt: skip
    assert told[-1] == 2 + len(noisy)
    assert told == sorted(told)
    assert found.broken == ()
    for query, row in zip(queries, found.rows, strict=True):
        exact = brute_force(weights, query, noisy)[:5]
        assert row.query.sample.path == str(query)
        assert [one.picture.sample.path for one in row.nearest] == [path for path, _ in exact]
        np.testing.assert_allclose(
            [one.distance for one in row.nearest], [distance for _, distance in exact], rtol=1e-5
        )
        for one in row.nearest:
            path = Path(one.picture.sample.path)
            np.testing.assert_array_equal(one.picture.crop, crop_of(path))
            assert CLASSES[one.picture.sample.label] == path.parent.name


def test_distances_of_what_the_network_put_out_are_float64(
    weights: Weights, noisy: list[Path]
) -> None:
    queries, samples = shown(weights, noisy[:2]), labelled(noisy[2:], CLASSES)
    found = neighbours(weights, queries, samples, SETUP, count=12, done=nothing)
    with forward(weights, SETUP) as asked:
        own, others = (
            np.concatenate(
                [part.values for part in asked.activations(these, "relu2", done=nothing)]
            ).astype(np.float64)
            for these in ([one.sample for one in queries], samples)
        )
    for feature, row in zip(own, found.rows, strict=True):
        exact = sorted(np.linalg.norm(others - feature, axis=1))
        np.testing.assert_allclose([one.distance for one in row.nearest], exact, rtol=1e-14)


def test_equal_images_are_at_0_in_order_and_a_query_is_not_its_own(
    weights: Weights, noisy: list[Path], tmp_path: Path
) -> None:
    copies = [tmp_path / f"{name}.png" for name in "abcdef"]
    for path in copies:
        path.write_bytes(noisy[0].read_bytes())
    (tmp_path / "link").mkdir()
    link = tmp_path / "link" / "c.png"
    link.symlink_to(copies[2])
    (row,) = neighbours(
        weights, shown(weights, [link]), labelled(copies, ()), SETUP, count=4, done=nothing
    ).rows
    assert [Path(one.picture.sample.path).stem for one in row.nearest] == ["a", "b", "d", "e"]
    assert {one.distance for one in row.nearest} == {0.0}


def test_fewer_images_than_wanted_are_all_there_are(weights: Weights, noisy: list[Path]) -> None:
    (row,) = neighbours(
        weights, shown(weights, noisy[:1]), labelled(noisy[:3], CLASSES), SETUP,
        count=50, done=nothing,
    ).rows  # fmt: skip
    assert len(row.nearest) == 2
    (alone,) = neighbours(
        weights, shown(weights, noisy[:1]), labelled(noisy[:1], CLASSES), SETUP,
        count=1, done=nothing,
    ).rows  # fmt: skip
    assert alone.nearest == ()


def test_broken_images_of_the_set_are_named_and_never_near(
    weights: Weights, noisy: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    found = neighbours(
        weights, shown(weights, noisy[:1]), labelled([broken, *noisy[1:3]], CLASSES), SETUP,
        count=5, done=nothing,
    )  # fmt: skip
    assert [one.picture.sample.path for one in found.rows[0].nearest] == [
        path for path, _ in brute_force(weights, noisy[0], noisy[1:3])
    ]
    (line,) = found.broken
    assert line.startswith(str(broken))


def test_a_query_that_is_lost_on_the_way_is_told(
    weights: Weights, noisy: list[Path], tmp_path: Path
) -> None:
    lost = tmp_path / "lost.png"
    lost.write_bytes(noisy[0].read_bytes())
    queries = shown(weights, [noisy[1], lost])
    lost.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        neighbours(weights, queries, labelled(noisy, CLASSES), SETUP, count=1, done=nothing)
    with pytest.raises(DataError, match=r"cannot be read any more: .*lost\.png"):
        predictions(weights, queries, SETUP, views=1, filters=True, done=nothing)


def test_images_in_shards_are_neighbours_too(
    weights: Weights, noisy: list[Path], tmp_path: Path
) -> None:
    shard, samples = tmp_path / "shard.tar", []
    with tarfile.open(shard, "w") as tar:
        for path in noisy[1:4]:
            data = path.read_bytes()
            member = tarfile.TarInfo(path.name)
            member.size = len(data)
            offset = tar.offset + 512
            tar.addfile(member, io.BytesIO(data))
            crc = zlib.crc32(data)
            samples.append(
                Sample(path=str(shard), offset=offset, length=len(data), crc=crc, label=0)
            )
    (row,) = neighbours(
        weights, shown(weights, noisy[:1]), samples, SETUP, count=3, done=nothing
    ).rows
    exact = [Path(path).name for path, _ in brute_force(weights, noisy[0], noisy[1:4])]
    places = {sample.place: path.name for sample, path in zip(samples, noisy[1:4], strict=True)}
    assert [places[one.picture.sample.place] for one in row.nearest] == exact


def test_features_are_those_before_dropout(weights: Weights) -> None:
    assert feature_layer(weights.network) == "relu2"
    assert feature_layer("alexnet-2012") == "relu7"


def test_a_network_without_a_hidden_layer_has_no_features(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(
        "from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy\n"
        "from alexsim.network.network import Network\n"
        "net = Network(name='flat', input_shape=(3, 24, 24), layers=("
        "FullyConnected(name='fc1', units=3), SoftmaxCrossEntropy(name='softmax')))\n"
    )
    with pytest.raises(NetworkError, match=r"flat.*no hidden layer"):
        feature_layer(f"{tmp_path / 'flat.py'}:net")


def write_mapping(folder: Path) -> None:
    (folder / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\n")


@pytest.mark.parametrize(
    ("classes", "write", "expected"),
    [
        (("n01440764",), write_mapping, {"n01440764": "tench, Tinca tinca"}),
        (("cat",), write_mapping, {}),
        (("n01440764",), lambda _: None, {}),
    ],
)
def test_wordnet_ids_have_names_where_a_file_tells(
    classes: tuple[str, ...], write: Callable[[Path], None], expected: dict, tmp_path: Path
) -> None:
    write(tmp_path)
    assert words_of(classes, [tmp_path / "gone", tmp_path]) == expected


def test_a_given_file_of_names_must_have_some(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(os.linesep)
    with pytest.raises(DataError, match=r"names\.txt: no lines such as"):
        words_of(("cat",), [], tmp_path / "names.txt")
