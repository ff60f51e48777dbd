"""The bench of a card, its kernels: what is wrong is said, and what is not right is not timed."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
import torch

from alexsim.bench.card import ahead
from alexsim.plan.plan import OpKind
from alexsim_kernels import tuning
from alexsim_kernels.bench import convolution_cases
from alexsim_kernels.bench.card import right, tiles
from alexsim_kernels.bench.card.ceilings import ceilings_of
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.card.layer_times import rows as layer_rows
from alexsim_kernels.bench.card.predicted import predicted_of
from alexsim_kernels.bench.cases import Case, checked, timed_or_broken
from alexsim_kernels.bench.convolution_cases import PASSES
from alexsim_kernels.bench.row import Row, row_of
from alexsim_kernels.bench.timing import Ceilings
from alexsim_kernels.common import Config
from alexsim_kernels.shapes import ALEXNET, RESNET50

CARDS = ("h100", "h200")


def _case(error: float) -> Case:
    return Case(
        op="x", precision="fp32", batch=2, run=lambda: None, check=lambda: error, others=dict,
        moved_bytes=1,
    )  # fmt: skip


def test_what_is_wrong_or_not_written_has_failed() -> None:
    assert not checked(_case(1e-7)).failed
    assert "above 1e-05" in checked(_case(1e-4)).failed
    nothing = checked(_case(float("nan")))
    assert "nan" in nothing.failed
    assert nothing.error is None  # JSON has no such number


def test_a_wrong_kernel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By each pass's check: a value off by a little, and one that is not written."""
    computed = convolution_cases.convolution.forward
    shape = next(iter(right.SMALL.values()))
    case = next(iter(convolution_cases.convolutions("conv1", shape, "fp32", 2)))
    assert not checked(case).failed
    for spoil in (
        lambda y: y.mul_(1.001), lambda y: y[-1, :, 0, 0].fill_(torch.nan),
        lambda y: y[0].add_(y[0].std() / 100),
    ):  # fmt: skip

        def wrong(x: Any, w: Any, b: Any, y: Any, spoil: Any = spoil, **options: Any) -> None:
            computed(x, w, b, y, **options)
            spoil(y)

        monkeypatch.setattr(convolution_cases.convolution, "forward", wrong)
        assert checked(case).failed


def test_only_kinds_that_were_found_right_are_timed() -> None:
    kinds = {
        "pointers": Config(64, 64, 32),
        "rows": Config(64, 64, 32, loads="rows"),
        "pointers, persistent": Config(64, 64, 32, persistent=2),
        "descriptors": Config(64, 64, 32, loads="descriptors"),
        "descriptors, specialised": Config(64, 64, 32, loads="descriptors", specialised=True),
    }
    found = [
        Row(op="conv1 forward", error=1e-7),
        Row(op="a", precision="bf16", detail={"kind": "rows"}),
        Row(op="b", precision="bf16", detail={"kind": "pointers, persistent"}),
        Row(op="c", precision="bf16", detail={"kind": "pointers, persistent"}, failed="wrong"),
        Row(op="d", precision="bf16", detail={"kind": "descriptors"}),
        Row(op="d", precision="fp32x3", detail={"kind": "descriptors"}, failed="wrong"),
    ]
    job = Job(box_s=1, rows=[("right", row) for row in found])
    trusted, others = tiles._trusted(list(kinds.values()), "bf16", job)
    # What was wrong once is out, and so is what nobody checked; the usual way never is.
    assert trusted == [kinds["pointers"], kinds["rows"], kinds["descriptors"]]
    assert others == 2
    # Another precision has its own.
    assert tiles._trusted(list(kinds.values()), "fp32x3", job)[0] == [kinds["pointers"]]


def test_the_boldest_kind_is_checked_last() -> None:
    order = [
        "rows", "pointers, persistent", "descriptors", "descriptors, persistent",
        "descriptors, specialised",
    ]  # fmt: skip
    boldness = [right._boldness(kind) for kind in order]
    assert boldness == sorted(boldness)
    assert boldness[0] < boldness[2] < boldness[4]


def test_without_ceilings_one_line_says_so() -> None:
    job = Job(box_s=1, rows=[("ceilings", Row(op="copy", value=1.0))])
    with pytest.raises(RuntimeError, match=r"part \(a\) did not measure product fp32"):
        ceilings_of(job)
    with pytest.raises(RuntimeError, match="did not measure"):
        next(iter(layer_rows(job)))


