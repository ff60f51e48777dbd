"""NaN is never right, and no JSON document holds one."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import CLASSES, write_weights

from alexsim.bench.verdicts import Host, Machine, Stored, Timed, _timed
from alexsim.cli.app import main
from alexsim.command.output import json_text as document_text
from alexsim.data.dataset import Sample
from alexsim.documents.run import HeldOutMetrics, StepMetrics
from alexsim.evaluate.evaluate import Answers, averaged, combined, errors, tuned
from alexsim.evaluate.neighbours import _distances, _without
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy
from alexsim.network.network import Network
from alexsim.page.curves import curve_section
from alexsim.page.figures import run_figures
from alexsim.page.inputs import Wanted, plan_subject
from alexsim.plan.planner import plan
from alexsim.profile.step_profile import Ratio
from alexsim.recipe.recipe import Plateau, reductions
from alexsim.report.evaluation import best, prediction_rows
from alexsim.report.pictures import levels
from alexsim.strict_json import json_text, json_value
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.settings import HeldOutLine, LayerSize, PartEvaluation, ValidationLine
from alexsim.train.weights import load_weights, save_weights
from alexsim_kernels import loss as loss_kernels
from alexsim_kernels import reference

NOT_FINITE = (math.nan, math.inf, -math.inf)
Planted = tuple[np.ndarray, np.ndarray, np.ndarray]


def strict(text: str) -> Any:
    """Parse as RFC 8259 has it."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@st.composite
def planted(draw: st.DrawFn) -> Planted:
    """Probabilities of some images, the same with numbers that are none here and there, labels."""
    images, classes = draw(st.integers(1, 6)), draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sound = rng.dirichlet(np.ones(classes), images).astype(np.float32)
    broken = sound.copy()
    places = st.tuples(st.integers(0, images - 1), st.integers(0, classes - 1))
    for place in draw(st.lists(places, min_size=1, max_size=8)):
        broken[place] = draw(st.sampled_from(NOT_FINITE))
    return sound, broken, rng.integers(0, classes, images)


def answers_of(probabilities: np.ndarray, labels: np.ndarray) -> Answers:
    samples = tuple(Sample(path=str(i), label=int(label)) for i, label in enumerate(labels))
    return Answers(samples=samples, probabilities=probabilities, broken=())


@given(planted())
def test_what_is_not_finite_is_wrong_and_never_lowers_an_error(of: Planted) -> None:
    sound, broken, labels = of
    bad = ~np.isfinite(broken).all(1)
    before, after = (errors(answers_of(one, labels)) for one in (sound, broken))
    assert after.top1 >= before.top1
    assert after.top5 >= before.top5
    assert after.top1 >= bad.mean()
    assert after.top5 >= bad.mean()
    assert math.isnan(after.loss)
    assert after.nan_images == bad.sum()
    rows = prediction_rows(answers_of(broken, labels), "abcdefgh")
    assert [row["guess1"] is None for row in rows] == bad.tolist()
    assert [best(row, "abcdefgh") == [] for row in broken] == bad.tolist()


@given(planted(), st.data())
def test_an_ensemble_with_nan_is_no_better_and_gives_it_no_share(
    of: Planted, data: st.DataObject
) -> None:
    sound, broken, labels = of
    good, bad = (answers_of(one, labels) for one in (sound, broken))
    both = data.draw(st.permutations([good, bad]))
    share = errors(averaged(both, (0.5, 0.5)))
    assert share.nan_images == errors(bad).nan_images
    assert math.isnan(share.loss)
    assert tuned(both) == tuple(float(one is good) for one in both)
    assert errors(combined(both, tuned_on=both).together) == errors(good)
    assert tuned([bad, bad]) == (0.5, 0.5)


@settings(deadline=None, max_examples=20)  # interpreted kernels are slow at first
@given(planted())
def test_every_loss_kernel_counts_it_as_wrong(of: Planted) -> None:
    _, broken, labels = of
    bad = ~np.isfinite(broken).all(1)
    p, own = torch.from_numpy(broken), torch.from_numpy(labels)
    losses, top1, top5 = (torch.zeros(len(labels)) for _ in range(3))
    loss_kernels.cross_entropy(p, own, losses, top1, top5)
    for found, count in ((top1, 1), (top5, 5)):
        expected = reference.errors(p, own, count)
        assert bool((expected[torch.from_numpy(bad)] == 1).all())
        torch.testing.assert_close(found, expected.to(found.dtype))
    assert losses.isnan().numpy().tolist() == bad.tolist()


