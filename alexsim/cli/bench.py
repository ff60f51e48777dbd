"""``alexsim check bench``: figures against a stored baseline, for continuous integration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.fields import NOT_NEGATIVE, flag, option
from alexsim.command.measuring import measuring
from alexsim.command.options import NetOptions, output_to
from alexsim.command.output import check_format, json_text, print_json, write_text
from alexsim.errors import AlexsimError, GateError

if TYPE_CHECKING:
    from alexsim.bench.runner import Selection

_STDOUT = Path("-")


@dataclass(frozen=True, kw_only=True)
class BenchOptions(NetOptions):
    """What is measured."""

    batch: int = option("N", "Images of a timed step.", 8)
    only: Literal["counted", "timed"] | None = option(
        "KIND", "`counted`: exact figures; `timed`: ratios. Default: both."
    )
    kernels: bool = flag(
        "Also compile the Triton kernels (a minute or two the first time).",
        True,
        names="--kernels/--no-kernels",
    )

    def selection(self, context: typer.Context) -> Selection:
        """What the runner is asked for.

        Raises:
            AlexsimError: an option is of no use, or there is no such network.
        """
        from alexsim.bench.runner import Selection
        from alexsim.editions.load import load_network

        if self.only == "counted":
            fields.refuse(context, "is for timed cases", "batch", "tolerance", "runs")
        if self.only == "timed":
            fields.refuse(context, "is for counted figures", "kernels")
        load_network(self.net)
        return Selection(
            network=self.net,
            batch_size=self.batch,
            counted=self.only != "timed",
            timed=self.only != "counted",
            kernels=self.kernels,
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions(BenchOptions):
    """Of ``bench run``."""

    output: Path | None = output_to(".json")


@dataclass(frozen=True, kw_only=True)
class BaselineOptions(BenchOptions):
    """A baseline beside it."""

    baseline: Path | None = option("FILE", "Baseline. Default: the one that ships with alexsim.")


@dataclass(frozen=True, kw_only=True)
class CompareOptions(BaselineOptions):
    """Of ``bench compare``."""

    tolerance: float = option("PERCENT", "How much slower a case may be.", 5.0, rules=NOT_NEGATIVE)
    fail_on: Literal["any", "counted", "timed", "nothing"] = option(
        "KIND",
        "Which figures the gate fails for: any, counted, timed or nothing. All are shown.",
        "any",
    )
    markdown: Path | None = option(
        "FILE", "Table for a comment on a pull request; - is stdout, in place of the usual tables."
    )
    junit: Path | None = option("FILE", "JUnit XML: a test case for each figure.")

    def check(self) -> None:
        """Look at what is to be written, and where, before anything is measured.

        Raises:
            AlexsimError: a file cannot be written, or two things are one file.
        """
        if self.fail_on not in ("any", "nothing", self.only) and self.only:
            raise AlexsimError(f"--fail-on {self.fail_on} judges nothing with --only {self.only}")
        if self.markdown == _STDOUT and self.json:
            raise AlexsimError("--json and --markdown - both write to stdout: give one of them")
        files = {"--markdown": self.markdown, "--junit": self.junit, "--baseline": self.baseline}
        seen: dict[Path, str] = {}
        for name, path in files.items():
            if path is None or path == _STDOUT:
                continue
            if other := seen.get(path.resolve()):
                raise AlexsimError(f"{other} and {name} are one file: {path}")
            seen[path.resolve()] = name
        check_format("--markdown", self.markdown, ".md", ".markdown")
        check_format("--junit", self.junit, ".xml")


@dataclass(frozen=True, kw_only=True)
class UpdateOptions(BaselineOptions):
    """Of ``bench update``."""

    runs: int = option("N", "How often each case is timed.", 5)


def run_bench(context: typer.Context, options: RunOptions) -> None:
    """Measure, and compare with nothing.

    Example: alexsim check bench run --only timed
    """
    from alexsim.bench.runner import run
    from alexsim.documents.bench import bench_document
    from alexsim.report.bench import bench_tables

    selection = options.selection(context)
    with measuring(selection) as progress:
        measured = run(selection, progress)
    if options.output is not None:
        write_text(options.output, json_text(bench_document(measured)), "what was measured")
    if options.json:
        print_json(bench_document(measured))
    elif options.output is None:
        shared.console().print(bench_tables(measured))


def compare(context: typer.Context, options: CompareOptions) -> None:
    """Measure and judge: a gate.

    Exit code 4 if a counted figure changed or a case is surely slower: the whole interval of its
    ratio is beyond the baseline's by more than the tolerance, in each of five measurements: what
    looks slower is measured again up to four times, and each measurement is in a new process.
    Ratios are judged where the baseline has this machine; counted figures everywhere. Figures are
    listed by relative change, the largest first.

    Example: alexsim check bench compare --net mine.py:net --baseline mine.json --junit gates.xml
    """
    from alexsim.bench.runner import compare as judge
    from alexsim.bench.store import default_path, load
    from alexsim.bench.verdicts import COUNTED
    from alexsim.documents.bench import bench_document
    from alexsim.report.bench import verdict_tables
    from alexsim.report.bench_files import junit, markdown

    options.check()
    tolerance = options.tolerance / 100
    selection = options.selection(context)
    stored = load(options.baseline or default_path(options.net))
    with measuring(selection) as progress:
        measured, verdicts = judge(selection, stored, tolerance=tolerance, progress=progress)
    if options.json:
        print_json(bench_document(measured, verdicts))
    elif options.markdown != _STDOUT:
        shared.console().print(verdict_tables(measured, verdicts, tolerance=tolerance))
    if options.markdown is not None:
        table = markdown(measured, verdicts, tolerance=tolerance)
        if options.markdown == _STDOUT:
            print(table, end="")
        else:
            write_text(options.markdown, table, "the table, in Markdown")
    if options.junit is not None:
        write_text(options.junit, junit(measured, verdicts), "a test case for each figure")
    failing = [
        verdict.name
        for verdict in verdicts
        if verdict.fails
        and options.fail_on in ("any", "counted" if verdict.status in COUNTED else "timed")
    ]
    if failing:
        more = f" and {len(failing) - 3} more; --json or --junit has all" * (len(failing) > 3)
        raise GateError(f"the gate failed: {', '.join(failing[:3])}{more}")


def update(context: typer.Context, options: UpdateOptions) -> None:
    """Measure, and make that the baseline.

    Counted figures come first, then every case --runs times: minutes, for AlexNet a quarter of an
    hour. Other machines' ratios in the baseline stay.

    Example: alexsim check bench update --net mine.py:net --baseline mine.json
    """
    from alexsim.bench.runner import like, repeated
    from alexsim.bench.store import default_path, document, load, updated
    from alexsim.report.bench import left_out

    selection = options.selection(context)
    path = options.baseline or default_path(options.net)
    check_format("--baseline", path, ".json")
    before = load(path) if path.exists() else None
    selection = like(selection, before)
    with measuring(selection, options.runs) as progress:
        measured = repeated(selection, options.runs, progress)
    baseline = updated(before, measured)
    write_text(path, json_text(document(baseline)))
    if options.json:
        from alexsim.documents.bench import baseline_document

        print_json(baseline_document(baseline))
        return
    shared.console().print(
        f"{path}: {len(baseline.counted)} counted figures, ratios of {len(baseline.machines)}"
        f" machine(s){left_out(measured[0])}",
        soft_wrap=True,
    )
