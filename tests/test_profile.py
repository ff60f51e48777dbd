"""``alexsim profile``: counts that are the plan's, times that add up, tables that fit."""

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from alexsim.cli.app import main
from alexsim.documents.profile import profile_document
from alexsim.editions.load import load_network
from alexsim.execute.context import STILL
from alexsim.execute.executor import Executor
from alexsim.ledger.tables import flop_table
from alexsim.plan.planner import plan
from alexsim.profile import profiler
from alexsim.profile.profiler import Underlay
from alexsim.profile.step_profile import StepProfile, ratio, spread
from alexsim.report.profile import profile_tables
from alexsim.report.tables import milliseconds
from alexsim.trace import Span, Trace
from alexsim.units import format_bytes

Profiled = tuple[StepProfile, Underlay]

FAST = ("--net", "lenet-5", "--batch", "64", "--rounds", "3", "--threads", "1")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["profile", *arguments])
    return int(caught.value.code or 0)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_counts_are_those_of_flops(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *FAST)
    table = flop_table(load_network("lenet-5"), 64)
    assert [layer["name"] for layer in found["layers"]] == [la.name for la in table.layers]
    for layer, counted in zip(found["layers"], table.layers, strict=True):
        for key, value in (
            ("flop", counted.flop),
            ("grad_input_flop", counted.grad_input_flop),
            ("grad_weight_flop", counted.grad_weight_flop),
        ):
            assert layer[key] == 64 * value, (layer["name"], key)
        assert layer["parameters"] == counted.parameters
        whole = layer["flop"] + layer["grad_input_flop"] + layer["grad_weight_flop"]
        assert layer["arithmetic_intensity"] == whole / layer["bytes"]


def test_times_add_up_to_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *FAST)
    passes = sum(
        seconds
        for layer in found["layers"]
        for name, seconds in layer["measured"].items()
        if name.endswith("_s") and name != "gflop_per_s"
    )
    whole = passes + found["transfers_s"] + found["rest_s"]
    assert whole == pytest.approx(found["timed_step_s"])
    spans = found["spans"]["measured"]
    inside = sum(span["end_s"] - span["start_s"] for span in spans)
    # One after another on a CPU: ops cannot take longer than the step that they make up.
    assert 0 < inside <= max(span["end_s"] for span in spans) + 1e-6
    for layer in found["layers"]:
        for name, (low, high) in layer["measured_interval"].items():
            assert low <= layer["measured"][name] <= high
        for name, limit in layer["limit"].items():
            assert limit in ("compute", "memory", "overhead"), name
    predicted = sum(sum(layer["predicted"].values()) for layer in found["layers"])
    assert 0 < predicted <= found["predicted_step_s"]


def test_one_layer_pass_by_pass(capsys: pytest.CaptureFixture[str]) -> None:
    only = document(capsys, *FAST, "--layer", "conv1")
    assert [layer["name"] for layer in only["layers"]] == ["conv1"]
    # The first layer's input needs no gradient.
    assert set(only["layers"][0]["limit"]) == {"forward", "grad_weight", "update"}
    assert run(*FAST, "--layer", "fc5") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for word in ("fc5: FullyConnected", "grad_input", "FLOP/B", "% of the step"):
        assert word in out


def test_the_answer_is_one_screen_and_the_table_widens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*FAST, "--layers") == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    answer, table = narrow.split("ms per step here")
    assert len(answer.splitlines()) <= 24
    for word in ("images/s", "slowest", "memory", "ceilings", "timing cost", "Next: --layer "):
        assert word in answer
    from alexsim.command import options

    monkeypatch.setattr(options, "console", lambda: Console(width=160, highlight=False))
    assert run(*FAST, "--layers") == 0
    wide = capsys.readouterr().out
    assert "…" not in wide
    for word in ("parameters", "GMAC", "MiB moved", "FLOP/B", "MiB held"):
        assert word in wide
        assert word not in table


