"""Tables of measured kernels: the call that each row timed, and what no model is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_table import (
    COLUMNS,
    CONVOLUTION,
    MEMORY,
    PRODUCT,
    entry_of,
    row_of,
    some_kernels,
    table_text,
    timed,
    write_table,
)

from alexsim.costs.features import NAMES, STATED
from alexsim.errors import ProfileError
from alexsim.fidelity.kernel_calls import call_of
from alexsim.fidelity.kernel_fields import Unlike, device_of
from alexsim.fidelity.kernel_fit import Choices, teaching
from alexsim.fidelity.kernel_rows import KernelRow, are_kernels, read_kernels


def named(row: Mapping[str, str], **changed: str) -> dict[str, float]:
    """Features of a row's call, by name."""
    learned = call_of(row_of(row, **changed)).learned
    return dict(zip(NAMES[learned.kind], learned.features, strict=True))


def test_calls_do_the_arithmetic_that_their_shapes_say() -> None:
    flop = 2 * 16 * 96 * 28 * 28 * 64 * 9
    assert call_of(row_of(CONVOLUTION)).flop == flop
    assert call_of(row_of(CONVOLUTION, groups="4")).flop == flop / 4
    assert call_of(row_of(CONVOLUTION, passes="train-step")).flop == 3 * flop
    assert call_of(row_of(PRODUCT)).flop == 2 * 512 * 256 * 128
    assert call_of(row_of(PRODUCT, op="bmm", batch="5")).flop == 10 * 512 * 256 * 128
    assert call_of(row_of(MEMORY)).flop == 0
    # Pads at the end alone: 29 x 29 outputs, one more to a side.
    ended = call_of(row_of(CONVOLUTION, extra='{"pad_end": 1}'))
    assert ended.flop == flop / 28**2 * 29**2
    depthwise = named(CONVOLUTION, groups="64", out_channels="64")
    assert depthwise["depthwise"] == 1
    assert named(CONVOLUTION)["depthwise"] == 0


def test_a_step_costs_more_than_its_passes_and_a_layout_its_turns() -> None:
    passes = ("forward", "grad_input", "grad_weight")
    each = [call_of(row_of(CONVOLUTION, passes=name)).base_s for name in passes]
    step = call_of(row_of(CONVOLUTION, passes="train-step")).base_s
    assert step > sum(each)
    adam = call_of(row_of(CONVOLUTION, passes="train-step", extra='{"opt": "adam"}')).base_s
    assert adam > step
    assert call_of(row_of(CONVOLUTION, layout="NHWC")).base_s > each[0]
    assert call_of(row_of(CONVOLUTION, extra='{"bias": 1, "act": "relu"}')).base_s > each[0]
    assert named(CONVOLUTION, extra='{"bias": 1, "act": "relu"}')["epilogue"] == 3


def test_clocks_and_algorithms_are_those_stated() -> None:
    name = "Tesla P100"
    assert device_of(name, "application clocks 810 MHz").clock_hz.value == 810e6
    sheet = device_of(name, "").clock_hz.value
    assert sheet > 1e9
    slow = call_of(row_of(PRODUCT, device_clock_notes="application clocks 405 MHz"))
    assert slow.base_s > call_of(row_of(PRODUCT)).base_s
    stated = named(CONVOLUTION, algorithm="FFT")
    assert stated["algorithm"] > 0
    chosen = call_of(row_of(CONVOLUTION, algorithm="FFT"), as_stated="")
    assert chosen.learned == call_of(row_of(CONVOLUTION)).learned
    fastest = call_of(row_of(CONVOLUTION)).base_s
    for algorithm in ("IMPLICIT_GEMM", "GEMM", "FFT", "WINOGRAD", "im2col+GEMM"):
        assert call_of(row_of(CONVOLUTION, algorithm=algorithm)).base_s >= fastest
    assert call_of(row_of(CONVOLUTION, source="x/ck-caffe-y")).overhead_s == 8e-6


def test_what_a_library_chose_is_the_fastest_of_all_that_were_timed_or_what_it_advises() -> None:
    def row(algorithm: str, time_s: float, notes: str = "", **more: str) -> KernelRow:
        return row_of(CONVOLUTION, algorithm=algorithm, time_s=str(time_s), notes=notes, **more)

    advice = "algorithm that cuDNN advises"
    all_ways = [row("FFT", 0.2), row("GEMM", 0.1), row("WINOGRAD", 0.105)]
    searched = [
        row("GEMM", 0.1, "fastest of all algorithms", batch="8"),
        row("IMPLICIT_GEMM", 0.3, advice, batch="8"),
        row("WINOGRAD", 0.1, "fastest of all algorithms", batch="9"),
        row("", 0.1, batch="10"),
    ]
    choices = Choices()
    rows = list(choices.noted([*all_ways, *searched]))
    # One call differs from the next by percents: what is as good as the fastest counts too.
    ways = [choices.of(each) for each in rows]
    assert ways == [[], [""], [""], [""], ["advised"], ["", "advised"], []]
    stated, chosen = teaching(rows, choices)
    assert len(stated) == len(rows)
    told = NAMES["convolution"].index("algorithm")
    assert [STATED[int(call.learned.features[told])] for call in chosen] == [
        way for each in ways for way in each
    ]
    assert all(call.base_s == call_of(row_of(CONVOLUTION)).base_s for call in chosen[:2])


def test_half_precision_is_for_cards_that_have_it() -> None:
    assert call_of(row_of(CONVOLUTION, precision="fp16")).learned.realm == "half"
    whole, half = (call_of(row_of(MEMORY, precision=p)).base_s for p in ("fp32", "fp16"))
    assert half < whole
    with pytest.raises(Unlike, match="half-precision arithmetic at a small share"):
        call_of(row_of(CONVOLUTION, precision="fp16", device="GeForce GTX 1080 Ti"))