def test_a_row_reads_as_people_do() -> None:
    for row, text in (
        (Row(op="copy", value=4.3e12, unit="B/s"), "4.3 TB/s"),
        (Row(op="product", value=7.88e14, unit="FLOP/s"), "788 TFLOP/s"),
        (Row(op="peak", value=33728600, unit="bytes", expected=33e6), "33,728,600 bytes  of 33,"),
        (Row(op="x", ours_ms=1.0, other="cuDNN", other_ms=2.0), "cuDNN    2.000   2.00 x"),
        (Row(op="x", failed="broken"), "failed: broken"),
    ):
        assert text in row.line()
        assert row_of(json.loads(json.dumps(row.document())) | {"part": "x"}) == row


# ------------------------------------------------------------------- predictions on record
@pytest.mark.parametrize("card", CARDS)
def test_all_that_is_timed_was_predicted(card: str) -> None:
    record = predicted_of(f"NVIDIA {card.upper()}")
    assert record.card == card
    names = [
        (f"{prefix}{name} {pass_}", batch)
        for layers, prefix, batch in ((ALEXNET, "", 128), (RESNET50, "res ", 64))
        for name, shape in layers.items()
        for pass_ in PASSES[: 2 if shape.images_alone else 3]
    ]
    names += [(f"{name} {pass_}", 128) for name in ("fc6", "fc8") for pass_ in PASSES]
    names += [("step", batch) for batch in (128, 1024)]
    names += [("step, not fused", batch) for batch in (128, 1024)]
    for op, batch in names:
        for precision in ("bf16", "fp32x3", "tf32", "fp32"):
            assert (record.ms(op, precision, batch) or 0) > 0, (op, precision)
    for case in (case for some in right.cases(rehearse=True) for case in some):
        if not case.flop:
            assert (record.ms(case.op, "fp32", 128) or 0) > 0, case.op


def test_a_card_with_faster_memory_is_never_predicted_slower() -> None:
    """An H200 is an H100 with other memory."""
    h100, h200 = (predicted_of(f"NVIDIA {card.upper()}").times for card in CARDS)
    assert h100.keys() == h200.keys()
    assert all(h200[op] <= h100[op] * 1.000001 for op in h100)
    assert any(h200[op] < h100[op] / 1.1 for op in h100)


def test_the_record_is_what_the_model_says() -> None:
    """Some kernels, compiled and predicted anew."""
    script = (
        "from alexsim.bench.predictions import Predictor, _row\n"
        "from alexsim.machine.device import load_device\n"
        "from alexsim_kernels.bench.convolution_cases import convolutions\n"
        "from alexsim_kernels.shapes import ALEXNET\n"
        "predictor = Predictor(load_device('h200'))\n"
        "for case in convolutions('conv5', ALEXNET['conv5'], 'bf16', 128, place='meta'):\n"
        "    made = predictor.of(case.run, case.precision, case.moved_bytes)\n"
        "    print(_row(case.op, case.precision, case.batch, made).predicted_ms)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    record = predicted_of("NVIDIA H200")
    wanted = [record.ms(f"conv5 {pass_}", "bf16", 128) for pass_ in PASSES]
    assert [float(line) for line in ran.stdout.split()] == pytest.approx(wanted, rel=1e-6), (
        "changed: python -m alexsim.bench.predictions --machine h200 -o FILE"
    )


def test_the_records_say_what_they_are_of() -> None:
    folder = files("alexsim_profiles") / "baselines" / "predicted"
    for card in CARDS:
        document = json.loads((folder / f"{card}.json").read_text("utf-8"))
        assert document["card"] == card
        assert document["triton"]
        assert document["schema"] == 1


def test_what_raises_is_a_row_and_ends_nothing() -> None:
    def broken() -> float:
        raise RuntimeError("first line\nno such thing")

    row = checked(replace(_case(0.0), check=broken))
    assert row.failed == "RuntimeError: no such thing"
    row = timed_or_broken(replace(_case(0.0), run=broken), Ceilings(1.0, {}))
    assert row.failed == "RuntimeError: no such thing"


def test_what_steps_launch_is_known_without_memory() -> None:
    """Every op of the plan that a kernel runs, once per device."""
    planned = ahead.step_plan(4, fused=True)
    ops = [op for op, _ in ahead.step_launches(planned, "bf16")]
    uploads = [op for op in planned.ops() if op.kind == OpKind.UPLOAD]
    assert ops == [op for op in planned.ops() if op not in uploads]
    assert len(uploads) == 1


def test_a_tile_for_wide_operands_is_another_one() -> None:
    narrow = tuning.Key("forward", 1000, 128, 1200, 48, False, "bf16", 2)
    wide = replace(narrow, item=4)
    assert narrow.name() != wide.name()
    assert replace(narrow, item=0).name() == narrow.name()
    for precision in ("fp32", "tf32", "fp32x3"):
        key = replace(narrow, precision=precision, item=4)  # type: ignore[arg-type]
        assert key.name() == replace(key, item=0).name()