def test_the_answer_says_what_the_document_says(two_gpus: Profiled) -> None:
    """Figures of the first screen are the document's, of two devices too."""
    measured, _ = two_gpus
    told = profile_document(measured)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(profile_tables(measured, "", width=80))
    text = console.export_text()
    assert len(text.splitlines()) <= 24
    assert "ms per step here" not in text
    slowest = max(measured.layers, key=lambda layer: sum(p.measured.median_s for p in layer.passes))
    for figure in (
        f"{milliseconds(told.step_s)} ms",
        f"Next: --layer {slowest.name};",
        f"{milliseconds(told.predicted_step_s)} ms",
        format_bytes(max(held.measured_bytes for held in measured.held)),
    ):
        assert figure in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "conv9"), "no layer 'conv9'; did you mean conv"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("--device", "gpu"), "--device must be one of auto, cpu, cuda"),
        (("--machine", "gtx58"), "did you mean gtx580"),
    ],
)
def test_mistakes_get_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_measuring_rates_change_no_weight_and_leave_nothing_out() -> None:
    made = plan(load_network("lenet-5"), batch_size=4, backend="aten")
    assert STILL.weight_rate > 0  # ATen leaves out products that are multiplied by 0
    executor = Executor(made)
    executor.initialise()
    before = {name: tensor.clone() for name, tensor in executor.state().items()}
    images, labels = torch.randn(4, *made.network.input_shape), torch.arange(4)
    executor.step(images, labels, step=0, hyperparameters=STILL)
    for name, tensor in executor.state().items():
        if name.endswith("momentum"):
            assert tensor.any(), name
            assert tensor.abs().max() < 1e-15
        else:
            assert torch.allclose(tensor, before[name], rtol=0, atol=1e-15), name


def test_recording_can_be_switched_off() -> None:
    made = plan(load_network("lenet-5"), batch_size=2, backend="aten")
    executor = Executor(made)
    executor.initialise()
    batch = torch.randn(2, *made.network.input_shape), torch.tensor([0, 1])
    for on in (True, False, True):
        executor.record(on=on)
        executor.step(*batch, step=0, hyperparameters=STILL)
        assert len(executor.trace().spans) == (sum(1 for _ in made.ops()) if on else 0)


def test_what_timing_an_op_costs_is_little_and_leaves_nothing_behind() -> None:
    made = plan(load_network("lenet-5"), batch_size=2, backend="aten")
    executor = Executor(made)
    executor.initialise()
    # Others use these cores as well: the middle of three.
    assert 0 < sorted(executor.event_s() for _ in range(3))[1] < 50e-6
    assert executor.trace().spans == ()
    batch = torch.randn(2, *made.network.input_shape), torch.tensor([0, 1])
    executor.step(*batch, step=0, hyperparameters=STILL)
    assert executor.trace().spans == ()
    executor.record()
    executor.step(*batch, step=1, hyperparameters=STILL)
    assert [span.op_id for span in executor.trace().spans] == [op.id for op in made.ops()]


def test_what_is_held_is_what_was_planned(lenet: Profiled, two_gpus: Profiled) -> None:
    for found, devices in ((lenet[0], 1), (two_gpus[0], 2)):
        assert [held.devices for held in found.held] == [f"gpu{n}" for n in range(devices)]
        for held, device in zip(found.held, found.plan.devices, strict=True):
            assert held.planned_bytes == device.total_bytes
            # More than the arena alone: its scratch was seen.
            assert held.measured_bytes > device.arena_bytes + device.scratch_bytes / 2
            assert held.measured_bytes == pytest.approx(held.planned_bytes, rel=0.01)


def span_of(op: str, device: str, start: float, end: float) -> Span:
    return Span(
        op_id=op,
        activity="computing",
        device=device,
        queue="compute",
        step=0,
        start_s=start,
        end_s=end,
        source="here",
    )


