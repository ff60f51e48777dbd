"""All that a card is asked, in one command: options, what is missing, the run, what comes of it."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from alexsim_kernels import tables
from alexsim_kernels.bench.card import packages, tuned
from alexsim_kernels.bench.card.parts import PARTS, Part, chosen, distribution
from alexsim_kernels.bench.card.results import CARD, TABLE, TUNED, Results, earlier
from alexsim_kernels.bench.card.runner import NoCardError, Outcome, Runner, StoppedError
from alexsim_kernels.bench.card.table import WIDTH, all_rows, failures, summary
from alexsim_kernels.bench.needs import refuse

PROBE = Part(
    letter="", name="card", module="alexsim_kernels.bench.card.probe", needs=("torch",),
    beside=True,
)  # fmt: skip
_MINUTES = 8.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(f"{message}; see --help")


def _options(arguments: Sequence[str] | None, parts: Sequence[Part]) -> argparse.Namespace:
    listed = ", ".join(f"{part.name} ({part.letter})" for part in parts if not part.beside)
    only = f"of {listed}; ceilings come with any, as all read them"
    parser = _Parser(
        prog="python -m alexsim_kernels.bench.card",
        description="Checks and times on a CUDA card all that is not known of it yet.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results; new")
    add("--minutes", type=float, default=_MINUTES, help="for all of it; %(default)g")
    add("--only", nargs="+", default=[], action="extend", metavar="PART", help=only)
    add(
        "--packages", type=Path, metavar="DIR",
        help="packages and wheels that are not installed; default: packages/ in the checkout",
    )  # fmt: skip
    add("--rehearse", action="store_true", help="on a CPU: all parts, interpreted, tiny shapes")
    options = parser.parse_args(arguments)
    if not (math.isfinite(options.minutes) and options.minutes > 0):
        refuse(f"--minutes must be a positive number, got {options.minutes:g}")
    if options.packages and not options.packages.is_dir():
        refuse(f"--packages {options.packages}: there is no such folder")
    if options.out.exists() and not options.out.is_dir():
        refuse(f"--out {options.out} is a file; it must be a folder, or new")
    if kept := earlier(options.out):
        refuse(f"--out {options.out} holds results ({', '.join(kept)}); name another folder")
    return options


class _Terminal:
    """Stdout, which may be closed or full: the run goes on without it."""

    def __init__(self) -> None:
        self._open = True
        self._width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)

    def line(self, text: str, *, whole: bool = False) -> None:
        text = " ".join(text.splitlines())
        self.write((text if whole else text[: self._width].rstrip()) + "\n")

    def write(self, text: str) -> None:
        if not self._open:
            return
        encoding = sys.stdout.encoding or "utf-8"
        try:
            sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
            sys.stdout.flush()
        except OSError:
            self._open = False
            # So that the interpreter's own last flush has nowhere to fail.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)


def main(
    arguments: Sequence[str] | None = None, *, parts: Sequence[Part] = PARTS, probe: Part = PROBE
) -> int:
    """Run the command; the exit code: 0, 1 if something failed, 128 and a signal's number.

    Args:
        arguments: the command line's, if they are not given.
        parts: the table of parts.
        probe: yields a row with the card's name, if there is one.
    """
    options = _options(arguments, parts)
    try:
        asked = chosen(options.only, parts)
    except ValueError as error:
        refuse(f"--only: {error}")
    try:
        with tempfile.TemporaryDirectory(prefix="alexsim-card-") as folder:
            return _Session(options, asked, probe, Path(folder)).run()
    except KeyboardInterrupt:  # before anything was measured
        return 128 + signal.SIGINT


class _Session:
    """A run of the command."""

    def __init__(
        self, options: argparse.Namespace, asked: Sequence[Part], probe: Part, temporary: Path
    ) -> None:
        self.options, self.asked = options, asked
        beside = options.packages
        if beside is None and (root := packages.checkout()) and (root / "packages").is_dir():
            beside = root / "packages"
        self.paths, useless = packages.search_path(beside, temporary)
        lacks = {part: tuple(packages.missing(part, self.paths)) for part in asked}
        self.left_out = [
            Outcome(part=part, failed=f"left out: {', '.join(names)} missing")
            for part, names in lacks.items()
            if names
        ]
        running = [part for part in asked if not lacks[part]]
        self.terminal = _Terminal()
        said = [*useless, *_missing(lacks)]
        if not options.rehearse and (names := tuple(packages.missing(probe, self.paths))):
            refuse(f"{', '.join(names)} missing: {packages.how_to_get(names)}")
        if all(part.beside for part in running):
            refuse("; ".join(said))
        self.results = Results(options.out)
        self.versions = self._versions()
        self.commit = _commit()
        self.began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._announce(running, said)
        self.runner = Runner(
            running,
            minutes=options.minutes,
            probe=None if options.rehearse else probe,
            environment=self._environment(),
            results=self.results,
            say=lambda text: self.terminal.line(text, whole=bool(self.results.not_written)),
            changed=self._keep_card,
        )

    def _announce(self, running: Sequence[Part], said: Sequence[str]) -> None:
        parts = [part for part in running if not part.beside]
        second_s = 60 * self.options.minutes / sum(part.share for part in parts)
        names = ", ".join(f"{part.title} {part.share * second_s:.0f} s" for part in parts)
        beside = ", ".join(part.name for part in running if part.beside)
        how = "rehearsal, at most" if self.options.rehearse else "at most"
        self.terminal.line(f"{how} {self.options.minutes:g} minutes: {names}", whole=True)
        if beside:
            self.terminal.line(f"beside them: {beside}")
        self.terminal.line(f"results: {self.options.out}", whole=True)
        for line in (*said, *self._not_written()):
            self.terminal.line(line, whole=True)

    def _environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        paths = [*self.paths, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        # PyTorch's compiler would move Triton's cache, away from what is compiled ahead.
        environment.setdefault("TRITON_CACHE_DIR", str(Path.home() / ".triton" / "cache"))
        if self.options.rehearse:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return environment

    def run(self) -> int:
        """Run, keep, print."""
        try:
            self.runner.run()
        except StoppedError:
            pass
        except NoCardError as error:
            why = f" ({error})" if str(error) else ""
            self.results.discard()
            refuse(f"there is no CUDA card here{why}; --rehearse does all of it on a CPU")
        failed = self._conclude()
        if self.runner.signal:
            return 128 + self.runner.signal
        return 1 if failed else 0

    def _outcomes(self) -> list[Outcome]:
        """In the table's order."""
        order = [part.name for part in self.asked]
        known = [*self.left_out, *self.runner.outcomes]
        return sorted(known, key=lambda outcome: order.index(outcome.part.name))

    def _conclude(self) -> bool:
        entries, outcomes = self.runner.entries, self._outcomes()
        failed = failures(outcomes, entries)
        self._keep_card()
        tuned_lines = self._keep_tuned()
        self.results.close()
        head = [", ".join(f"{name} {text}" for name, text in self._about().items() if text)]

        def text() -> str:
            written = (*self.results.written(), TABLE)
            tail = [*tuned_lines, *self._not_written()]
            tail.append(f"in {self.options.out}: {', '.join(dict.fromkeys(written))}")
            return summary(outcomes, entries, head, tail)

        self.results.write(TABLE, f"{text()}\n{all_rows(entries, outcomes)}")
        if CARD in self.results.not_written:
            self.terminal.write(all_rows(entries, outcomes))
        self.terminal.write("\n" + text())
        return bool(failed)

    def _about(self) -> dict[str, str]:
        card = tuned.card_of(self.runner.entries).rpartition(", triton ")[0]
        versions = {name: self.versions.get(name, "") for name in ("python", "torch", "triton")}
        return {"card": card, **versions, "commit": self.commit}

    def _keep_card(self) -> None:
        entries, outcomes = self.runner.entries, self._outcomes()
        self.results.card(
            {
                "card": tuned.card_of(entries),
                "date": self.began,
                "commit": self.commit,
                "minutes": self.options.minutes,
                "rehearse": self.options.rehearse,
                "platform": platform.platform(),
                "processors": os.cpu_count(),
                "versions": self.versions,
                "failed": failures(outcomes, entries),
                "parts": [outcome.document() for outcome in outcomes],
            }
        )

    def _keep_tuned(self) -> list[str]:
        table, card = tuned.table_of(self.runner.entries), tuned.card_of(self.runner.entries)
        if not table:
            return []
        counts = " and ".join(
            f"{len(table[kind])} {kind}" for kind in ("tiles", "ops") if kind in table
        )
        if not card:
            return [f"{TUNED}: not written, as no row says what the card is called"]
        self.results.write(TUNED, json.dumps({card: table}, indent=1, allow_nan=False) + "\n")
        if self.options.rehearse:
            return [f"{TUNED}: {counts} for {card!r}; a rehearsal's, kept nowhere else"]
        try:
            tables.keep(card, table)
        except OSError as error:
            return [f"{TUNED}: {counts} for {card!r}; not kept in {error.filename}: {error}"]
        return [f"{TUNED}: {counts} for {card!r}, kept in {tables.cache_file()} for later runs"]

    def _not_written(self) -> list[str]:
        return [f"not written: {name}: {why}" for name, why in self.results.not_written.items()]

    def _versions(self) -> dict[str, str]:
        """Of what parts need, as installed or beside."""
        versions = {"python": platform.python_version()}
        everywhere = [*self.paths, *sys.path]
        for part in self.asked:
            for name in map(distribution, packages.needs(part, everywhere)):
                for installed in metadata.distributions(name=name, path=everywhere):
                    versions.setdefault(name, installed.version)
        return versions


def _missing(lacks: dict[Part, tuple[str, ...]]) -> list[str]:
    """A line on what is missing for which parts, and what brings it."""
    names = tuple(dict.fromkeys(name for missing in lacks.values() for name in missing))
    if not names:
        return []
    parts = ", ".join(part.name for part, missing in lacks.items() if missing)
    return [f"missing: {', '.join(names)}, so without {parts}: {packages.how_to_get(names)}"]


def _commit() -> str:
    """Of the checkout, with a mark if files differ from it."""
    root = packages.checkout()
    if root is None or not shutil.which("git"):
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
