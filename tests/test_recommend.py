"""The inverse question: its answers are those that simulating everything gives."""

import itertools
import json
import math
import shlex
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.cli.app import main
from alexsim.explore import recommend as module
from alexsim.explore.pareto import Point
from alexsim.explore.recommend import Answered, Goal, Recommendation, command_of, recommend
from alexsim.explore.sweep import point_of

IMAGES, EPOCHS = 1_281_167, 90
NET = "alexnet-2012"
AXES = {
    "machine": ("gtx680", "gtx1080-ti", "titan-black", "titan-v", "h100", "dgx-1v", "k80x2"),
    "gpus": ("1", "2", "4", "8"),
    "batch": ("128", "512"),
    "partition": ("columns", "replicas"),
    "precision": ("fp32", "amp"),
}


@cache
def _point(settings: tuple[tuple[str, str], ...]) -> Point:
    return point_of(dict(settings), IMAGES, EPOCHS)


@pytest.fixture(scope="module", autouse=True)
def _simulated_once() -> None:
    """Each configuration once for all goals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "sweep",
            lambda wanted, **_: tuple(_point(tuple(each.items())) for each in wanted),
        )  # fmt: skip
        yield


@cache
def everything() -> tuple[Point, ...]:
    """All configurations that make sense and fit, however slow."""
    points = []
    for machine, gpus, batch, partition, precision in itertools.product(*AXES.values()):
        count, columns = int(gpus), partition == "columns"
        if columns and count == 1:
            continue
        split = (
            {"gpus": "2", "partition": partition, "replicas": str(count // 2)}
            if columns
            else {"gpus": gpus, "partition": partition}
        )
        chosen = {"machine": machine, "batch": batch, "precision": precision}
        points.append(_point(tuple(({"net": NET} | chosen | split).items())))
    return tuple(point for point in points if not point.error and point.fits)


def asked(goal: Goal) -> Recommendation:
    return recommend(goal, AXES, {"net": NET})


VALUES: dict[Answered, Callable[[Point], float]] = {
    "fastest": lambda point: -point.images_per_s,
    "cheapest": lambda point: point.price_usd or math.inf,
    "least energy": lambda point: point.energy_kwh,
    "fewest cards": lambda point: point.gpus,
}


def best(goal: Goal) -> dict[Answered, tuple[float, float]]:
    """Of all that meet the goal, the best value of each kind, and the best rate at that value."""
    met = [
        point for point in everything()
        if point.images_per_s >= goal.least_images_per_s
        and (goal.budget_usd is None or (point.price_usd or math.inf) <= goal.budget_usd)
    ]  # fmt: skip
    values = {}
    for name in goal.answered:
        ranked = [(VALUES[name](point), -point.images_per_s) for point in met]
        if ranked and min(ranked)[0] < math.inf:
            values[name] = min(ranked)
    return values


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.data())
def test_the_answers_are_those_of_simulating_everything(data: st.DataObject) -> None:
    """Whatever is left out as too slow, or as no better, would not have been an answer."""
    rates = [point.images_per_s for point in everything()]
    rate = data.draw(st.none() | st.sampled_from(sorted({*rates, 1.0, 2 * max(rates)})))
    budgets = st.sampled_from([300.0, 1400.0, 3000.0, 12000.0, 1e6])
    budget = data.draw(budgets if rate is None else st.none() | budgets)
    by_days = rate is not None and data.draw(st.booleans())
    speed = {"days": IMAGES * EPOCHS / rate / 86_400} if by_days else {"images_per_s": rate}
    goal = Goal(images=IMAGES, epochs=EPOCHS, budget_usd=budget, **speed)
    found = asked(goal)
    answers = {
        name: (VALUES[name](point), -point.images_per_s) for name, point in found.answers.items()
    }
    assert answers == best(goal)
    assert found.simulated + sum(found.left_out.values()) == found.configurations
    if not found.answers and budget is None:
        assert found.nearest.images_per_s == max(rates)


def test_what_surely_meets_a_goal_does_at_its_upper_bound() -> None:
    for rate in (1000.0, 4000.0):
        goal = Goal(images=IMAGES, epochs=EPOCHS, images_per_s=rate)
        for point in everything():
            low, high = point.days_interval
            assert low < point.training_days < high
            days = IMAGES * EPOCHS / rate / 86_400
            assert goal.met(point) == (point.training_days <= days * (1 + 1e-12))
            assert goal.surely_met(point) == (high <= days * (1 + 1e-12))


def test_little_is_simulated_to_know() -> None:
    found = asked(Goal(images=IMAGES, epochs=EPOCHS, days=2))
    assert found.simulated < found.configurations / 2


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command_shows_what_was_answered(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(Goal(images=IMAGES, epochs=EPOCHS, images_per_s=4000))
    for point in found.answers.values():
        code, out, _ = answer(capsys, *shlex.split(command_of(point))[1:], "--json")
        shown = json.loads(out)
        assert code == 0
        assert shown["training_days"] == pytest.approx(point.training_days)
        assert shown["training_days_interval"] == pytest.approx(point.days_interval)
        assert (shown["gpus"], shown["price_usd"], shown["fits"]) == (
            point.gpus, point.price_usd, True,
        )  # fmt: skip


FEW = ("recommend", "--machine", "gtx1080-ti,k80", "--gpus", "1,2", "--batch", "128")


def test_a_goal_that_nothing_meets_is_a_gate_that_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = answer(capsys, *FEW, "--images-per-s", "1000000", "--json")
    document = json.loads(out)
    assert (code, document["answers"]) == (4, {})
    nearest = document["nearest"]
    assert not nearest["meets_goal"]
    assert f"2 x gtx1080-ti, batch 128, {nearest['images_per_s']:,.0f} of 1,000,000 images/s" in err
    code, _, err = answer(capsys, *FEW, "--budget", "100")
    assert code == 4
    assert "nearest comes 1 x gtx1080-ti, batch 128, 699 USD" in err
    code, _, err = answer(capsys, *FEW[:1], "--days", "2", "--net", "vgg16", "--machine", "gtx580")
    assert code == 3
    assert "no configuration fits: nearest comes gtx580 with" in err


def test_answers_come_first_with_all_that_they_rest_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, *FEW, "--days", "9", "--precision", "fp32")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith(f"{NET}, 90 epochs of 1,281,167 images in 9 days: 148 images/s")
    for words in ("cheapest", "machine", "90 %", "met at the upper bound", "USD", "kWh", " of "):
        assert any(words in line for line in lines[:16]), words
    command = "alexsim simulate --net alexnet-2012 --machine gtx1080-ti --batch 128 --gpus 1"
    assert command in out.replace(" \\\n    ", " ")
    assert "6 configurations: " in out
    assert "; 1 machine(s) have no stated price." in out
