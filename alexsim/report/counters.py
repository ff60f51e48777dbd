"""Other counters' figures beside ours, as text and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.network import Network
from alexsim.report.tables import plain_table

if TYPE_CHECKING:
    from alexsim.counters.comparison import Comparison, CounterResult
    from alexsim.counters.reconcile import Account, Term

_WIDTH = 80
_NAMES = {
    "Convolution": ("convolution", "convolutions"),
    "FullyConnected": ("fc layer", "fc layers"),
    "MaxPool": ("max-pool", "max-pools"),
    "AveragePool": ("average pool", "average pools"),
    "LocalResponseNorm": ("LRN", "LRNs"),
    "SpatialResponseNorm": ("spatial norm", "spatial norms"),
    "ReLU": ("ReLU", "ReLUs"),
    "Sigmoid": ("sigmoid", "sigmoids"),
    "Tanh": ("tanh", "tanhs"),
    "Dropout": ("dropout", "dropouts"),
    "SoftmaxCrossEntropy": ("softmax", "softmaxes"),
}


def counters_tables(found: Comparison) -> RenderableType:
    """A line per counter, then why each differs and what it leaves out."""
    table = found.table
    out = plain_table(
        f"{table.network.name}: GFLOP per image, as other counters have it",
        "counter", "unit", "forward", "/ ours", "training", "/ ours",
    )  # fmt: skip
    for one in found.counters:
        out.add_row(
            one.name,
            one.unit,
            f"{one.forward / 1e9:.5f}",
            f"{one.forward_ratio:.4f}",
            "" if one.training is None else f"{one.training / 1e9:.5f}",
            "" if one.training_ratio is None else f"{one.training_ratio:.4f}",
        )
    out.add_section()
    ours = (f"{table.flop / 1e9:.5f}", "1.0000", f"{table.training_flop / 1e9:.5f}", "1.0000")
    out.add_row("alexsim", "FLOP", *ours)
    lines = ["Training is forward and backward. Every difference, in FLOP and % of ours:"]
    for one in found.counters:
        lines += ["", *_block(one, found)]
    return Group(out, Text("\n".join([*lines, "", *_endings(found)]), no_wrap=True))


def _block(one: CounterResult, found: Comparison) -> Iterator[str]:
    network, table = found.table.network, found.table
    yield f"{one.name} {one.version} ({one.unit})"
    yield from _account("forward", one.forward, table.flop, one.forward_account, network)
    if one.training is not None and one.training_account is not None:
        yield from _account(
            "training", one.training, table.training_flop, one.training_account, network
        )
    plan = [_plain(text) for text in one.uncounted_layers]
    yield from _uncounted("not counted, of the plan", plan, one.counts_backward)
    yield from _uncounted("not counted, operators", list(one.uncounted), one.counts_backward)
    if one.reported:
        yield from _wrapped(f"  it reports itself: {', '.join(one.reported)}")


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
    of = _layers(term.layers, network)
    text = head + term.term + (f": {of}" if of else "")
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
    said: list[str] = []
    for kind in dict.fromkeys(kinds[name] for name in names):
        mine = [name for name in names if kinds[name] == kind]
        every = list(kinds.values()).count(kind)
        whole = len(mine) == every > 1
        said += [f"all {_NAMES.get(kind, (kind, kind))[1]}"] if whole else mine
    return ", ".join(said)


def _plain(text: str) -> str:
    """``forward MaxPool in part`` with the type in words."""
    name, kind, *rest = text.split(" ", 2)
    return " ".join((name, _NAMES.get(kind, (kind, kind))[0], *rest))


def _uncounted(head: str, texts: list[str], counts_backward: bool) -> Iterator[str]:
    """Both passes in one paragraph: the pass once, then the names."""
    passes = []
    for name in ("forward", "backward"):
        mine = [text.removeprefix(f"{name} ") for text in texts if text.startswith(f"{name} ")]
        if name == "backward" and not counts_backward:
            mine = ["all"]
        if mine:
            passes.append(f"{name} {', '.join(mine)}")
    yield from _wrapped(f"  {head}: {'; '.join(passes) or 'nothing'}")


def _endings(found: Comparison) -> Iterator[str]:
    for failure in found.failed:
        yield textwrap.shorten(
            f"{failure.name} {failure.version}: failed: {failure.reason}",
            _WIDTH,
            placeholder=" ...",
        )
    if found.not_installed:
        yield from _wrapped(f"not installed: pip install {' '.join(found.not_installed)}")
    if found.without_formula:
        yield from _wrapped(f"alexsim has no formula for: {', '.join(found.without_formula)}")
    else:
        yield (
            "alexsim has a formula for every layer and pass, and so for all"
            f" {found.operators} operators."
        )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="    ", break_long_words=False)
