"""Benchmark runs and verdicts as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.bench.verdicts import BenchRun, Timed, Verdict
from alexsim.report.tables import plain_table

_SHOWN = 20
"""Changed figures that are listed; --json has all."""


def bench_tables(run: BenchRun) -> RenderableType:
    """The figures of one run."""
    parts: list[RenderableType] = [Text(_head(run))]
    if run.timed:
        table = plain_table(
            "Ratios: ours over the reference, medians of pairs, 95 % intervals",
            "case", "ours", "ms", "reference", "ms", "ratio", "interval", "pairs",
        )  # fmt: skip
        for case in run.timed:
            table.add_row(
                case.name,
                case.ours,
                f"{1e3 * case.ours_s:.1f}",
                case.reference,
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
    """What changed, and what fails."""
    exact = [v for v in verdicts if v.status in ("same", "changed", "missing", "new")]
    timed = [v for v in verdicts if v not in exact]
    parts: list[RenderableType] = [Text(_head(run))]
    if exact:
        differ = [v for v in exact if v.status != "same"]
        parts.append(Text(f"counted figures: {len(exact) - len(differ)} of {len(exact)} the same"))
        lines = [
            f"  {v.status}: {v.name}: {_value(v.before)} -> {_value(v.after)}"
            for v in differ[:_SHOWN]
        ]
        if len(differ) > _SHOWN:
            lines.append(f"  and {len(differ) - _SHOWN} more")
        parts += [Text(line) for line in lines]
    if timed:
        table = plain_table(
            f"Ratios: fails where the whole interval is more than {100 * tolerance:g} % slower",
            "case", "baseline", "now", "change", "interval", "verdict",
        )  # fmt: skip
        for v in timed:
            change = v.change
            table.add_row(
                v.name,
                _number(v.before),
                _number(v.after),
                f"{100 * (change.median - 1):+.1f} %" if change else "",
                f"{100 * (change.low - 1):+.1f} to {100 * (change.high - 1):+.1f}"
                if change
                else "",
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


def _head(run: BenchRun) -> str:
    at = f", commit {run.host.commit}" if run.host.commit else ""
    return f"{run.network} on {run.host.key}{at}{left_out(run)}"


def left_out(run: BenchRun) -> str:
    """A line on the figures that were not taken, behind a line break; empty if all were."""
    left = ", ".join(f"{what} ({why})" for what, why in run.left_out.items())
    return f"\nleft out: {left}" if left else ""


def _interval(case: Timed) -> str:
    return f"{case.ratio.low:.3f} to {case.ratio.high:.3f}"


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""


def _value(value: object) -> str:
    return "nothing" if value is None else str(value)
