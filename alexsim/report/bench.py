"""Benchmark runs and verdicts as terminal tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.bench.verdicts import COUNTED, BenchRun, Timed, Verdict, by_change
from alexsim.report.tables import plain_table

_SHOWN = 20
"""Changed figures that are listed; --json and --junit have all."""


def bench_tables(run: BenchRun) -> RenderableType:
    """The figures of one run."""
    parts: list[RenderableType] = [Text(_head(run))]
    if run.timed:
        table = plain_table(
            "Ratios: ours over the reference, medians of pairs, 95 % intervals",
            "case: ours / reference", "ms", "ref. ms", "ratio", "interval", "pairs",
        )  # fmt: skip
        for case in run.timed:
            table.add_row(
                f"{case.name}: {case.ours} / {case.reference}",
                f"{1e3 * case.ours_s:.1f}",
                f"{1e3 * case.reference_s:.1f}",
                f"{case.ratio.median:.3f}",
                _interval(case),
                str(case.ratio.pairs),
            )
        parts.append(table)
    return Group(*parts)


def verdict_tables(
    run: BenchRun, verdicts: Sequence[Verdict], *, tolerance: float
) -> RenderableType:
    """What changed, largest change first, and what fails."""
    exact = [v for v in verdicts if v.status in COUNTED]
    timed = by_change(v for v in verdicts if v.status not in COUNTED)
    parts: list[RenderableType] = [Text(_head(run))]
    if exact:
        differ = difference_lines(exact)
        parts.append(Text(f"counted figures: {len(exact) - len(differ)} of {len(exact)} the same"))
        parts += [Text(f"  {line}") for line in differ[:_SHOWN]]
        if len(differ) > _SHOWN:
            parts.append(Text(f"  and {len(differ) - _SHOWN} more: --json or --junit has all"))
    if timed:
        table = plain_table(
            f"Ratios: fails where the whole interval is more than {100 * tolerance:g} % slower",
            "case", "change", "interval", "baseline", "now", "verdict",
        )  # fmt: skip
        for v in timed:
            table.add_row(
                v.name,
                percent(v.relative_change),
                interval_text(v),
                value_text(v.before, missing=""),
                value_text(v.after),
                v.status,
            )
        parts.append(table)
        if all(v.status == "no baseline" for v in timed):
            parts.append(
                Text(
                    "no ratios of this machine in the baseline: they are shown, not judged;\n"
                    "`alexsim check bench update` adds them"
                )
            )
    return Group(*parts)


def difference_lines(verdicts: Iterable[Verdict]) -> list[str]:
    """A line for each figure that is not the baseline's, largest relative change first."""
    return [
        f"{percent(v.relative_change):>8}  {v.status}: {v.name}: {value_text(v.before)} ->"
        f" {value_text(v.after)}"
        for v in by_change(v for v in verdicts if v.status not in ("same", "ok"))
    ]


def percent(change: float | None) -> str:
    """A relative change: ``+6.2 %``, in two digits where it is small; ``anew`` of nothing."""
    if change is None:
        return ""
    if math.isinf(change):
        return "anew"
    small = 0 < abs(change) < 1e-3
    digits = -1 - math.floor(math.log10(abs(change))) if small else 1
    return f"{100 * change:+.{digits}f} %"


def interval_text(verdict: Verdict) -> str:
    """Of a timed case's change."""
    change = verdict.change
    return f"{100 * (change.low - 1):+.1f} to {100 * (change.high - 1):+.1f}" if change else ""


def value_text(value: object, missing: str = "nothing") -> str:
    """A figure: counted ones whole, ratios to three digits."""
    if value is None:
        return missing
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _head(run: BenchRun) -> str:
    at = f", commit {run.host.commit}" if run.host.commit else ""
    return f"{run.network} on {run.host.key}{at}{left_out(run)}"


def left_out(run: BenchRun) -> str:
    """A line on the figures that were not taken, behind a line break; empty if all were."""
    left = ", ".join(f"{what} ({why})" for what, why in run.left_out.items())
    return f"\nleft out: {left}" if left else ""


def _interval(case: Timed) -> str:
    return f"{case.ratio.low:.3f} to {case.ratio.high:.3f}"
