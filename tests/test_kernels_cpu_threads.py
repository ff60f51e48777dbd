"""CPU convolutions by any number of threads: the same bits, and scratch that is bounded."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from cpu_cases import TYPES, same_for_threads
from cpu_convolutions import CASES, LAYERS, Passes, shape_of
from hypothesis import given
from hypothesis import strategies as st

from alexsim_kernels.cpu import cuts, scratch, sizes
from alexsim_kernels.cpu.algorithm import PASSES, Pass, Shape, choose

UNEVEN = {
    "winograd": replace(CASES["conv3"], images=5),
    "five taps": replace(CASES["conv2"], images=3, filters=80),
    "folded": replace(CASES["conv1 padded"], images=3),
    "groups": replace(CASES["groups"], images=3),
    "direct": shape_of(3, 40, (17, 15), 150, (3, 3), (9, 8), stride=(2, 2), padding=(1, 1)),
    "direct, groups": shape_of(5, 40, (9, 11), 60, (1, 3), (9, 11), padding=(0, 1), groups=4),
    "depthwise": CASES["depthwise, strided"],
}


@pytest.fixture(params=[None, 4, 16])
def small_cuts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are; or chunks of few tiles and pixels, several a slice, and filters in lots."""
    if request.param is None:
        return
    monkeypatch.setattr(scratch, "_WEIGHT_BYTES", 1 << 18)
    monkeypatch.setattr(scratch, "_THREAD_BYTES", 1 << 18)
    monkeypatch.setattr(scratch, "_BANKS_BYTES", request.param << 18)
    monkeypatch.setattr(scratch, "_SLICES", request.param)
    monkeypatch.setattr(cuts, "_CHUNK_BYTES", 1 << 16)


@pytest.mark.usefixtures("cpu_kernels", "small_cuts")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", UNEVEN)
def test_any_number_of_threads_makes_the_same_bits(name: str, dtype: torch.dtype) -> None:
    passes = Passes(UNEVEN[name], dtype)
    chosen = {p: choose(passes.shape, p) for p in PASSES}
    passes.check(chosen)
    same_for_threads(partial(passes.run, chosen), most=5)


@given(
    st.integers(1, 1000), st.integers(1, 40), st.integers(1, 64), st.integers(1, 1 << 24),
    st.integers(1, 64),
)  # fmt: skip
def test_slices_follow_from_the_shape_and_parts_keep_threads_busy(
    chunks: int, blocks: int, groups: int, values: int, threads: int
) -> None:
    count, parts = scratch.slices(chunks, blocks, groups, values, threads, 4)
    assert count == scratch.slices(chunks, blocks, groups, values, 1, 4)[0]
    assert 1 <= count <= chunks
    assert count == 1 or 4 * count * groups * values <= 16 << 20
    assert 1 <= parts <= blocks
    assert groups * count * parts >= 2 * threads or parts == blocks


@pytest.mark.parametrize("name", LAYERS)
def test_scratch_of_the_layers_of_2012_is_bounded(name: str) -> None:
    layer = LAYERS[name]
    for pass_ in PASSES[:: 2 if layer.stride > (1, 1) else 1]:
        one, two, three = (_bytes(layer, pass_, threads) for threads in (1, 2, 3))
        assert two < 32 << 20
        assert abs(three - two - (two - one)) <= 4 * scratch.ALIGNMENT  # each thread has as much
        assert _bytes(replace(layer, images=8), pass_, 2) <= two
        # More images take more sums at most, and those are bounded.
        assert _bytes(replace(layer, images=1024), pass_, 2) < 32 << 20


def _bytes(shape: Shape, pass_: Pass, threads: int) -> int:
    return sizes.convolution(shape, pass_, threads=threads).bytes(4)
