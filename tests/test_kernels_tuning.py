"""Which tiles may be chosen, which are, and what measurements override."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from alexsim_kernels import tables, tuning
from alexsim_kernels.common import PRECISIONS, Config
from alexsim_kernels.tuning import SHARED_BYTES, Key, by_model, candidates, choose

KEYS = [
    Key(op, m, n, k, run, flat, precision)
    for op, m, n, k, run, flat in (
        ("forward", 387_200, 48, 363, 3, True),
        ("forward", 93_312, 128, 1200, 48, False),
        ("grad_input", 93_312, 48, 3200, 128, False),
        ("grad_weight", 128, 1200, 93_312, 48, False),
        ("linear forward", 128, 2048, 9216, 9216, False),
        ("linear grad_weight", 2048, 9216, 128, 9216, False),
        ("forward", 1, 1, 1, 1, False),
    )
    for precision in PRECISIONS
]


@pytest.mark.parametrize("capability", [80, 86, 90])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_candidates_fit_the_card(key: Key, capability: int) -> None:
    found = list(candidates(key, capability))
    assert found
    item = 2 if key.precision in ("bf16", "fp16") else 4
    for config in found:
        tile = item * (config.block_m + config.block_n) * config.block_k
        assert tile * config.stages < SHARED_BYTES[capability]
        sums = config.block_m * config.block_n / (32 * config.warps)
        assert sums < 255
    assert by_model(key, capability, 132) in found


def test_the_model_prefers_large_tiles_for_large_products_and_small_ones_for_small() -> None:
    large = by_model(KEYS[6], 90, 132)  # conv2 forward, fp32x3
    small = by_model(KEYS[-1], 90, 132)
    assert large.block_m * large.block_n >= 64 * 64
    assert small.block_n == 16
    assert small.block_m <= 32


def test_batches_of_a_size_share_a_tile_and_other_shapes_do_not() -> None:
    one, other = (Key("forward", m, 128, 1200, 48, False, "tf32") for m in (93_312, 70_000))
    assert one.name() == other.name()
    names = {key.name() for key in KEYS}
    assert len(names) == len(KEYS)


def test_what_was_measured_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card = tuning.Card("NVIDIA X, triton 3", 90, 132)
    monkeypatch.setattr(tuning, "interpreted", lambda: False)
    monkeypatch.setattr(tuning, "card_of", lambda _: card)
    like, key, config = torch.empty(1), KEYS[8], Config(16, 16, 16, 4, 2)

    def keep(name: str, tile: Config) -> None:
        tables.keep(name, {"tiles": {key.name(): asdict(tile)}})

    assert choose(key, like) == by_model(key, 90, 132) != config
    keep(card.name, config)
    keep("another card", Config(32, 32, 32))
    assert choose(key, like) == config
    assert set(json.loads(tables.cache_file().read_text("utf-8"))) == {card.name, "another card"}
    # A file that something else broke is made anew, not a failure.
    for broken in ("{", "[]", '{"card": {"tiles": []}}', '{"card": {"sides": {}}}'):
        tables.cache_file().write_text(broken, encoding="utf-8")
        tables._cached.cache_clear()
        assert choose(key, like) == by_model(key, 90, 132)
    keep(card.name, config)
    assert choose(key, like) == config
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kernels.json"]
