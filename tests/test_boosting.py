"""Boosted trees: the same bits again, the factor of a walk down each tree, what they learn."""

from __future__ import annotations

import io

import numpy as np

from alexsim.costs.features import NAMES
from alexsim.costs.trees import Forest, forests_from
from alexsim.fidelity.boosting import Growth, grow
from alexsim.fidelity.fit_files import forest_arrays

GROWTH = Growth(trees=60, depth=4, rate=0.2, features=0.7)
COLUMNS = len(NAMES["memory"])


def drawn(rows: int = 1500, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, some of few values, and a target of pieces of two of them."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, COLUMNS))
    features[:, 3] = random.integers(0, 5, rows)
    target = np.where(features[:, 0] > 0.3, 1.0, -0.5) + np.where(features[:, 3] > 2, 0.7, 0.0)
    return features, target, random.uniform(0.5, 2.0, rows)


def walked(forest: Forest, features: np.ndarray) -> float:
    """Down every tree, question by question."""
    total = forest.bias
    for tree in range(len(forest.feature)):
        node = 0
        for asked, threshold in zip(forest.feature[tree], forest.threshold[tree], strict=True):
            node = 2 * node + (1 if features[asked] > threshold else 0)
        total += forest.value[tree, node]
    return float(total)


def test_equal_rows_give_equal_bits_and_another_seed_gives_others() -> None:
    given = drawn()
    first, again = grow(*given, GROWTH), grow(*given, GROWTH)
    for name in ("feature", "threshold", "value", "low", "high"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert first.bias == again.bias
    other = grow(*given, Growth(trees=60, depth=4, rate=0.2, features=0.7, seed=2))
    assert other.value.tobytes() != first.value.tobytes()


def test_a_forest_gives_what_a_walk_down_its_trees_gives() -> None:
    features, target, weight = drawn()
    forest = grow(features, target, weight, GROWTH)
    unseen = drawn(700, seed=4)[0]
    expected = [walked(forest, row) for row in unseen]
    np.testing.assert_allclose(forest.log_factors(unseen), expected, rtol=1e-12, atol=1e-12)
    for row, value in zip(unseen[:20], expected, strict=False):
        assert abs(forest.log_factor(tuple(row.tolist())) - value) < 1e-12


def test_it_learns_a_function_of_pieces_on_rows_that_it_has_not_seen() -> None:
    forest = grow(*drawn(), GROWTH)
    features, target, _ = drawn(1000, seed=5)
    misses = np.abs(forest.log_factors(features) - target)
    assert np.median(misses) < 0.02
    assert np.quantile(misses, 0.9) < 0.1
    assert np.quantile(np.abs(target - target.mean()), 0.5) > 0.5


def test_heavier_rows_count_more() -> None:
    features = np.zeros((100, COLUMNS))
    features[:, 0] = np.arange(100) % 2
    target = np.where(np.arange(100) < 50, 1.0, 0.0)
    light = grow(features, target, np.where(target > 0, 1.0, 3.0), GROWTH)
    assert light.bias == 0.25


def test_a_row_falls_on_the_same_side_after_saving_and_loading() -> None:
    """Also rows that lie on a threshold: thresholds are numbers that the file holds exactly."""
    features, target, weight = drawn()
    # Values that single precision does not hold, many of them equal.
    features = np.round(features, 1) + 0.1
    forest = grow(features, target, weight, GROWTH)
    stream = io.BytesIO()
    np.savez_compressed(stream, **forest_arrays({("memory", "fp32"): forest}))  # type: ignore[arg-type]
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as stored:
        loaded = forests_from(stored, "it")["memory", "fp32"]
    place = (1 << np.arange(GROWTH.depth))[::-1]
    sides = [(features[:, f.feature] > f.threshold) @ place for f in (forest, loaded)]
    np.testing.assert_array_equal(*sides)
    on = forest.threshold[np.isfinite(forest.threshold)]
    np.testing.assert_array_equal(on, on.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(
        loaded.log_factors(features), forest.log_factors(features), atol=1e-5
    )
    assert all(loaded.inside(tuple(row.tolist())) for row in features[:50])
    assert not loaded.inside(tuple((features[0] + 99).tolist()))
