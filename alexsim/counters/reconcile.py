"""A counter's breakdown against ours: each entry is taken apart into terms that add up exactly.

A layer's figure is known twice: from the plan, and from the operators that PyTorch ran. An entry
is explained only where one of a few rules meets it to the last FLOP; what no rule meets is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from alexsim.counters.operators import Operator
from alexsim.counters.readings import Item, Reading
from alexsim.counters.rules import (
    KINDS,
    Kind,
    Weighted,
    choices_of,
    counts_macs,
    first_match,
    flop_of,
)
from alexsim.interchange.layout import plain_groups
from alexsim.ledger.tables import FlopTable
from alexsim.network.layers import Convolution, Dropout, FullyConnected, SoftmaxCrossEntropy

_FORWARD = {"convolution", "_convolution", "conv", "conv2d", "addmm", "linear"}
_BACKWARD = {"convolution_backward", "mm"}
_OF_CONVOLUTIONS = {"convolution", "_convolution", "conv", "conv2d", "convolution_backward"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One reason why a counter's figure differs from ours, and by how much."""

    term: str
    flop: int
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A counter's figure less ours: ``terms`` and ``unexplained`` add up to it."""

    terms: tuple[Term, ...]
    unexplained: tuple[Term, ...]
    counted: frozenset[int]
    """Positions of the operators that have a formula in this counter."""

    @property
    def unexplained_flop(self) -> int:
        """Sum of the unexplained parts, each taken as positive."""
        return sum(abs(term.flop) for term in self.unexplained)


def forward_account(table: FlopTable, ran: Sequence[Operator], reading: Reading) -> Account:
    """Explain a counter's forward figure."""
    books = _Books(table, ran, training=False)
    return books.account(reading.forward_items, reading.forward - table.flop)


def training_account(table: FlopTable, ran: Sequence[Operator], reading: Reading) -> Account | None:
    """Explain a counter's forward and backward figure, if it has one."""
    if reading.training is None:
        return None
    difference = reading.training - table.training_flop
    if reading.backward_factor is None:
        return _Books(table, ran, training=True).account(reading.training_items, difference)
    return _by_rule(table, forward_account(table, ran, reading), reading, difference)


def _by_rule(table: FlopTable, forward: Account, reading: Reading, difference: int) -> Account:
    factor = reading.backward_factor or 0
    wrong = {
        layer.name: factor * layer.flop - layer.grad_input_flop - layer.grad_weight_flop
        for layer in table.layers
    }
    layers = tuple(name for name, flop in wrong.items() if flop)
    text = f"backward taken as {factor} x forward"
    if layers == tuple(la.name for la in table.layers if la.flop and not la.grad_input_flop):
        text += ", so with an input gradient"
    scaled = [replace(term, flop=(1 + factor) * term.flop) for term in forward.terms]
    left = [replace(term, flop=(1 + factor) * term.flop) for term in forward.unexplained]
    rule = Term(term=text, flop=sum(wrong.values()), layers=layers)
    over = difference - sum(term.flop for term in (*scaled, *left, rule))
    if over:
        left.append(Term(term="outside its own breakdown", flop=over, layers=()))
    return Account(
        terms=(*scaled, rule) if layers else tuple(scaled),
        unexplained=tuple(left),
        counted=forward.counted,
    )


