"""The parts of the card's bench that need the planner and the executor, as far as a CPU can."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fake_nvml import Library

from alexsim.bench.card import calibrated, gpu_tests, steps, strict, telemetry, trials, two_gpus
from alexsim.bench.card.tiny import BATCH, tiny
from alexsim.bench.card.trials import Times, Trials
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError
from alexsim.interchange.module import AlexNet
from alexsim.network.layers import Dropout, SoftmaxCrossEntropy
from alexsim.profile import nvml
from alexsim_kernels.bench.card import predicted
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.card.predicted import Predicted, predicted_of
from alexsim_kernels.bench.row import Row, row_of

ROOT = Path(__file__).parents[1]
PARTS: tuple[ModuleType, ...] = (steps, two_gpus, telemetry, calibrated, gpu_tests)
NOT_ON_A_BARE_MACHINE = ("annotated_types", "platformdirs", "plotly", "pydantic", "simplejpeg")
CARD = torch.cuda.is_available()


def rehearsal(box_s: float = 100) -> Job:
    return Job(box_s=box_s, rehearse=True)


def by_op(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that a program can read back."""
    listed: dict[str, list[Row]] = {}
    for row in rows:
        document = json.loads(json.dumps(row.document(), allow_nan=False))
        assert row_of(document).line() == row.line()
        listed.setdefault(row.op, []).append(row)
    return listed


# --- what they need -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__.rpartition(".")[2])
def test_a_part_is_imported_without_what_it_does_not_need(part: ModuleType) -> None:
    """On a machine where nothing can be installed; what is None in ``sys.modules`` is not found."""
    hidden = set(NOT_ON_A_BARE_MACHINE) - set(part.NEEDS)
    script = (
        f"import sys\nfor name in {sorted(hidden)}: sys.modules[name] = None\n"
        f"import {part.__name__}\n"
        "print(*{name.partition('.')[0] for name, module in sys.modules.items() if module})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    dependencies = {*NOT_ON_A_BARE_MACHINE, "PIL", "numpy", "safetensors", "torch", "rich", "typer"}
    assert set(ran.stdout.split()) & dependencies <= set(part.NEEDS)


def test_only_two_parts_need_what_a_bare_machine_lacks() -> None:
    lacking = {part.__name__.rpartition(".")[2] for part in PARTS
               if set(part.NEEDS) & set(NOT_ON_A_BARE_MACHINE)}  # fmt: skip
    assert lacking == {"calibrated", "gpu_tests"}


@pytest.mark.skipif(CARD, reason="there is a card")
@pytest.mark.parametrize("part", [steps, two_gpus, calibrated])
def test_without_a_card_a_part_says_so_at_once(part: ModuleType) -> None:
    with pytest.raises(AlexsimError, match="PyTorch sees no CUDA device"):
        next(part.rows(Job(box_s=100)))


# --- trials ---------------------------------------------------------------------------------------


def test_what_there_is_no_time_for_is_left_out_and_a_failure_ends_nothing() -> None:
    blank = Row(op="x", precision="bf16", batch=7)

    def fails() -> Iterator[Row]:
        yield replace(blank, ours_ms=1.0)
        raise ValueError("no\nsuch  thing")

    ran = Trials(Job(box_s=100), {"short": 1.0, "long": 99.0})
    (left_out,) = ran.rows("long", blank, fails)
    assert not left_out.failed
    assert left_out.text.startswith("left out: it may take 129 s, and ")
    first, failed = ran.rows("short", blank, fails)
    assert first.ours_ms == 1.0
    assert (failed.failed, failed.precision, failed.batch) == (
        "ValueError: no such thing", "bf16", 7,
    )  # fmt: skip

    def slow() -> Iterator[Row]:
        time.sleep(0.1)
        yield blank

    assert list(ran.rows("short", blank, slow)) == [blank]
    # What it took is what the next may take.
    assert 0.1 <= ran.seconds["short"] < 1


def test_times_are_medians_with_fifths() -> None:
    assert Times.of([3.0]) == Times(3.0, 3.0, 3.0)
    assert Times.of([5.0, 1.0, 2.0, 3.0, 4.0, 6.0]) == Times(3.5, 2.0, 5.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 87.3, 0.0])