@pytest.mark.parametrize("value", NOT_FINITE)
def test_a_step_counts_it_as_wrong(value: float) -> None:
    """Images of which one is not finite; a probability of NaN anywhere is enough."""
    network = Network(
        name="rows",
        input_shape=(1, 1, 4),
        columns=1,
        layers=(
            FullyConnected(name="fc1", units=6, weight_std=1.0),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )
    executor = Executor(plan(network, gpus=1, batch_size=3, backend="aten"))
    executor.initialise()
    images = torch.ones(3, 1, 1, 4)
    images[1, 0, 0, 2] = value
    labels = torch.zeros(3, dtype=torch.int64)
    tested = executor.evaluate(images, labels)
    trained = executor.step(images, labels, step=0, hyperparameters=Hyperparameters())
    for context in (tested, trained):
        assert context.losses is not None
        assert context.top1 is not None
        assert context.top5 is not None
        assert context.losses.isnan().tolist() == [False, True, False]
        assert context.top1[1] == context.top5[1] == 1
    # The update has spread it: what the step put out tells where it began.
    assert executor.first_not_finite() == "fc1.a.activation on gpu0"


def test_no_plateau_takes_nan_for_a_best_error() -> None:
    plateau = Plateau(divide_by=10, times=3, patience=2)
    assert reductions([0.5, math.nan, math.nan], plateau) == 1
    assert reductions([math.nan, 0.5, 0.4], plateau) == 0


def test_distances_that_are_none_make_no_neighbours() -> None:
    of = np.array([[0.0, math.nan], [3.0, 4.0], [math.inf, 0.0]])
    samples = [Sample(path=f"{i}.png", label=0) for i in range(3)]
    query = Sample(path="q.png", label=0)
    near = list(_without(query, samples, _distances(np.zeros(2), of)))
    assert near == [(5.0, samples[1])]
    assert not list(_without(query, samples, _distances(np.array([math.nan, 0.0]), of)))


def test_filters_that_are_not_finite_are_magenta() -> None:
    weights = np.ones((2, 3, 2, 2), np.float32)
    weights[1, 2, 0, 1] = math.nan
    drawn = levels(weights)
    assert drawn[1, 0, 1].tolist() == [255, 0, 255]
    assert (np.delete(drawn.reshape(8, 3), 5, 0) == 255).all()


def test_no_gate_passes_for_nan() -> None:
    nothing = Ratio(median=math.nan, low=math.nan, high=math.nan, pairs=3)
    host = Host(cpu="", cores=1, python="", torch="", commit="", date="")
    case = Timed(name="a", ours="", reference="", ratio=nothing, ours_s=1, reference_s=1)
    stored = Machine(host=host, timed={"a": Stored(ratio=1, low=1, high=1, runs=1)})
    assert _timed(case, stored, 0.1).fails


KEYS = st.sampled_from(["a", "b"])
LEAVES = st.sampled_from([None, True, 3, 0.5, "NaN", *NOT_FINITE])
INNER = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(KEYS, LEAVES, max_size=3)


@given(st.dictionaries(KEYS, INNER | st.lists(INNER, max_size=3), max_size=3))
def test_any_document_is_json_and_says_what_is_missing(document: dict[str, Any]) -> None:
    text = json_text(document)
    read = strict(text)
    assert strict(document_text(document)) == read
    written = json.dumps(document).replace('"NaN"', "")
    count = written.count("NaN") + written.count("Infinity")
    assert ("not_finite" in read) == bool(count)
    assert str(json_value(text)) == str(document)


def test_old_lines_with_bare_nan_are_read_and_new_ones_are_json(tmp_path: Path) -> None:
    old = '{"step": 1, "held_out": {"loss": NaN, "top1": 1.0, "top5": 1.0}}\n'
    (tmp_path / "metrics.jsonl").write_text(old)
    directory = RunDirectory(tmp_path)
    tested = PartEvaluation(loss=math.inf, top1=1.0, top5=1.0, epoch=1, images=3)
    appended = ValidationLine(step=2, validation=tested, layers={"fc1": LayerSize(0.1, math.nan)})
    directory.append_metrics(appended)
    for _ in range(2):
        first, second = directory.metrics()
        assert isinstance(first, HeldOutLine)
        assert math.isnan(first.held_out.loss)
        assert str(second) == str(appended)
        directory.rewind_metrics(2)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
            strict(line)


def test_curves_leave_out_what_is_no_number_and_say_so() -> None:
    line = {"step_s": 1.0, "data_wait_s": 0.1, "top1": 0.5, "top5": 0.1, "loss": 2.0}
    steps = tuple(StepMetrics(step=n, **line) for n in (1, 2))
    scores = {"loss": math.nan, "top1": 1.0, "top5": 1.0}
    tested = tuple(HeldOutMetrics(step=n, held_out=scores) for n in (1, 2))
    tested += (HeldOutMetrics(step=3, held_out=scores | {"loss": 1.5}), *tested[:1])
    plan = plan_subject(Wanted(network="lenet-5"))
    subject = replace(plan, kind="run", metrics=steps, held_out=tested)
    plots = run_figures(steps, tested, ())
    section = curve_section(subject)
    assert section is not None
    assert "On held-out images NaN." in section.figures[0].text
    (marks,) = (trace for trace in plots["loss"].data if trace.name == "held out")
    assert (marks.x, marks.y) == ((3,), (1.5,))
    untested = run_figures(steps, tested[:2], ())["loss"]
    assert [trace.name for trace in untested.data] == ["training"]


def writers() -> Iterator[tuple[Path, ast.Call]]:
    """Every call in our packages that makes JSON text."""
    root = Path(__file__).parents[1]
    for folder in ("alexsim", "kernels", "profiles"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                    "json.dump",
                    "json.dumps",
                ):
                    yield path, node


def test_nobody_writes_json_that_may_hold_nan() -> None:
    careless = [
        f"{path.name}:{call.lineno}"
        for path, call in writers()
        if "allow_nan=False" not in map(ast.unparse, call.keywords)
        # An index of images, which holds no fractions; what is checked while it is read.
        and path.parent.name != "packed"
        and path.name != "typed.py"
    ]
    assert not careless


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A network that puts out NaN for bright images only, images of three classes, weights."""
    path = write_weights(tmp_path)
    whole = load_weights(path)
    whole.state["fc3.a.bias"][1] = math.nan
    save_weights(path, whole)
    rng = np.random.default_rng(2)
    for name in CLASSES:
        for split in ("train", "val"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for index in range(2):
                pixels = rng.integers(0, 256, (27, 27, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{index}.png")
    return path, tmp_path / "data", tmp_path / "data/val/dark/0.png"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


HERE = ("--threads", 1, "--workers", 1)


def test_commands_name_nan_in_a_line_and_write_json(
    broken: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data, image = broken
    commands: dict[str, tuple[object, ...]] = {
        "puts out NaN for 6 of 6 images": ("eval", weights, "--data", data, *HERE),
        "no guess: the network puts out NaN": (
            "model",
            "predict",
            weights,
            image,
            *HERE,
            "-o",
            "p.png",
        ),
    }
    for said, (command, *rest) in commands.items():
        rest = [tmp_path / one if one == "p.png" else one for one in rest]
        assert run(command, *rest) == 0
        assert said in capsys.readouterr().out
        assert run(command, *rest, "--json") == 0
        document = strict(capsys.readouterr().out)
        assert document["nan_images"] == (6 if command == "eval" else 1)
        if command == "eval":
            assert document["loss"] is None
            assert document["not_finite"] == {"loss": "NaN", "models[0].loss": "NaN"}
            assert (document["top1"], document["top5"]) == (1, 1)


def test_nothing_is_trained_from_nan(
    broken: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data, _ = broken
    begun = tmp_path / "run"
    assert run("train", "--init-from", weights, "--data", data, "--steps", 1, "-o", begun) == 2
    assert "fc3.a.bias holds NaN" in capsys.readouterr().err
    assert not begun.exists()


def test_outputs_without_a_class_are_no_guess() -> None:
    """Two classes, four outputs, of which one without a class is the likeliest."""
    rows = np.array([[0.2, 0.1, 0.0, 0.7], [0.1, 0.2, 0.7, 0.0]], np.float32)
    of = replace(answers_of(rows, np.array([0, 0])), classes=2)
    found = errors(of)
    assert (found.top1, found.top5) == (0.5, 0)
    assert found.loss == pytest.approx(-(math.log(0.2) + math.log(0.1)) / 2)
    assert of.elsewhere == pytest.approx([0.7, 0.7])
    first, second = prediction_rows(of, ("cat", "dog"))
    assert [first[f"guess{n}"] for n in range(1, 5)] == ["cat", "dog", "output 3", "output 2"]
    assert [second[f"guess{n}"] for n in range(1, 5)] == ["dog", "cat", "output 2", "output 3"]
    # With a network that has no more outputs than classes, these are averaged.
    other = replace(answers_of(np.array([[0, 1.0], [1, 0]], np.float32), np.array([0, 0])))
    both = averaged([of, replace(other, classes=2)], (0.5, 0.5))
    assert both.probabilities == pytest.approx(np.array([[0.1, 0.55], [0.55, 0.1]]))


def test_predict_leaves_them_out_and_says_how_likely_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path, classes=("bright", "dark"))
    whole = load_weights(weights)
    whole.state["fc3.a.bias"].copy_(torch.tensor([0.0, 1.0, 9.0]))
    save_weights(weights, whole)
    image = tmp_path / "a.png"
    Image.fromarray(np.full((27, 27, 3), 90, np.uint8)).save(image)
    assert run("model", "predict", weights, image, *HERE, "--json") == 0
    document = strict(capsys.readouterr().out)
    assert document["unnamed_outputs"] == 1
    (found,) = document["images"]
    assert {one["class"] for one in found["guesses"]} == {"bright", "dark"}
    known = sum(one["probability"] for one in found["guesses"])
    assert found["unnamed_probability"] == pytest.approx(1 - known, abs=1e-6)
    assert found["unnamed_probability"] > 0.9
    assert run("model", "predict", weights, image, *HERE) == 0
    assert "% of probability on 1 of 3 outputs without a class" in capsys.readouterr().out
