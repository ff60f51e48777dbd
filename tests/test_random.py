"""Counter-based bits: known answers, and independence of who draws."""

from __future__ import annotations

import numpy as np
import pytest

from alexsim.execute.random import dropout_keep, key_of, normal, philox4x32


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Known answers of Random123 (Salmon et al. 2011), philox4x32-10.
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: tuple, key: tuple, expected: tuple) -> None:
    words = philox4x32(np.array(counter, dtype=np.uint64)[:, None], key)
    assert tuple(words[:, 0]) == expected


def test_parts_of_a_draw_are_the_draw_s_parts() -> None:
    draw = {"seed": 3, "layer": "dropout6", "step": 5, "rate": 0.5}
    whole = dropout_keep(images=range(8), units=range(4096), **draw)
    for first, last in ((0, 2048), (2048, 4096), (3, 10), (4095, 4096)):
        part = dropout_keep(images=range(2, 7), units=range(first, last), **draw)
        assert np.array_equal(part, whole[2:7, first:last])


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_the_rate_is_kept(rate: float) -> None:
    kept = dropout_keep(
        seed=0, layer="d", step=0, images=range(64), units=range(4096), rate=rate
    ).mean()
    # Six deviations of the mean of 262,144 draws.
    assert kept == pytest.approx(1 - rate, abs=6 * (rate * (1 - rate) / 262_144) ** 0.5)


def test_everything_in_the_key_matters() -> None:
    base = {"seed": 0, "layer": "d", "step": 0, "rate": 0.5}
    masks = [
        dropout_keep(images=range(4), units=range(64), **(base | change))
        for change in ({}, {"seed": 1}, {"layer": "e"}, {"step": 1})
    ]
    assert len({mask.tobytes() for mask in masks}) == 4
    assert key_of(0, "a", 12) != key_of(0, "a1", 2)


def test_first_weights_differ_by_layer_and_column() -> None:
    draws = [normal(seed=0, layer=la, column=c, shape=(9,)) for la in "xy" for c in (0, 1)]
    assert len({draw.tobytes() for draw in draws}) == 4
    large = normal(seed=0, layer="x", column=0, shape=(100_000,))
    assert abs(large.mean()) < 0.02
    assert large.std() == pytest.approx(1, abs=0.02)
