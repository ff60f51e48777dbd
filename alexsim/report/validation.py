"""Predictions of published figures as terminal text, and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from alexsim.costs.card import Card
from alexsim.fidelity.groups import ErrorGroup
from alexsim.fidelity.judged import Judged
from alexsim.fidelity.judging import Gate, Group, Summary, is_layer, summarise
from alexsim.fidelity.row_files import Row
from alexsim.fidelity.rows import Excluded
from alexsim.fidelity.sample import Sample
from alexsim.fidelity.validation import Prediction
from alexsim.report.groups import groups_tables, sample_line, wrapped
from alexsim.report.tables import folded, plain_table, shortened

_MOST = 5
"""So many devices, libraries or networks of a rule are named."""
_UNITS = {"ms per batch": "ms", "ms per image": "ms/i", "images/s": "im/s", "hours": "h"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkErrors:
    """One network on one device in one framework, as the rows name it: errors of its passes."""

    network: str
    device: str
    framework: str
    summary: Summary


def by_network(predictions: Sequence[Prediction]) -> tuple[NetworkErrors, ...]:
    """Errors of whole networks, of all passes: each network on each device in each framework."""
    members: dict[tuple[str, str, str], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        case = prediction.case
        if case.row.value is not None and not is_layer(case):
            members[case.network.name, case.device, case.row.library].append(prediction)
    return tuple(
        NetworkErrors(
            network=network,
            device=device,
            framework=framework,
            summary=summarise(f"{network}, {device}, {framework}", group),
        )
        for (network, device, framework), group in sorted(members.items())
    )


def left_out(excluded: Iterable[Excluded]) -> dict[str, dict[str, int]]:
    """Rows that are not predicted: how many by rule, and by what the rule names; most first."""
    counted = Counter((row.rule, row.why) for row in excluded)
    rules: dict[str, dict[str, int]] = defaultdict(dict)
    for (rule, why), count in counted.most_common():
        rules[rule][why.removeprefix(f"{rule}: ")] = count
    return dict(sorted(rules.items(), key=lambda item: -sum(item[1].values())))


class Judgement(NamedTuple):
    """Errors of predictions: by kind of row, by device and library, and by group."""

    summaries: Sequence[Summary]
    groups: Sequence[Group]
    by_axis: Sequence[ErrorGroup]
    gate: Gate | None = None
    """None where nothing is gated."""

    @property
    def predicted(self) -> int:
        """Rows; of kernels those with a time."""
        if self.groups or not self.by_axis:
            return sum(len(group.predictions) for group in self.groups)
        return self.by_axis[0].plain.rows


def headline(judgement: Judgement, excluded: int, sample: Sample | None) -> str:
    """The answer: how far off, how many in their intervals, and whether the gate passed."""
    predicted = judgement.predicted
    said = f"{predicted:,} of {predicted + excluded:,} rows predicted"
    if not judgement.by_axis:
        return f"{said}; none has a value beside it."
    all_ = judgement.by_axis[0].plain
    said += (
        f": {100 * all_.median_absolute_error:.1f} % off in the median,"
        f" {100 * all_.mean_absolute_error:.1f} % in the mean,"
        f" {100 * all_.coverage:.0f} % in their 90 % intervals."
    )
    if gate := judgement.gate:
        verdict = "passed" if gate.passed else "NOT PASSED"
        said += (
            f" Gate {verdict}: {gate.rows} whole-network steps are {gate.error:.1f} % off in the"
            f" mean, at most {gate.limit:.1f} %."
        )
    return f"{said} A sample: nothing is gated." if sample else said


def validation_tables(
    judgement: Judgement,
    excluded: Sequence[Excluded],
    card: Card,
    *,
    every_row: bool,
    sample: Sample | None = None,
) -> RenderableType:
    """The answer; every row; errors by network, by device and library, by what a reader asks for
    and by kind; why rows are left out; errors of fits that had not seen what they predict."""
    summaries, groups, by_axis, _ = judgement
    said: list[RenderableType] = [wrapped(sample_line(sample))] if sample else []
    parts: list[RenderableType] = [wrapped(headline(judgement, len(excluded), sample)), *said]
    if every_row:
        parts += [Text(_rows_of(group)) for group in groups]
    if any(group.summary.rows for group in groups):
        predictions = [p for group in groups for p in group.predictions]
        parts += [_networks(by_network(predictions)), _groups(groups)]
        parts += [groups_tables(by_axis), _summaries(summaries)]
    parts.append(Text())
    if excluded:
        left = plain_table("Not predicted, by a rule on the row's conditions", "why", "rows")
        for rule, whats in left_out(excluded).items():
            left.add_row(rule, str(sum(whats.values())))
            named = [(what, count) for what, count in whats.items() if what != rule]
            for what, count in named[:_MOST]:
                left.add_row(f"  {shortened(what, 63)}", str(count))
            if others := named[_MOST:]:
                count = sum(count for _, count in others)
                left.add_row(f"  others, {len(others)} in all (-o FILE names them)", str(count))
        parts.append(left)
    less = "Less: --summary, the sums alone. " if every_row else ""
    more = "More: all rows, without --quick. " if sample else ""
    files = "-o FILE.csv has every row, --html FILE.html a page, --json all sums."
    return Lines(*parts, *said, left_out_table(card), wrapped(f"{less}{more}{files}"))


def _rows_of(group: Group) -> str:
    lines = [
        f"\n{group.device}, {group.library}",
        f"  {'row':9s} {'what':19s} {'batch':>5s} {'pass':10s} {'measured':>8s}"
        f" {'predicted':>9s} {'':4s} {'error':>7s}",
    ]
    for prediction in group.predictions:
        case, row = prediction.case, prediction.case.row
        several = f"{row.n_gpus} x " if row.n_gpus > 1 else ""
        what = shortened(f"{several}{row.layer or case.network.name}", 19)
        measured = "" if row.value is None else f"{row.value:.5g}"
        error = "" if row.value is None else f"{100 * prediction.error:+.0f} %"
        lines.append(
            f"  {row.id:9.9s} {what:19s} {case.batch_size:5d} {row.passes:10s} {measured:>8s}"
            f" {f'{prediction.value:.4g}':>9s} {_UNITS[row.unit]:4s} {error:>7s}"
        )
    return "\n".join(lines)


def _networks(networks: Sequence[NetworkErrors]) -> RenderableType:
    out = plain_table(
        "Errors of times, %, of whole networks in all passes", "network", "device", "framework",
        "n", "median", "mean",
    )  # fmt: skip
    out.columns[1].justify = out.columns[2].justify = "left"
    for errors in networks:
        summary = errors.summary
        figures = (summary.median_absolute_error, summary.mean_absolute_error)
        out.add_row(
            folded(errors.network, 20),
            errors.device,
            folded(errors.framework, 20, most=2),
            str(summary.rows),
            *(f"{100 * figure:.1f}" for figure in figures),
        )
    return out


def _groups(groups: Sequence[Group]) -> RenderableType:
    out = plain_table(
        "Errors of times, %, by device and library; beside them the roofline's mean",
        "device", "library", "n", "median", "mean", "worst", "bias", "roofline",
    )  # fmt: skip
    out.columns[1].justify = "left"
    for group in groups:
        summary = group.summary
        if not summary.rows:
            continue
        figures = (summary.median_absolute_error, summary.mean_absolute_error)
        out.add_row(
            group.device,
            group.library,
            str(summary.rows),
            *(f"{100 * figure:.1f}" for figure in figures),
            f"{100 * summary.worst:+.0f}",
            f"{100 * summary.bias:+.1f}",
            f"{100 * group.roofline.mean_absolute_error:.0f}",
        )
    return out


def _summaries(summaries: Sequence[Summary]) -> RenderableType:
    out = plain_table(
        "Errors of times by kind of row and by fit; trusted float32 rows of one GPU",
        "what", "rows", "median", "mean", "worst", "bias", "in 90 %",
    )  # fmt: skip
    for summary in summaries:
        out.add_row(
            summary.name,
            str(summary.rows),
            f"{100 * summary.median_absolute_error:.1f} %",
            f"{100 * summary.mean_absolute_error:.1f} %",
            f"{100 * summary.worst:+.0f} %",
            f"{100 * summary.bias:+.1f} %",
            f"{100 * summary.coverage:.0f} %",
        )
    return out


def predictions_csv(
    predictions: Iterable[Prediction], excluded: Iterable[Excluded]
) -> Iterator[str]:
    """One line per row: the prediction in the row's unit and its bounds, or why there is none.

    Its network and device are named as here or, where there is no prediction, as in the table.
    """
    columns = ["id", "predicted", "low", "high", "reason", "unit", "measured", "error"]
    yield _line([*columns, "network", "device", "framework"])
    for prediction in predictions:
        row = prediction.case.row
        yield _line(
            [
                row.id,
                *(f"{value:.6g}" for value in (prediction.value, prediction.low, prediction.high)),
                "",
                row.unit,
                "" if row.value is None else f"{row.value:g}",
                "" if row.value is None else f"{prediction.error:.4f}",
                prediction.case.network.name,
                prediction.case.device,
                row.library,
            ]
        )
    for left in excluded:
        of = left.row
        assert isinstance(of, Row)
        value = of.value
        figures = [of.unit, "" if value is None else f"{value:g}", ""]
        yield _line([of.id, "", "", "", left.why, *figures, of.network, of.gpu, of.library])


def kernels_csv(judged: Iterable[Judged], excluded: Iterable[Excluded]) -> Iterator[str]:
    """One line per row of a table of kernels: predicted seconds and bounds, or why there are
    none."""
    columns = ["id", "predicted_s", "low_s", "high_s", "reason", "time_s", "error"]
    yield _line([*columns, "device", "source", "op"])
    for row in judged:
        known = row.measured_s is not None
        yield _line(
            [
                row.id,
                *(f"{value:.6g}" for value in (row.predicted_s, row.low_s, row.high_s)),
                "",
                f"{row.measured_s:g}" if known else "",
                f"{row.error:.4f}" if known else "",
                row.device,
                row.source,
                row.op,
            ]
        )
    for left in excluded:
        yield _line([left.row.id, "", "", "", left.why, "", "", "", "", ""])


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def left_out_table(card: Card) -> RenderableType:
    """Errors of fits that had not seen what they predict, beside the mechanism and the roofline."""
    table = plain_table(
        "Left out in turn: median / mean error, %, each card with each source alike",
        "of", "never seen", "rows", "fit", "mechanism", "roofline", "held",
    )  # fmt: skip
    for line in card.left_out:
        pairs = (
            (line.median, line.mean),
            (line.mechanism_median, line.mechanism_mean),
            (line.roofline_median, line.roofline_mean),
        )
        table.add_row(
            line.what,
            line.left_out,
            f"{line.rows:,}",
            *(f"{100 * middle:.0f} / {100 * mean:.0f}" for middle, mean in pairs),
            f"{100 * line.coverage:.0f} %",
        )
    return table