def test_a_step_of_something_else_is_not_timed(loss: float) -> None:
    trials.refuse_loss(math.log(1000) + 0.5, 1000)
    with pytest.raises(ValueError, match="the loss is"):
        trials.refuse_loss(loss, 1000)


# --- steps ----------------------------------------------------------------------------------------


def test_theirs_stands_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {("step", "fp32", BATCH): 12.0}
    monkeypatch.setattr(steps.Predicted, "of", lambda job: Predicted("h200", times))
    bench = steps._Bench(rehearsal())
    (ours,) = bench.ours(BATCH, "fp32", fused=True)
    (apart,) = bench.ours(BATCH, "fp32", fused=False)
    (beside,) = bench.theirs(BATCH, "fp32")
    assert list(bench.theirs(BATCH, "bf16")) == []  # nobody asked for ours
    assert [row.failed for row in (ours, apart, beside)] == ["", "", ""]
    assert (apart.op, apart.predicted_ms) == ("step, not fused", None)
    assert (beside.ours_ms, beside.predicted_ms) == (ours.ours_ms, 12.0)
    assert beside.other_ms
    assert beside.other == "compiled PyTorch"
    assert beside.detail
    assert ours.detail
    # The same weights, and the fused kernels compute the same.
    assert apart.detail
    assert ours.detail["loss"] == pytest.approx(apart.detail["loss"], rel=1e-4)
    assert ours.detail["planned_bytes"] < apart.detail["planned_bytes"]
    assert ours.ours_ms
    assert ours.detail["images_per_s"] == pytest.approx(BATCH / ours.ours_ms * 1e3, rel=0.1)
    by_op([ours, apart, beside])


def test_a_graph_that_computes_something_else_fails() -> None:
    right = torch.full((4,), math.log(8))
    assert steps._same_loss(right, right, 8) == pytest.approx(math.log(8))
    with pytest.raises(ValueError, match="op by op, and"):
        steps._same_loss(right, right + 0.01, 8)


def test_theirs_has_every_layer_of_ours() -> None:
    """A module without the norm over pixels was faster, and no AlexNet as it was run."""
    for network in (load_network("alexnet-1gpu"), tiny(1)):
        with torch.device("meta"):
            module = AlexNet(network)
        assert [name for name, _ in module.named_children()] == [
            layer.name for layer in network.layers if not isinstance(layer, SoftmaxCrossEntropy)
        ]
    kinds = {type(layer) for layer in load_network("alexnet-1gpu").layers}
    assert Dropout in {type(layer) for layer in tiny(2).layers} <= kinds


# --- two GPUs -------------------------------------------------------------------------------------


def test_two_virtual_gpus_are_measured_and_held_to_their_budget() -> None:
    rows = by_op(list(two_gpus.rows(rehearsal())))
    assert [row.failed for each in rows.values() for row in each if row.failed] == []
    for transport in ("peer", "host"):
        assert rows[f"two GPUs, {transport}"][0].ours_ms
        (exchanged,) = rows[f"exchanged, {transport}"]
        assert exchanged.value == exchanged.expected
        assert exchanged.value
        (peak,) = rows[f"peak memory, {transport}"]
        assert peak.value == peak.expected
        assert rows[f"exchange rate, {transport}"][0].unit == "GB/s"
    (apart,) = rows["two GPUs, strict"]
    assert apart.detail
    assert apart.ours_ms
    # As many bytes between processes as between devices of one.
    assert rows["exchanged, strict"][0].value == rows["exchanged, host"][0].value
    for gpu in ("gpu0", "gpu1"):
        (refused,) = rows[f"half the budget, {gpu}"]
        assert refused.text.startswith(f"refused by the plan: {gpu}: block")
        assert f"peak memory, strict, {gpu}" in rows


