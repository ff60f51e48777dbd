"""Other FLOP counters on the same network, and why each of them has another figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata, util

from alexsim.counters.isolation import alone
from alexsim.counters.operators import Operator, operators
from alexsim.counters.readings import Counter, Reading
from alexsim.counters.reconcile import Account, forward_account, training_account
from alexsim.counters.tools import COUNTERS
from alexsim.ledger.tables import FlopTable, without_formula
from alexsim.network.network import Network
from alexsim.plan.plan import OpKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterResult:
    """One counter's figures of one image, beside ours."""

    name: str
    version: str
    unit: str
    forward: int
    forward_ratio: float
    forward_account: Account
    training: int | None
    training_ratio: float | None
    training_account: Account | None
    uncounted: tuple[str, ...]
    """Operators that it has no formula for, by pass."""
    uncounted_layers: tuple[str, ...]
    """The same by layer: passes of the plan, and the layer's type."""
    counts_backward: bool
    """Whether it has a formula for any operator of the backward pass."""
    reported: tuple[str, ...]
    """Operators that the counter itself reports as uncounted."""

    @property
    def unexplained_flop(self) -> int:
        """FLOP that no term explains, forward and training together."""
        training = self.training_account
        return self.forward_account.unexplained_flop + (
            training.unexplained_flop if training else 0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A counter that could not count this network."""

    name: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every installed counter on one network."""

    table: FlopTable
    counters: tuple[CounterResult, ...]
    failed: tuple[Failed, ...]
    not_installed: tuple[str, ...]
    """Packages, as pip names them."""
    operators: int
    """Calls of operators in one forward and backward pass."""
    without_formula: tuple[str, ...]
    """Operators and passes of our plan that have no formula."""

    @property
    def complaints(self) -> tuple[str, ...]:
        """Reasons for which a strict comparison fails."""
        unexplained = (
            f"{counter.name}: {counter.unexplained_flop:,} unexplained"
            for counter in self.counters
            if counter.unexplained_flop
        )
        return (*unexplained, *(f"no formula for {what}" for what in self.without_formula))


def compare(
    table: FlopTable,
    counters: Sequence[Counter] = COUNTERS,
    progress: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Run every installed counter on the network of ``table``; ``progress`` gets how many ran."""
    network = table.network
    with alone():
        ran = operators(network)
    results: list[CounterResult] = []
    failed: list[Failed] = []
    missing: list[str] = []
    for index, counter in enumerate(counters):
        progress(index)
        if util.find_spec(counter.module) is None:
            missing.append(counter.package)
            continue
        version = _version(counter.package)
        try:
            # A counter may raise anything, and its failure must not stop the others.
            with alone():
                reading = counter.read(network)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            failed.append(Failed(name=counter.name, version=version, reason=reason))
            continue
        results.append(_result(counter.name, version, table, ran, reading))
    progress(len(counters))
    return Comparison(
        table=table,
        counters=tuple(results),
        failed=tuple(failed),
        not_installed=tuple(dict.fromkeys(missing)),
        operators=len(ran),
        without_formula=_without_formula(network, ran),
    )


def _result(
    name: str, version: str, table: FlopTable, ran: Sequence[Operator], reading: Reading
) -> CounterResult:
    forward = forward_account(table, ran, reading)
    training = training_account(table, ran, reading)
    counted = forward.counted | (training.counted if training else frozenset())
    kinds = {la.name: type(la).__name__ for la in table.network.layers}
    ratio = None if reading.training is None else reading.training / table.training_flop
    return CounterResult(
        name=name,
        version=version,
        unit=reading.unit,
        forward=reading.forward,
        forward_ratio=reading.forward / table.flop,
        forward_account=forward,
        training=reading.training,
        training_ratio=ratio,
        training_account=training,
        uncounted=_uncounted(ran, counted, lambda op: op.name),
        uncounted_layers=_uncounted(ran, counted, lambda op: kinds[op.layer]),
        counts_backward=any(ran[index].backward for index in counted),
        reported=reading.reported,
    )


def _uncounted(
    ran: Sequence[Operator], positions: frozenset[int], name: Callable[[Operator], str]
) -> tuple[str, ...]:
    """Uncounted operators by pass and name; ``in part`` where some of their calls are counted."""
    sums: dict[str, list[bool]] = {}
    for index, op in enumerate(ran):
        key = f"{'backward' if op.backward else 'forward'} {name(op)}"
        sums.setdefault(key, []).append(index in positions)
    return tuple(
        key + (" in part" if any(counted) else "")
        for key, counted in sums.items()
        if not all(counted)
    )


def _without_formula(network: Network, ran: Sequence[Operator]) -> tuple[str, ...]:
    """Passes of layers that our count leaves out, and operators that belong to no counted pass."""
    missing = without_formula(network)
    lacking = {(layer, kind != OpKind.FORWARD) for layer, kind in missing if kind != OpKind.UPDATE}
    kinds = {la.name: type(la).__name__ for la in network.layers}
    passes = (f"{kind} of {kinds[layer]} {layer}" for layer, kind in missing)
    astray = (
        f"{'backward' if op.backward else 'forward'} {op.name} in {op.layer or 'no layer'}"
        for op in ran
        if op.layer not in kinds or (op.layer, op.backward) in lacking
    )
    return tuple(dict.fromkeys((*passes, *astray)))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"
