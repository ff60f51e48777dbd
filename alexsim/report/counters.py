"""Other counters' figures beside ours, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.layers.kinds import kind_words
from alexsim.network.network import Network
from alexsim.report.tables import plain_table

if TYPE_CHECKING:
    from alexsim.counters.comparison import Comparison, CounterResult
    from alexsim.counters.reconcile import Account, Term

_WIDTH = 80


def counters_tables(comparison: Comparison) -> RenderableType:
    """A line per counter, then why each differs and what it leaves out."""
    table = comparison.table
    out = plain_table(
        f"{table.network.name}: GFLOP per image, as other counters have it",
        "counter", "unit", "forward", "/ ours", "training", "/ ours",
    )  # fmt: skip
    for counter in comparison.counters:
        out.add_row(
            counter.name,
            counter.unit,
            f"{counter.forward / 1e9:.5f}",
            f"{counter.forward_ratio:.4f}",
            "" if counter.training is None else f"{counter.training / 1e9:.5f}",
            "" if counter.training_ratio is None else f"{counter.training_ratio:.4f}",
        )
    out.add_section()
    ours = (f"{table.flop / 1e9:.5f}", "1.0000", f"{table.training_flop / 1e9:.5f}", "1.0000")
    out.add_row("alexsim", "FLOP", *ours)
    lines = ["Training is forward and backward. Every difference, in FLOP and % of ours:"]
    for counter in comparison.counters:
        lines += ["", *_block(counter, comparison)]
    return Group(out, Text("\n".join([*lines, "", *_endings(comparison)]), no_wrap=True))


def _block(counter: CounterResult, comparison: Comparison) -> Iterator[str]:
    network, table = comparison.table.network, comparison.table
    yield f"{counter.name} {counter.version} ({counter.unit})"
    yield from _account("forward", counter.forward, table.flop, counter.forward_account, network)
    if counter.training is not None and counter.training_account is not None:
        yield from _account(
            "training", counter.training, table.training_flop, counter.training_account, network
        )
    layers = [_plain(text) for text in counter.uncounted_layers]
    yield from _uncounted("not counted, of the plan", layers, counter.counts_backward)
    yield from _uncounted(
        "not counted, operators", list(counter.uncounted), counter.counts_backward
    )
    if counter.reported:
        yield from _wrapped(f"  it reports itself: {', '.join(counter.reported)}")


def _account(
    name: str, figure: int, ours: int, account: Account, network: Network
) -> Iterator[str]:
    difference = figure - ours
    yield _line(2, f"{name} {figure:,}" + ("" if difference else ": as ours"), difference, ours)
    for term in sorted(account.terms, key=lambda term: -abs(term.flop)):
        yield from _term(term, ours, network)
    for term in account.unexplained:
        yield from _term(term, ours, network, "unexplained: ")


def _term(term: Term, ours: int, network: Network, head: str = "") -> Iterator[str]:
    layers = _layers(term.layers, network)
    text = head + term.term + (f": {layers}" if layers else "")
    first, *more = textwrap.wrap(text, 48, break_long_words=False) or [""]
    yield _line(4, first, term.flop, ours)
    yield from (f"      {line}" for line in more)


def _line(indent: int, text: str, flop: int, ours: int) -> str:
    start = " " * indent + text
    if not flop:
        return start
    return f"{start:<54} {flop:>+15,} {100 * flop / ours:>+7.2f}%"


def _layers(names: tuple[str, ...], network: Network) -> str:
    """Layers by name; all of a kind by the kind's name."""
    kinds = {layer.name: type(layer).__name__ for layer in network.layers}
    texts: list[str] = []
    for kind in dict.fromkeys(kinds[name] for name in names):
        of_kind = [name for name in names if kinds[name] == kind]
        every = list(kinds.values()).count(kind)
        whole = len(of_kind) == every > 1
        texts += [f"all {kind_words(kind).plural}"] if whole else of_kind
    return ", ".join(texts)


def _plain(text: str) -> str:
    """``forward MaxPool in part`` with the type in words."""
    name, kind, *rest = text.split(" ", 2)
    return " ".join((name, kind_words(kind).singular, *rest))


def _uncounted(head: str, texts: list[str], counts_backward: bool) -> Iterator[str]:
    """Both passes in one paragraph: the pass once, then the names."""
    passes = []
    for name in ("forward", "backward"):
        names = [text.removeprefix(f"{name} ") for text in texts if text.startswith(f"{name} ")]
        if name == "backward" and not counts_backward:
            names = ["all"]
        if names:
            passes.append(f"{name} {', '.join(names)}")
    yield from _wrapped(f"  {head}: {'; '.join(passes) or 'nothing'}")


def _endings(comparison: Comparison) -> Iterator[str]:
    for failure in comparison.failed:
        yield textwrap.shorten(
            f"{failure.name} {failure.version}: failed: {failure.reason}",
            _WIDTH,
            placeholder=" ...",
        )
    if comparison.not_installed:
        yield from _wrapped(f"not installed: pip install {' '.join(comparison.not_installed)}")
    if comparison.without_formula:
        yield from _wrapped(f"alexsim has no formula for: {', '.join(comparison.without_formula)}")
    else:
        yield (
            "alexsim has a formula for every layer and pass, and so for all"
            f" {comparison.operators} operators."
        )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False)