@pytest.mark.parametrize(
    ("allocations", "peaks"),
    [
        ([], (0, 0)),
        # Within an op of one device, and then of the other.
        ([(11, 5), (12, 7), (13, -7), (14, -5), (21, 9), (22, -9)], (12, 9)),
        # The most, not the last; an end belongs to its op.
        ([(11, 50), (12, -40), (20, 1), (20, -11)], (50, 0)),
        # What was taken before the first op and between two is still there in the next.
        ([(1, 100), (11, 1), (25, 30), (31, 2)], (133, 0)),
        # Between and after ops is nobody's.
        ([(26, 500), (27, -500), (41, 70)], (0, 0)),
        # What is given back was taken earlier still.
        ([(2, -8), (12, 9)], (1, 0)),
    ],
)
def test_scratch_counts_where_an_op_took_it(
    allocations: list[tuple[int, int]], peaks: tuple[int, int]
) -> None:
    spans = (
        span_of("late", "gpu0", 30e-9, 40e-9),
        span_of("first", "gpu0", 10e-9, 20e-9),
        span_of("other", "gpu1", 20.5e-9, 24e-9),
    )
    found = profiler._scratch_peaks(Trace(spans=spans), allocations)
    assert found == dict(zip(("gpu0", "gpu1"), peaks, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10])
def test_quantiles_of_even_and_odd_numbers(count: int) -> None:
    values = [float(7 * n % 11) for n in range(count)]
    found = spread(values)
    assert (found.low_s, found.median_s, found.high_s) == pytest.approx(
        tuple(np.quantile(values, (0.1, 0.5, 0.9)))
    )


def test_spreads_are_quantiles() -> None:
    found = spread([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert (found.median_s, found.low_s, found.high_s) == (6.0, 2.0, 10.0)
    one = spread([7.0])
    assert (one.median_s, one.low_s, one.high_s) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize("pairs", [6, 15, 21, 61])
def test_intervals_of_ratios_hold_the_median_19_times_in_20(pairs: int) -> None:
    """Whatever the distribution; the next narrower interval would not."""
    rng = np.random.default_rng(pairs)
    # Ratios of skewed times, their true median 1.
    draws = np.sort(np.exp(rng.laplace(0, 1, (20_000, pairs))))
    ranks = ratio([float(n) for n in range(1, pairs + 1)], [1.0] * pairs)
    low, high = int(ranks.low) - 1, int(ranks.high) - 1
    assert low + high == pairs - 1
    assert np.mean((draws[:, low] <= 1) & (draws[:, high] >= 1)) >= 0.95
    assert np.mean((draws[:, low + 1] <= 1) & (draws[:, high - 1] >= 1)) < 0.95
    for row in draws[:50]:
        shuffled = rng.permutation(row)
        theirs = rng.uniform(0.5, 2.0, pairs)
        found = ratio(shuffled * theirs, theirs)
        assert found.pairs == pairs
        assert (found.low, found.median, found.high) == pytest.approx(
            (row[low], np.median(row), row[high])
        )


def test_intervals_of_ratios_are_as_narrow_as_19_in_20_allows() -> None:
    def holds(n: int, rank: int) -> bool:
        """The median lies between the ranks unless fewer than ``rank`` values are on one side."""
        return 20 * sum(math.comb(n, k) for k in range(rank, n - rank + 1)) >= 19 * 2**n

    for n in range(6, 101):
        rank = int(ratio([float(k) for k in range(1, n + 1)], [1.0] * n).low)
        assert holds(n, rank), n
        assert not holds(n, rank + 1), n


@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 5])
def test_few_pairs_give_their_smallest_and_largest(pairs: int) -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0][:pairs]
    found = ratio(values, [2.0] * pairs)
    assert (found.low, found.high) == (min(values) / 2, max(values) / 2)
    assert found.median == np.median(values) / 2


def test_ratios_that_are_all_the_same_have_no_width() -> None:
    for pairs in (1, 6, 40):
        found = ratio([3.0] * pairs, [2.0] * pairs)
        assert (found.low, found.median, found.high) == (1.5, 1.5, 1.5)
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_a_step_with_torch_s_profiler_under_it_is_none_of_the_medians(two_gpus: Profiled) -> None:
    found, _ = two_gpus
    slow = max(found.trace.bounds())
    assert slow == found.rounds
    stretched = Trace(
        spans=tuple(
            replace(span, end_s=span.end_s + 100) if span.step == slow else span
            for span in found.trace.spans
        )
    )
    told = profile_document(replace(found, trace=stretched))
    assert told == profile_document(found)
    assert max(span.end_s for span in told.spans.measured) < 10