RECORD = {
    "rank": 0, "step_ms": 3.0, "step_20_ms": 2.0, "step_80_ms": 4.0, "exchanged_bytes": 10,
    "expected_bytes": 10, "planned_bytes": 80, "peak_bytes": 81, "reserved_bytes": 90,
    "driver_bytes": 100, "card_used_bytes": 1000,
}  # fmt: skip


def told(monkeypatch: pytest.MonkeyPatch, *records: dict[str, Any]) -> dict[str, list[Row]]:
    """Rows of what processes on a card would tell, of which 400 bytes were taken before."""

    class Fake:
        def go(self, limit_s: float) -> Iterator[dict[str, Any]]:
            yield from records

    blank = Row(op="two GPUs, strict", batch=128)
    return by_op(list(two_gpus._strict(blank, Fake(), 1.0, 400)))  # type: ignore[arg-type]


def test_what_goes_beyond_the_budget_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_gpus, "BUDGET", 300)
    other = {**RECORD, "rank": 1, "driver_bytes": None}
    rows = told(monkeypatch, {"rank": 0, "refused": "the card: no"}, RECORD, other)
    assert [row.failed for each in rows.values() for row in each if row.failed] == []
    assert rows["half the budget, gpu0"][0].text == "refused by the card: no"
    assert rows["both processes, by the card"][0].value == 600
    assert "does not know" in rows["process, by the driver, gpu1"][0].text
    # Now each of these in turn.
    rows = told(
        monkeypatch, {"rank": 1, "refused": ""}, {"rank": 1, "failed": "it died"},
        {**RECORD, "driver_bytes": 301, "exchanged_bytes": 11, "card_used_bytes": 1001},
    )  # fmt: skip
    failed = {op: row.failed for op, (row,) in rows.items() if row.failed}
    assert failed == {
        "half the budget, gpu1": "was not refused",
        "two GPUs, strict, gpu1": "it died",
        "exchanged, strict": "11 bytes, and 10 expected",
        "process, by the driver, gpu0": "301 bytes, and 300 expected",
        "both processes, by the card": "601 bytes, and 600 expected",
    }


def test_processes_that_are_not_told_to_go_end() -> None:
    with strict.Processes("cpu", rehearse=True) as processes:
        pids = [process.pid for process in processes._running]
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


# --- telemetry ------------------------------------------------------------------------------------