@dataclass(slots=True)
class _Books:
    table: FlopTable
    ran: Sequence[Operator]
    training: bool
    terms: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    left: list[Term] = field(default_factory=list)
    seen: set[tuple[str, Kind]] = field(default_factory=set)
    counted: set[int] = field(default_factory=set)
    mac_first: bool = False

    def account(self, items: Iterable[Item], difference: int) -> Account:
        merged = _merged(items)
        entries = [(item, self._weighted(item)) for item in merged]
        self.mac_first = counts_macs([(item, layers) for item, layers in entries if layers])
        for item, layers in entries:
            if layers:
                self._explain_weighted(item, layers)
            else:
                self._explain_elementwise(item)
        if merged:
            self._left_out()
        terms = tuple(
            Term(term=text, flop=flop, layers=names)
            for text, (flop, names) in self.terms.items()
            if flop
        )
        over = difference - sum(term.flop for term in (*terms, *self.left))
        if over:
            self.left.append(Term(term="outside its own breakdown", flop=over, layers=()))
        return Account(terms=terms, unexplained=tuple(self.left), counted=frozenset(self.counted))

    def _weighted(self, item: Item) -> Weighted | None:
        kinds = _kinds(item)
        if not kinds:
            return None
        types = _types(item.op)
        parts = [
            (layer, ps)
            for layer, ps in zip(self.table.layers, self.table.network.parts, strict=True)
            if item.layer in ("", layer.name) and isinstance(ps[0].layer, types)
        ]
        if not parts:
            return None
        groups = plain_groups(parts[0][1]) if len(parts) == 1 else 1
        return Weighted(tuple(layer for layer, _ in parts), kinds, groups)

    def _explain_weighted(self, item: Item, weighted: Weighted) -> None:
        names = tuple(layer.name for layer in weighted.layers)
        if not item.value:
            return
        self.seen |= {(name, kind) for name in names for kind in weighted.kinds}
        backward = "forward" not in weighted.kinds
        known = _BACKWARD if backward else _FORWARD
        self.counted |= {
            index
            for index, op in enumerate(self.ran)
            if op.layer in names and op.backward == backward and op.name in known
        }
        terms = first_match(item.value, weighted, mac_first=self.mac_first)
        if terms is None:
            self._over(item, item.value - weighted.flop, names)
            return
        for text, flop in terms:
            self._add(text, flop, names)

    def _explain_elementwise(self, item: Item) -> None:
        if not item.value:
            return
        ops = {
            index: op
            for index, op in enumerate(self.ran)
            if item.layer in ("", op.layer) and (self.training or self._in_forward(op))
        }
        named = {index: op for index, op in ops.items() if op.name == item.op}
        suffix = ", once more" if item.again else ""
        whole = self._whole(item, named)
        if whole is not None:
            text, calls = whole
            self.counted |= calls
            layers = tuple(dict.fromkeys(self.ran[index].layer for index in calls))
            self._add(text + suffix, item.value, layers)
            return
        choices = choices_of(item.value, named or ops) if item.layer else []
        if not choices:
            self.counted |= set(named or ops) if item.layer else set(named)
            self._over(item, item.value, (item.layer,) if item.layer else ())
            return
        # Several sets of operators may meet the figure; only what all have is certain.
        certain = {frozenset((ops[i].name, how) for i, how, _ in choice) for choice in choices}
        self.counted |= set.intersection(*({i for i, _, _ in choice} for choice in choices))
        if len(certain) == 1:
            for index, how, flop in choices[0]:
                self._add(f"{ops[index].name}, {how}{suffix}", flop, (item.layer,))
        else:
            text = f"{len(choices[0])} of {len(ops)} operators{suffix}"
            self._add(text, item.value, (item.layer,))

    def _in_forward(self, op: Operator) -> bool:
        # Counters run the forward pass as at test: no dropout, and the softmax left out.
        layer = next(la for la in self.table.network.layers if la.name == op.layer)
        return not op.backward and not isinstance(layer, Dropout | SoftmaxCrossEntropy)

    def _whole(self, item: Item, named: dict[int, Operator]) -> tuple[str, set[int]] | None:
        """All calls of an operator that add up to the entry, in both passes or in one."""
        for passes in ((False, True), (False,), (True,)):
            calls = {i for i, op in named.items() if op.backward in passes}
            for how, value in (
                ("one per value", sum(named[i].outputs for i in calls)),
                ("one per value read", sum(named[i].inputs for i in calls)),
            ):
                if calls and value == item.value:
                    return f"{item.op}, {how}", calls
        return None

    def _left_out(self) -> None:
        for kind in KINDS if self.training else KINDS[:1]:
            for layer in self.table.layers:
                flop = flop_of(layer, kind)
                if flop and (layer.name, kind) not in self.seen:
                    self._add(f"{kind} not counted", -flop, (layer.name,))

    def _add(self, text: str, flop: int, layers: tuple[str, ...]) -> None:
        total, names = self.terms.get(text, (0, ()))
        self.terms[text] = (total + flop, tuple(dict.fromkeys((*names, *layers))))

    def _over(self, item: Item, flop: int, layers: tuple[str, ...]) -> None:
        what = " ".join(part for part in (item.op, item.share.replace("_", " ")) if part)
        self.left.append(Term(term=what or "the layer", flop=flop, layers=layers))


def _merged(items: Iterable[Item]) -> list[Item]:
    """Entries that differ in their value only, added up."""
    sums: dict[Item, int] = {}
    for item in items:
        key = replace(item, value=0)
        sums[key] = sums.get(key, 0) + item.value
    return [replace(key, value=value) for key, value in sums.items()]


def _kinds(item: Item) -> tuple[Kind, ...]:
    match item.share:
        case "grad_input":
            return ("input gradient",)
        case "grad_weight":
            return ("weight gradient",)
    if item.op in _BACKWARD:
        return ("input gradient", "weight gradient")
    if item.op in _FORWARD or (item.layer and not item.op):
        return ("forward",)
    return ()


def _types(op: str) -> tuple[type, ...]:
    if not op:
        return (Convolution, FullyConnected)
    return (Convolution,) if op in _OF_CONVOLUTIONS else (FullyConnected,)