@pytest.mark.parametrize(
    ("base", "changed", "why"),
    [
        (CONVOLUTION, {"device": "Abacus 3"}, "no data sheet: Abacus 3"),
        (CONVOLUTION, {"extra": '{"pad_end": "wide"}'}, "pad_end must be a whole number, or two"),
        (CONVOLUTION, {"extra": '{"pad_end": [1]}'}, "pad_end must be a whole number, or two"),
        (PRODUCT, {"m": "", "extra": '{"flops": "many"}'}, "flops are not stated"),
        (MEMORY, {"op": "stream", "extra": '{"bytes": -1}'}, "bytes must be above 0: -1"),
        (MEMORY, {"op": "stream", "extra": ""}, "bytes are not stated"),
        (CONVOLUTION, {"op": "sort"}, "no model of the op: sort"),
        (CONVOLUTION, {"passes": "sideways"}, "no model of the pass"),
        (CONVOLUTION, {"batch": ""}, "batch is not stated"),
        (CONVOLUTION, {"batch": "many"}, "batch is not stated"),
        (CONVOLUTION, {"height": "inf"}, "height must be a finite number"),
        (CONVOLUTION, {"kernel_h": "99"}, "larger than the padded image"),
        (CONVOLUTION, {"stride_h": "0"}, "the filter"),
        (CONVOLUTION, {"kernel_w": "0"}, "the filter"),
        (CONVOLUTION, {"out_channels": "0"}, "the filter"),
        (CONVOLUTION, {"extra": "{"}, "extra is not JSON"),
        (PRODUCT, {"m": "0"}, "without rows, columns or depth"),
        (PRODUCT, {"passes": "backward"}, "no model of the pass"),
        (MEMORY, {"algorithm": "erf of erf"}, "no model of the op: elementwise erf of erf"),
        (MEMORY, {"in_channels": "0"}, "without values"),
        (MEMORY, {"op": "memcpy", "extra": '{"what": "host to device"}'}, "a transfer"),
        (MEMORY, {"op": "memcpy"}, "bytes are not stated"),
    ],
)
def test_what_cannot_be_predicted_has_a_reason_whatever_its_time(
    base: Mapping[str, str], changed: dict[str, str], why: str
) -> None:
    for seconds in ("", "1e-3"):
        with pytest.raises(Unlike, match=why):
            call_of(row_of(base, **changed, time_s=seconds))


SIZES = st.integers(1, 300).map(str)


@given(
    st.data(),
    st.sampled_from(["Tesla P100", "Tesla T4", "GeForce GTX 1080 Ti", "Tesla K80"]),
    st.sampled_from(["forward", "grad_input", "grad_weight", "train-step"]),
)
def test_a_mechanism_is_never_over_the_peaks(data: st.DataObject, device: str, passes: str) -> None:
    """Of direct algorithms; Winograd and FFT do fewer multiply-adds."""
    shape = {side: data.draw(SIZES) for side in ("in_channels", "out_channels", "height")}
    algorithm = data.draw(st.sampled_from(["IMPLICIT_GEMM", "GEMM"]))
    row = row_of(
        CONVOLUTION, device=device, passes=passes, width=shape["height"], algorithm=algorithm,
        batch=data.draw(st.integers(1, 64).map(str)), **shape,
    )  # fmt: skip
    call = call_of(row)
    peak = device_of(device, "").product_flop_per_s
    assert call.base_s * peak >= call.flop * (1 - 1e-9)
    sides = {side: data.draw(SIZES) for side in "mnk"}
    for product in (row_of(PRODUCT, device=device, **sides), row_of(MEMORY, device=device)):
        made = call_of(product)
        assert made.base_s >= made.least_s * (1 - 1e-9)
        assert made.roofline_s >= made.least_s


def test_tables_are_read_plain_or_zipped(tmp_path: Path) -> None:
    plain = write_table(tmp_path / "k.csv", some_kernels())
    zipped = write_table(tmp_path / "k.csv.gz", some_kernels())
    assert are_kernels(str(plain))
    assert not are_kernels("published")
    rows = [*read_kernels(str(plain))]
    assert [*read_kernels(str(zipped))] == rows
    assert len(rows) == 12
    assert all(row.time_s for row in rows)
    # Blind rows have no time, and need no id.
    blind = [{k: "" if k in ("time_s", "id") else v for k, v in e.items()} for e in some_kernels()]
    read = [*read_kernels(str(write_table(tmp_path / "blind.csv", blind)))]
    assert [row.time_s for row in read] == [None] * 12
    assert read[0].id == "line 2"


def test_a_bad_number_or_a_missing_column_is_named(tmp_path: Path) -> None:
    for bad in ("fast", "0", "-1", "nan", "inf"):
        path = write_table(tmp_path / "k.csv", [entry_of(PRODUCT, time_s=bad)])
        with pytest.raises(ProfileError, match="line 2: time_s must be above 0, got"):
            [*read_kernels(str(path))]
    (tmp_path / "short.csv").write_text(table_text([]).replace(",stride_w", ""))
    with pytest.raises(ProfileError, match="lacks the column stride_w"):
        [*read_kernels(str(tmp_path / "short.csv"))]
    with pytest.raises(ProfileError, match="there is no"):
        [*read_kernels(str(tmp_path / "gone.csv"))]
    assert "time_s" in COLUMNS
    row = row_of(PRODUCT)
    assert float(timed(row, 2.0)["time_s"]) == pytest.approx(2 * call_of(row).base_s)
