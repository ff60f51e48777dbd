"""``check bench``: exact figures, ratios whose intervals decide, baselines that are checked."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import here

from alexsim.bench import runner, store
from alexsim.bench.counted import counted, kernel_figures
from alexsim.bench.runner import Selection
from alexsim.bench.timed import Case, cases, measure, slowed
from alexsim.bench.verdicts import Baseline, BenchRun, Host, Machine, Stored, Timed, judge
from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.profile.step_profile import Ratio

OWN = """
from alexsim.network.layers import FullyConnected, ReLU, SoftmaxCrossEntropy
from alexsim.network.network import Network

net = Network(
    name="own", input_shape=(1, 8, 8), columns=1,
    layers=(
        FullyConnected(name="fc1", units=16),
        ReLU(name="relu1"),
        FullyConnected(name="fc2", units=4),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
"""
HOST = Host(cpu="a", cores=2, python="3", torch="2", commit="c", date="2026-01-01")


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return f"{path}:net"


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def timed(median: float, spread: float = 0.01, name: str = "step") -> Timed:
    ratio = Ratio(median=median, low=median * (1 - spread), high=median * (1 + spread), pairs=15)
    return Timed(name=name, ours="o", reference="r", ratio=ratio, ours_s=median, reference_s=1.0)


def found(*cases: Timed, figures: dict | None = None, host: Host = HOST) -> BenchRun:
    return BenchRun(network="n", host=host, counted=figures or {}, timed=cases)


BASELINE = Baseline(
    network="n",
    host=HOST,
    counted={"flop": 10, "bytes": 20},
    machines={
        HOST.key: Machine(host=HOST, timed={"step": Stored(ratio=1.0, low=0.98, high=1.03, runs=5)})
    },
)


def step_of(document: dict) -> dict:
    """What a baseline holds of the case ``step``."""
    return document["machines"][HOST.key]["timed"]["step"]


def test_counted_figures_are_compared_exactly() -> None:
    verdicts = judge(found(figures={"flop": 10, "bytes": 21, "more": 1}), BASELINE, tolerance=0.05)
    assert {v.name: v.status for v in verdicts} == {
        "bytes": "changed",
        "flop": "same",
        "more": "new",
    }
    # What nobody has looked at yet fails as well.
    assert [v.name for v in verdicts if v.fails] == ["bytes", "more"]
    gone = judge(found(figures={"flop": 10}), BASELINE, tolerance=0.05)
    assert {v.name: v.fails for v in gone} == {"bytes": True, "flop": False}


@pytest.mark.parametrize(
    ("median", "spread", "status"),
    [
        (1.0, 0.01, "ok"),
        (1.05, 0.01, "ok"),  # within the baseline's own scatter and the tolerance
        (1.15, 0.01, "slower"),
        (1.15, 0.10, "ok"),  # the interval reaches back: not sure
        (1.09, 0.005, "slower"),  # 1.0846 / 1.03 > 1.05
        (1.08, 0.005, "ok"),
        (0.80, 0.01, "faster"),
    ],
)
def test_a_ratio_fails_only_where_its_whole_interval_is_beyond(
    median: float, spread: float, status: str
) -> None:
    (verdict,) = judge(found(timed(median, spread)), replace(BASELINE, counted={}), tolerance=0.05)
    assert verdict.status == status
    assert verdict.fails == (status == "slower")


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("known", [True, False])
def test_what_is_no_number_passes_nothing(bad: float, known: bool) -> None:
    baseline = replace(BASELINE, counted={}, machines=BASELINE.machines if known else {})
    case = timed(1.0)
    for name in ("low", "median", "high"):
        wrong = replace(case, ratio=replace(case.ratio, **{name: bad}))
        (verdict,) = judge(found(wrong), baseline, tolerance=0.05)
        assert verdict.fails
    (verdict,) = judge(
        found(figures={"x": math.nan}), replace(baseline, counted={"x": math.nan}), tolerance=0
    )
    assert verdict.fails


def test_another_machine_is_shown_and_not_judged() -> None:
    for other in (replace(HOST, cpu="b"), replace(HOST, cores=4), replace(HOST, torch="3")):
        (verdict,) = judge(
            found(timed(9.0), host=other), replace(BASELINE, counted={}), tolerance=0.05
        )
        assert verdict.status == "no baseline"
        assert not verdict.fails
    same = replace(HOST, commit="d", date="2027-01-01", python="4")
    assert judge(found(timed(9.0), host=same), BASELINE, tolerance=0.05)[-1].fails


def test_what_looks_slower_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def measured(medians: list[float]) -> object:
        left = iter(medians)

        def once(selection: object, names: tuple[str, ...], progress: object) -> tuple[Timed, ...]:
            asked.append(tuple(names))
            return tuple(timed(next(left), name=name) for name in names)

        return once

    selection = Selection(network="lenet-5", batch_size=8, counted=False)
    monkeypatch.setattr(runner, "host", lambda: HOST)
    monkeypatch.setattr(runner, "case_names", lambda _: ("step",))
    for medians, slower, times in (
        ([1.0], False, 1),
        ([1.3, 1.0], False, 2),
        ([1.3, 1.4, 1.02], False, 3),
        ([1.3, 1.4, 1.2, 1.3, 1.02], False, 5),
        ([1.3, 1.4, 1.2, 1.3, 1.25], True, 5),
    ):
        asked.clear()
        monkeypatch.setattr(runner, "_timed", measured(medians))
        _, verdicts = runner.compare(selection, BASELINE, tolerance=0.05)
        assert [v.fails for v in verdicts] == [slower]
        assert len(asked) == times


def test_a_log_is_told_what_is_done_and_how_far_it_is(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def case(selection: Selection, name: str) -> Timed:
        clock[0] += {"plan": 4.0, "simulate": 5.0}.get(name, 12.0)
        return timed(1.0, name=name)

    class Here:
        """In place of a process for each case."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, call: Callable[..., Timed], *given: object) -> Future[Timed]:
            done: Future[Timed] = Future()
            done.set_result(call(*given))
            return done

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(runner, "time_case", case)
    monkeypatch.setattr(
        "alexsim.command.measuring.time", SimpleNamespace(monotonic=lambda: clock[0])
    )
    names = runner.case_names(Selection(network=own, batch_size=8))
    assert names[:3] == ("plan", "simulate", "data")
    words = ["--net", own, "--baseline", tmp_path / "b.json", "--no-kernels"]
    ran = here("check", "bench", "update", *words, "--runs", "2")
    assert ran.returncode == 0
    lines = ran.stderr.splitlines()
    # Before anything is measured: what, how often, how long.
    assert lines[0].startswith(
        f"alexsim: counted figures, then {len(names)} cases x 2 runs, roughly 5 to 30 s each: "
    )
    assert f": {len(names) * 2 * 5 / 60:.1f} to {len(names) * 2 * 30 / 60:.0f} minutes" in lines[0]
    # The first at once; then none within 10 s of another.
    of = f"of {len(names)} done), after"
    assert lines[1:4] == [
        f"alexsim: run 1 of 2: timing plan (0 {of} 0 s",
        f"alexsim: run 1 of 2: timing {names[3]} (3 {of} 21 s",
        f"alexsim: run 1 of 2: timing {names[4]} (4 {of} 33 s",
    ]
    assert any(line.startswith("alexsim: run 2 of 2: timing ") for line in lines)
    told = [float(line.split()[-2]) for line in lines[1:]]
    assert all(later - earlier >= 10 for earlier, later in pairwise(told))
    run = here("check", "bench", "run", "--net", own, "--no-kernels")
    assert "5 to 30 s each" in run.stderr.splitlines()[0]
    assert "timing plan" in run.stderr.splitlines()[1]
    # What looks slower is timed again, and said to be.
    monkeypatch.setattr(runner, "time_case", lambda _, name: timed(9.0, name=name))
    compared = here("check", "bench", "compare", *words)
    assert compared.returncode == 4
    clock[0] = 0.0
    assert here("check", "bench", "run", *words[:2], "--only", "counted", *words[-1:]).stderr == ""


class Clock:
    """A clock that work moves on, and a look at it a little."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        self.now_s += 1e-7
        return self.now_s

    def work(self, seconds: float) -> None:
        self.now_s += seconds


def test_ratios_are_those_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("alexsim.bench.timed.time", clock)
    case = Case(
        name="work",
        ours="o",
        reference="r",
        make=lambda _: (lambda: clock.work(0.003), lambda: clock.work(0.002)),
    )
    monkeypatch.setattr("alexsim.bench.timed._SAMPLE_S", 0.006)
    plain = measure(case)
    assert plain.ratio.median == pytest.approx(1.5, rel=1e-3)
    assert plain.ratio.low <= plain.ratio.median <= plain.ratio.high
    assert plain.ratio.pairs >= 15
    assert measure(slowed(case, 0.5)).ratio.median == pytest.approx(2.25, rel=1e-3)


def test_every_case_runs_ours_and_the_reference() -> None:
    names = []
    for case in cases(load_network("alexnet-2012"), 2):
        names.append(case.name)
        with ExitStack() as stack:
            for run in case.make(stack):
                run()
    ours = ("convolution", "fully connected", "norm", "pool", "step")
    assert names == ["plan", "simulate", "data", *(f"native {name}" for name in ours)]
    # A network without norms and max-pools has no such cases.
    lenet = [case.name for case in cases(load_network("lenet-5"), 2)]
    assert lenet[3:] == ["native convolution", "native fully connected", "native step"]


def test_counted_figures_are_the_facts() -> None:
    figures = counted(load_network("alexnet-2012"))
    assert figures["parameters"] == 60_965_224
    assert figures["neurons"] == 659_272
    assert figures["flop/forward MAC"] == 724_406_816
    assert figures["flop/training"] == 4_135_610_496
    assert figures["exchanged bytes"] == 60_030_976
    shipped = store.load(store.default_path("alexnet-2012"))
    exact = {k: v for k, v in shipped.counted.items() if not k.startswith("kernels/")}
    assert figures == exact, "a counted figure moved: look at it, then alexsim check bench update"
    assert any(name.startswith("kernels/") for name in shipped.counted)


def test_without_triton_no_kernel_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alexsim.bench.counted.util.find_spec", lambda _: None)
    assert kernel_figures() == {}
    shipped = store.load(store.default_path("alexnet-2012"))
    selection = Selection(network="alexnet-2012", batch_size=8, timed=False)
    _, verdicts = runner.compare(selection, shipped, tolerance=0.05)
    assert verdicts
    assert {v.status for v in verdicts} == {"same"}
    assert exit_code("check", "bench", "compare", "--only", "counted") == 0
    out = capsys.readouterr().out
    assert "left out: kernels (Triton is not installed), ratios (--only counted)" in out


def test_what_was_left_out_is_told(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        exit_code("check", "bench", "run", "--net", own, "--only", "counted", "--no-kernels") == 0
    )
    assert "left out: kernels (--no-kernels), ratios (--only counted)" in capsys.readouterr().out
    what = ("--net", own, "--only", "counted", "--no-kernels", "--json")
    assert exit_code("check", "bench", "run", *what) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["left_out"] == {"kernels": "--no-kernels", "ratios": "--only counted"}


def test_a_network_of_ones_own_is_gated(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = str(tmp_path / "own.json")
    what = ("--net", own, "--baseline", baseline, "--only", "counted", "--no-kernels")
    assert exit_code("check", "bench", "compare", *what) == 2
    assert "make one with `alexsim check bench update" in capsys.readouterr().err
    assert exit_code("check", "bench", "update", *what) == 0
    assert exit_code("check", "bench", "compare", *what) == 0
    capsys.readouterr()
    file = Path(own.partition(":")[0])
    file.write_text(OWN.replace("units=16", "units=17"))
    load_network.cache_clear()
    assert exit_code("check", "bench", "compare", *what) == 4
    out, err = capsys.readouterr()
    assert "changed: parameters: 1108 -> 1177" in out
    assert err.startswith("alexsim: the gate failed: ")
    assert exit_code("check", "bench", "compare", *what, "--json") == 4
    document = json.loads(capsys.readouterr().out)
    changed = {v["name"] for v in document["verdicts"] if v["fails"]}
    assert {"parameters", "flop/training", "plan/digest"} <= changed


def test_an_update_keeps_what_it_did_not_measure(own: str, tmp_path: Path) -> None:
    other = replace(HOST, cpu="b")
    before = store.updated(BASELINE, [found(timed(2.0), host=other), found(timed(2.2), host=other)])
    assert set(before.machines) == {HOST.key, other.key}
    assert before.counted == BASELINE.counted
    assert before.machines[other.key].timed["step"] == Stored(ratio=2.1, low=2.0, high=2.2, runs=2)
    path = tmp_path / "b.json"
    path.write_text(json.dumps(store.document(before)))
    assert store.load(path) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("machines"), "no baseline of this version"),
        (lambda d: d.update(schema=7), "schema 7, not 1"),
        (lambda d: d["host"].update(colour="red"), "no baseline of this version"),
        (
            lambda d: d["counted"].update(flop=math.nan),
            "flop must be a finite number or a text",
        ),
        (
            lambda d: d["counted"].update(flop=True),
            "flop must be a finite number or a text",
        ),
        *(
            (lambda d, bad=bad: step_of(d).update(ratio=bad), "step.ratio must be a ")
            for bad in (math.nan, math.inf, "1", None)
        ),
        *(
            (lambda d, bad=bad: step_of(d).update(low=bad), "step: must have 0 < low <= ratio")
            for bad in (0, -1.0, 1.01)
        ),
    ],
)
def test_a_damaged_baseline_is_named(
    change: object, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = store.document(BASELINE)
    change(document)
    path = tmp_path / "b.json"
    path.write_text(json.dumps(document))
    assert exit_code("check", "bench", "compare", "--baseline", str(path)) == 2
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--only", "some"], "--only must be one of counted, timed"),
        (["compare", "--tolerance", "-1"], "--tolerance must be a number >= 0"),
        (["compare", "--tolerance", "nan"], "--tolerance must be a number >= 0"),
        (["compare", "--tolerance", "inf"], "--tolerance must be a number >= 0"),
        (["update", "--runs", "0"], "--runs"),
        (["update", "--baseline", "no/such/folder/b.json"], "there is no folder"),
        (["run", "--net", "nowhere.py:net"], "there is no file nowhere.py"),
        (
            ["run", "--net", f"{__file__}:nothing"],
            "has no Network and no torch.nn.Module called 'nothing'",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("check", "bench", *arguments) == 2
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "script", sorted(Path(__file__).parent.glob("benchmarks/*.py")), ids=lambda path: path.name
)
def test_scripts_that_measure_find_what_they_import(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="imported")
