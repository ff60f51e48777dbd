"""Published rows: what each ran, what is left out and why, and how far off predictions are."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from alexsim.cli.app import main
from alexsim.costs.correction import UNFITTED, load_card, load_correction
from alexsim.costs.cost import Cost
from alexsim.costs.libraries import library_names
from alexsim.errors import AlexsimError, ProfileError
from alexsim.fidelity.fit import nine_in_ten
from alexsim.fidelity.fit_files import correction_bytes
from alexsim.fidelity.judging import (
    by_device_and_library,
    by_kind,
    is_step,
    judge,
    judged,
    roofline_of,
    summarise,
)
from alexsim.fidelity.left_out import both_unseen
from alexsim.fidelity.row_files import read_rows
from alexsim.fidelity.rows import Case, Excluded, case_of
from alexsim.fidelity.validation import Prediction, all_rows, cases, fit_to, may_fit, predict
from alexsim.machine.device import device_names

CASES, EXCLUDED = all_rows("published")


def case(row_id: str) -> Case:
    return next(case for case in CASES if case.row.id == row_id)


def test_rows_mean_what_their_notes_say() -> None:
    native = case("cbc-0001")  # V1 prototxt: the net ends at pool5, and the image gradient counts
    assert native.image_gradient
    assert "fc6" not in {layer.name for layer in native.network.layers}
    assert native.layers == {"conv1"}
    per_image = case("cbc-0031")
    assert per_image.network.name == "alexnet-owt-fc-as-conv"
    single = case("lw-0251")
    assert (single.network.input_shape, single.batch_size) == ((3, 128, 128), 128)
    assert single.network.parts[0][0].output_shape == (96, 118, 118)
    padded = case("ns-0001")
    assert padded.network.parts[0][0].output_shape == (310, 12, 12)
    assert case("cf-0009").device == "k40"
    assert case("cf-0001").device == "k40-875"
    assert case("mx-0001").network.name == "alexnet-mxnet"
    assert case("cb-0390").family == "tensorflow-nhwc"
    assert case("lam-0113").precision == "fp16"


def test_exclusion_looks_at_conditions_never_at_values() -> None:
    for row in read_rows("published"):
        changed = replace(row, value=None if row.value is None else row.value * 3.7)
        before, after = case_of(row), case_of(changed)
        assert type(before) is type(after)
        if isinstance(before, Excluded) and isinstance(after, Excluded):
            assert before.why == after.why


def test_at_least_85_percent_of_the_trusted_float32_rows_are_predicted() -> None:
    def asked(row: object) -> bool:
        return row.trust in ("A", "B") and row.precision == "fp32"  # type: ignore[attr-defined]

    found = sum(asked(case.row) for case in CASES)
    left = sum(asked(row.row) for row in EXCLUDED)
    assert found / (found + left) >= 0.85


def test_no_gtx_580_row_teaches_anything() -> None:
    of_the_exam = [c for c in CASES if c.row.id in {"pap-0001", "pap-0002", "pap-0003", "pap-0004"}]
    assert len(of_the_exam) == 4
    assert not any(may_fit(case) for case in of_the_exam)
    alone = [replace(case, row=replace(case.row, n_gpus=1)) for case in of_the_exam]
    assert not any(may_fit(case) for case in alone)
    assert all("GTX 580" not in case.row.gpu for case in CASES if may_fit(case))
    # What teaches without them is all that teaches.
    some = [*CASES[::9], *of_the_exam, *alone]
    fitted = fit_to(some, UNFITTED)
    without = fit_to([case for case in some if "GTX 580" not in case.row.gpu], UNFITTED)
    assert correction_bytes(fitted) == correction_bytes(without)
    shipped = load_correction()
    assert not any("fermi" in trait or "GTX 580" in trait for trait in shipped.traits)
    assert "GTX 580" not in load_card().devices


def test_errors_meet_the_targets_and_beat_the_roofline() -> None:
    correction = load_correction()
    predictions = [predict(case, correction) for case in CASES]
    summaries = {summary.name: summary for summary in judge(predictions, correction)}
    assert summaries["steps, fitted"].rows >= 100
    assert summaries["steps, fitted"].mean_absolute_error <= 0.13
    assert summaries["layers, fitted"].mean_absolute_error <= 0.16
    roofline = summaries["steps, roofline"].mean_absolute_error
    assert summaries["steps, fitted"].mean_absolute_error <= roofline / 2
    assert summaries["steps, no fit at all"].mean_absolute_error < roofline
    assert summaries["steps, fitted"].coverage >= 0.8
    # The roofline's own errors are known too.
    assert summaries["steps, roofline"].coverage >= 0.8


def test_groups_hold_every_row_once_and_say_what_is_worst() -> None:
    correction = load_correction()
    predictions = [predict(case, correction) for case in CASES]
    groups = by_device_and_library(predictions, roofline_of(predictions))
    assert sorted(p.case.row.id for g in groups for p in g.predictions) == sorted(
        case.row.id for case in CASES
    )
    for group in groups:
        errors = [p.error for p in group.predictions if p.case.row.value is not None]
        assert group.summary.rows == group.roofline.rows == len(errors)
        assert {(p.case.device, p.case.library) for p in group.predictions} == {
            (group.device, group.library)
        }
        if errors:
            assert abs(group.summary.worst) == max(abs(error) for error in errors)
            mean = sum(abs(error) for error in errors) / len(errors)
            assert group.summary.mean_absolute_error == pytest.approx(mean)


def test_rows_without_work_or_without_teachers_are_named() -> None:
    pool = replace(case("cbc-0001").row, layer="pool1")
    assert cases([replace(pool, passes="fwd")])[0]
    found, left = cases([replace(pool, passes="bwd-weight")])
    assert not found
    assert left[0].why == "nothing to do in the pass: bwd-weight"
    exam = [one for one in CASES if "GTX 580" in one.row.gpu]
    with pytest.raises(AlexsimError, match="nothing to fit to"):
        fit_to(exam, UNFITTED)
    odd = replace(CASES[10], row=replace(CASES[10].row, trust="D"))
    assert fit_to([odd, CASES[11]], UNFITTED).coefficients


def test_a_device_that_no_fit_has_seen_has_wider_intervals() -> None:
    """By coefficients alone, where no class of errors is known."""
    shipped = load_correction()
    some = CASES[::6]
    k40 = [case for case in some if case.device in ("k40", "k40-875", "titan")]
    base = replace(shipped, coefficients={}, traits=(), covariance=None)
    fitted = fit_to([case for case in some if case not in k40], base)
    both = fit_to(some, base)
    plain = replace(load_card(), classes=())
    held = [predict(case, replace(fitted, card=plain)) for case in k40]
    seen = [predict(case, replace(both, card=plain)) for case in k40]
    for without, with_it in zip(held, seen, strict=True):
        assert without.high / without.low > with_it.high / with_it.low
    assert {s.name for s in by_kind("x", held)} == {"steps, x", "layers, x"}
    assert summarise("x", held).mean_absolute_error < 0.6


def test_a_class_that_knew_less_is_never_surer() -> None:
    card = load_card()
    for of in card.classes:
        other = card.error_of(
            of.unit,
            device_seen=False,
            library_seen=False,
            reduced=of.reduced,
            platform=of.platform,
        )
        assert other is not None
        assert other.noise >= of.noise or of.rows < 20
    assert both_unseen(0.5, 0.4, 0.3) ** 2 == pytest.approx(0.25 + 0.16 - 0.09)
    assert both_unseen(0.2, 0.3, 0.4) == 0.3


def test_predictions_are_in_the_unit_of_the_row() -> None:
    correction = load_correction()
    steps = [case for case in CASES if is_step(case) and judged(case)]
    assert {case.row.unit for case in steps} >= {"images/s", "ms per batch"}
    for one in steps:
        prediction = predict(one, correction)
        assert prediction.low < prediction.value < prediction.high
        measured = one.row.value
        assert measured is not None
        assert 0.2 < prediction.value / measured < 5
    wide = predict(case("pap-0001"), correction)
    assert wide.low < 120
    assert wide.high > 144


def test_blind_rows_are_predicted_without_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (files("alexsim_profiles") / "measurements" / "published.csv").read_text("utf-8")
    rows = list(csv.DictReader(source.splitlines()))[::40]
    blind = tmp_path / "blind.csv"
    with blind.open("w", newline="", encoding="utf-8") as out:
        names = [name for name in rows[0] if name not in ("source", "value")]
        writer = csv.DictWriter(out, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(SystemExit) as caught:
        main(["check", "validate", "--measurements", str(blind), "-o", str(tmp_path / "out.csv")])
    assert not caught.value.code
    assert f"of {len(rows)} rows predicted" in capsys.readouterr().out
    written = list(csv.DictReader((tmp_path / "out.csv").read_text("utf-8").splitlines()))
    assert {row["id"] for row in written} == {row["id"] for row in rows}
    for row in written:
        assert bool(row["predicted"]) != bool(row["reason"])


def predicted(errors: list[float]) -> list[Prediction]:
    one = case("pap-0003")
    measured = one.row.value
    assert measured is not None
    return [Prediction(case=one, value=measured * (1 + e), low=0.0, high=1e9) for e in errors]


@pytest.mark.parametrize("errors", [[0.2], [0.1, 0.4], [0.3, 0.1, 0.2], [0.4, 0.1, 0.2, 0.3]])
def test_medians_of_even_and_odd_numbers(errors: list[float]) -> None:
    found = summarise("x", predicted([-errors[0], *errors[1:]]))
    assert found.median_absolute_error == pytest.approx(np.median(errors))
    assert found.mean_absolute_error == pytest.approx(np.mean(errors))


def test_what_holds_nine_in_ten_is_a_quantile() -> None:
    for misses in ([-3.0], [1.0, -2.0], [0.1, -0.2, 0.3], [float(n) for n in range(10)]):
        assert nine_in_ten(misses) == np.quantile(np.abs(misses), 0.9) / 1.645


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_the_gate_passes_no_error_that_is_no_number(
    error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexsim.fidelity import judging

    steps, bound = summarise("steps, fitted", predicted([0.1])), summarise("x", predicted([0.9]))
    summaries = [
        replace(steps, mean_absolute_error=error), replace(bound, name="steps, roofline"),
    ]  # fmt: skip
    monkeypatch.setattr(judging, "judge", lambda *_: summaries)
    with pytest.raises(SystemExit) as caught:
        main(["check", "validate", "--summary"])
    assert caught.value.code == 4


def test_the_gate_fails_with_exit_code_4() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alexsim", "check", "validate", "--gate", "5", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "the gate is 5.0 %" in done.stderr
    document = json.loads(done.stdout)
    assert document["rows"] == 848
    assert document["predicted"] == len(CASES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,network\n1,2\n", "lacks the columns"),
        (None, "there is no"),
        ("SHORT", "line 2: fewer columns"),
    ],
)
def test_malformed_tables_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.csv"
    if text is not None:
        source = (files("alexsim_profiles") / "measurements" / "published.csv").read_text("utf-8")
        header = source.splitlines()[0]
        path.write_text(text.replace("SHORT", f"{header}\nx,VGG-A\n"), encoding="utf-8")
    with pytest.raises(ProfileError, match=message):
        read_rows(str(path))


def test_a_malformed_number_names_its_line(tmp_path: Path) -> None:
    source = (files("alexsim_profiles") / "measurements" / "published.csv").read_text("utf-8")
    lines = source.splitlines()[:3]
    path = tmp_path / "x.csv"
    path.write_text("\n".join([*lines[:2], lines[2].replace(",64,", ",64,", 1)]), "utf-8")
    assert len(read_rows(str(path))) == 2
    path.write_text("\n".join([lines[0], lines[1].replace("333.51", "fast", 1)]), "utf-8")
    with pytest.raises(ProfileError, match="line 2"):
        read_rows(str(path))
    for bad in ("0", "-3", "nan", "inf", "-inf", "1e999"):
        path.write_text("\n".join([lines[0], lines[1].replace("333.51", bad, 1)]), "utf-8")
        with pytest.raises(ProfileError, match=r"line 2: value must be positive .*\(row cb-0121\)"):
            read_rows(str(path))
    for bad in ("1e-300", "1e300"):
        path.write_text("\n".join([lines[0], lines[1].replace("333.51", bad, 1)]), "utf-8")
        with pytest.raises(ProfileError, match="line 2: value must be between"):
            read_rows(str(path))
    for column in ("n_gpus", "batch_size"):
        row = next(csv.DictReader(lines[:2])) | {column: "9" * 5000}
        path.write_text(f"{lines[0]}\n" + ",".join(f'"{text}"' for text in row.values()), "utf-8")
        with pytest.raises(ProfileError, match=f"line 2: {column} must have at most 9 digits"):
            read_rows(str(path))


def test_without_a_fit_every_coefficient_is_nothing() -> None:
    cost = Cost(1e-3, "memory", ("library:cudnn-v4", "memory"))
    assert UNFITTED.time(cost) == cost.seconds
    assert UNFITTED.spread({"memory": 1.0}, None) > UNFITTED.card.noise


ROW_OF_A_USER = "network,framework,device,n_gpus,batch,precision,pass,notes,images_per_s\n"


@pytest.fixture
def case_of_a_user(tmp_path: Path):
    """The case of a row with a framework, a device and a precision."""

    def made(framework: str, device: str, precision: str = "fp32") -> Case | Excluded:
        file = tmp_path / "rows.csv"
        file.write_text(
            f"{ROW_OF_A_USER}resnet50,{framework},{device},1,64,{precision},train-step,,390\n"
        )
        (row,) = read_rows(str(file))
        return case_of(row)

    return made


@pytest.mark.parametrize("library", [n for n in library_names() if n != "roofline"])
def test_rows_of_one_s_own_name_libraries_as_options_do(library, case_of_a_user) -> None:
    case = case_of_a_user(library, "a100")
    assert isinstance(case, Case)
    assert (case.library, case.device) == (library, "a100")


def test_rows_of_one_s_own_name_cards_as_lists_do(tmp_path, case_of_a_user) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('like = "a100"\n')
    for device in (*device_names(), str(mine)):
        case = case_of_a_user("PyTorch 2.9", device)
        assert isinstance(case, Case), device
        assert case.device == device


def test_what_a_row_of_one_s_own_says_is_never_taken_for_something_else(case_of_a_user) -> None:
    for precision, meant in (("tf32", "tf32"), ("amp", "fp16"), ("fp16", "fp16")):
        assert case_of_a_user("cudnn-v8", "a100", precision).precision == meant
    for given, why in (
        (("cudnn-v8", "a100", "bf16"), "no precision that is fitted: bf16"),
        (("jax 0.4", "a100"), "no cost model: jax 0.4"),
        (("cudnn-v8", "a1000"), "no data sheet: a1000"),
    ):
        assert case_of_a_user(*given).why == why