def test_a_row_for_every_card_and_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Library())
    monkeypatch.setattr(nvml, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(telemetry, "_EVERY_S", 0.1)
    rows = list(telemetry.rows(Job(box_s=0.35)))
    by_op(rows)
    assert 4 <= len(rows) <= 8
    first, second = rows[:2]
    assert (first.value, first.unit) == (100.0, "W")
    assert first.detail
    assert first.detail | {"time_s": 0} == {
        "time_s": 0, "card": 0, "power_w": 100.0, "utilisation": 0.75, "sm_mhz": 1980,
        "memory_mhz": 2619, "memory_bytes": 5, "temperature_c": 61,
        "throttle": ["power cap", "temperature, by software"],
    }  # fmt: skip
    assert second.detail
    assert (second.detail["card"], second.detail["throttle"]) == (1, [])
    times = [row.detail["time_s"] for row in rows if row.detail]
    assert times == sorted(times)
    assert times[-1] < 1
    assert not [each for each in threading.enumerate() if each.name == "nvml"]


def test_without_nvml_it_says_why_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (row,) = telemetry.rows(Job(box_s=60))
    assert row.failed == "no pynvml: pip install nvidia-ml-py"
    (row,) = telemetry.rows(rehearsal())
    assert (row.failed, row.text) == ("", "no pynvml: pip install nvidia-ml-py")


# --- calibration ----------------------------------------------------------------------------------


def test_a_step_that_was_not_seen_stands_beside_both_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of steps of a millisecond others may disturb most; what is wanted here is not how much.
    monkeypatch.setattr("alexsim.profile.calibrate._scatter", lambda measured: 0.02)
    listed = list(calibrated.rows(rehearsal()))
    rows = by_op(listed)
    # Said before anything ran.
    assert listed[0].op == "step, ATen"
    assert listed[0].ours_ms is None
    before, by_sheet, by_calibration = rows["step, ATen"]
    assert by_sheet.predicted_ms == before.predicted_ms
    assert (by_sheet.ours_ms, by_sheet.batch) == (by_calibration.ours_ms, 32)
    assert by_sheet.text == "predicted by h200, cudnn-v8"
    assert by_calibration.text == "predicted by the calibration"
    assert by_calibration.predicted_ms
    assert by_calibration.ours_ms
    assert by_calibration.detail
    assert "conv2" in by_calibration.detail["measured_and_predicted_ms"]
    (known,) = rows["calibration"]
    assert known.detail
    assert known.detail["calibration"]["ops"]
    assert {rate["what"] for rate in known.detail["calibration"]["rates"]} == {
        "gemm", "op overhead", "launch latency",
    }  # fmt: skip
    (kernels,) = rows["kernels of usual sizes"]
    assert kernels.detail
    assert {line["op"] for line in kernels.detail["kernels"]} == {"gemm", "launch"}


@pytest.mark.parametrize(
    ("name", "sheet"),
    [("NVIDIA H200", "h200"), ("NVIDIA GeForce RTX 4090", "rtx4090"), ("NVIDIA X1", "")],
)
def test_a_card_is_known_by_its_name(
    name: str, sheet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrated, "device_name", lambda device: name)
    assert calibrated._asked(Job(box_s=1)).sheet == sheet


# --- tests ----------------------------------------------------------------------------------------

CASES = """
import time

import pytest

{mark}
@pytest.mark.parametrize("case", [1, 2])
def test_passes(case):
    pass


{mark}
def test_fails():
    assert 1 == 2


{mark}
def test_is_skipped():
    pytest.skip("no reason")


{mark}
def test_breaks_before(missing):
    pass


def test_needs_no_card():
    assert False
"""


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tests of which some need a card."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text(
        "def pytest_configure(config):\n    config.addinivalue_line('markers', 'gpu: a card')\n"
    )
    (folder / "test_one.py").write_text(CASES.format(mark=f"@{gpu_tests._MARK}"))
    (folder / "test_other.py").write_text("def test_needs_no_card():\n    assert False\n")
    monkeypatch.setattr(gpu_tests, "_TESTS", folder)
    # Workers take seconds to begin: what they change is tested by the one that has some.
    monkeypatch.setattr(gpu_tests, "find_spec", lambda name: None if name == "xdist" else True)
    return folder


def run_tests(box_s: float = 100, **job: Any) -> dict[str, list[Row]]:
    return by_op(list(gpu_tests.rows(Job(box_s=box_s, **job))))


def test_tests_that_need_a_card_run_and_failures_are_named(cases: Path) -> None:
    rows = run_tests()
    assert rows["test_one.py::test_fails"][0].failed == "assert 1 == 2"
    assert "fixture 'missing' not found" in rows["test_one.py::test_breaks_before"][0].failed
    (whole,) = rows["test_one.py"]
    assert whole.text.startswith("2 passed, 2 failed, 1 skipped; ")
    assert len(rows) == 3


def test_workers_report_each_test_once(cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(gpu_tests, "_TESTS", cases)
    monkeypatch.setattr(gpu_tests, "_PROCESSES", 1)
    (whole,) = run_tests()["test_one.py"]
    assert whole.text.startswith("2 passed, 2 failed, 1 skipped; ")


def test_a_rehearsal_counts_them(cases: Path) -> None:
    rows = run_tests(rehearse=True)
    assert [(row.value, row.unit) for row in rows["tests"]] == [(5, "tests for a card")]
    (cases / "test_bad.py").write_text(f"import nothing_of_that_name  # {gpu_tests._MARK}\n")
    rows = run_tests(rehearse=True)
    why = "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert [row.failed for row in rows["test_bad.py"]] == [why, ""]
    assert rows["tests"][0].value == 5


class UntilBegun:
    """A job whose box ends once a test that takes long has begun."""

    rehearse = False

    def __init__(self, begun: Path) -> None:
        self._begun = begun

    @property
    def left_s(self) -> float:
        return gpu_tests._ENDING_S if self._begun.exists() else 100.0


def test_the_box_ends_them(cases: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (cases / "test_slow.py").write_text(
        f"import pathlib, pytest, time\n\n@{gpu_tests._MARK}\ndef test_slow():\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n    time.sleep(300)\n"
    )
    rows = by_op(list(gpu_tests.rows(UntilBegun(begun))))  # type: ignore[arg-type]
    assert rows["test_one.py"][0].text.startswith("2 passed, 2 failed, 1 skipped; ")
    assert rows["tests"][0].text == "left out: those that the box had no time for"
    # None is begun any more.
    (row,) = gpu_tests.rows(UntilBegun(begun))  # type: ignore[arg-type]
    assert row.text == "left out: test_one.py, test_slow.py; 3 s are left"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, at: m.setattr(gpu_tests, "_TESTS", at / "none"), "there is no folder none"),
        (lambda m, _: m.setattr(gpu_tests, "find_spec", lambda name: None), "pip install pytest"),
        (lambda _, at: (at / "conftest.py").write_text("import nothing_of_that_name"),
         "pytest: "),
    ],
    ids=["no folder", "no pytest", "no conftest"],
)  # fmt: skip
def test_what_is_missing_is_named(
    change: Callable[[pytest.MonkeyPatch, Path], None],
    says: str,
    cases: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(monkeypatch, cases)
    (row,) = run_tests()["tests"]
    assert says in row.failed


# --- predictions ----------------------------------------------------------------------------------


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for name, ms in (("h100", 1.0), ("h100-pcie", 2.0), ("h200", 3.0)):
        rows = [
            {"op": "step", "precision": "bf16", "batch": 128, "predicted_ms": ms},
            {"op": "copy", "predicted_ms": 10 * ms},
            {"op": "text", "text": "no time"},
        ]
        document = {"card": name, "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    (tmp_path / "readme.txt").write_text("no record")
    return tmp_path


@pytest.mark.parametrize(
    ("card", "name", "ms"),
    [
        ("NVIDIA H200", "h200", 3.0),
        ("NVIDIA H100 80GB HBM3", "h100", 1.0),
        ("NVIDIA H100 PCIe", "h100-pcie", 2.0),
        ("NVIDIA GH200 480GB", "", None),
        ("", "", None),
    ],
)
def test_the_record_of_a_card_is_found(
    card: str, name: str, ms: float | None, records: Path
) -> None:
    known = predicted_of(card, records)
    assert known.card == name
    assert known.ms("step", "bf16", 128) == ms
    assert known.ms("copy") == (10 * ms if ms else None)
    assert known.ms("step", "bf16", 1024) is None
    assert known.ms("text") is None
    assert predicted_of(card, records / "none") == Predicted()


def test_the_card_is_that_of_the_ceilings(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicted, "files", lambda name: records.parent)
    monkeypatch.setattr(predicted, "_FOLDER", records.name)
    card = Row(op="card", detail={"name": "NVIDIA H200"})
    other = Row(op="card", detail={"name": "NVIDIA H100 PCIe"})
    job = Job(box_s=1, rows=(("layers", other), ("ceilings", Row(op="copy")), ("ceilings", card)))
    assert Predicted.of(job).ms("step", "bf16", 128) == 3.0
    assert Predicted.of(Job(box_s=1)) == Predicted()
    monkeypatch.setattr(predicted, "files", lambda name: (_ for _ in ()).throw(ModuleNotFoundError))
    assert Predicted.of(job) == Predicted()


def test_predictions_import_nothing() -> None:
    script = (
        "import alexsim_kernels.bench.card.predicted, sys\n"
        "print([name for name in ('torch', 'triton', 'numpy', 'alexsim') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
