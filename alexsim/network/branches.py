"""What stands in a row in a graph, what lies side by side between two layers, and what repeats.

Drawings show the layers that have multiply-adds, pool, or join branches; the others hang on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from alexsim.network.layers import AdaptiveAveragePool, Pool, SoftmaxCrossEntropy
from alexsim.network.network import Network
from alexsim.network.part import INPUT, Part


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches between two layers; an empty branch passes on what it reads."""

    branches: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Tangle:
    """Layers between two others that are no branches: they read one another across."""

    layers: tuple[str, ...]


Row = tuple[str | Fork | Tangle, ...]
"""Names of layers, and what lies between them."""
Reads = Mapping[str, tuple[str, ...]]
"""Of each layer that is shown, those that it reads, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layers in a row that share the beginning of their names, or a single layer.

    ``heads`` are rows that end in a cost and begin here.
    """

    prefix: str
    row: Row
    heads: tuple[Row, ...] = ()


def shown(part: Part) -> bool:
    """Whether drawings of graphs have this layer."""
    layer = part.layer
    return bool(
        part.weight_count
        or layer.several
        or isinstance(layer, Pool | AdaptiveAveragePool | SoftmaxCrossEntropy)
    )


def shown_reads(network: Network) -> dict[str, tuple[str, ...]]:
    """Each shown layer with the shown layers that it reads, past those that are not shown."""
    sources: dict[str, tuple[str, ...]] = {INPUT: (INPUT,)}
    reads = {}
    for index, parts in enumerate(network.parts):
        name = parts[0].layer.name
        above = dict.fromkeys(layer for read in network.inputs_of(index) for layer in sources[read])
        sources[name] = tuple(above)
        if shown(parts[0]):
            reads[name], sources[name] = tuple(above), (name,)
    return reads


def blocks(network: Network) -> tuple[Block, ...]:
    """The blocks of a network from its images to its answer."""
    reads, answering = shown_reads(network), network.answering
    row = _row([name for name in reads if name in answering], reads, INPUT, "")
    heads: dict[str, list[Row]] = {}
    side = [name for name in reads if name not in answering]
    for group in _components(side, reads):
        source = next(read for name in group for read in reads[name] if read not in group)
        heads.setdefault(source, []).append(_row(group, reads, source, ""))
    return tuple(
        Block(
            prefix=prefix,
            row=members,
            heads=tuple(head for name in layers_of(members) for head in heads.get(name, ())),
        )
        for prefix, members in _by_prefix(row)
    )


def layers_of(row: Row) -> Iterator[str]:
    """Names of all layers of a row."""
    for item in row:
        if isinstance(item, str):
            yield item
        elif isinstance(item, Tangle):
            yield from item.layers
        else:
            for branch in item.branches:
                yield from layers_of(branch)


def prefix_of(row: Row) -> str:
    """The words that all names of a row begin with."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*layers_of(row), strict=False))
    common = "".join(letters[0] for letters in same)
    return common[: max(common.rfind("_"), common.rfind(".")) + 1]


def _row(names: Sequence[str], reads: Reads, before: str, after: str) -> Row:
    """What stands between two layers, in order.

    A layer stands in the row if nothing reads past it what stands before it.
    """
    ends = [*names, after]
    places = {name: place for place, name in enumerate(ends)}
    reach = dict.fromkeys((before, *names), 0)
    for reader, place in places.items():
        for name in reads.get(reader, ()):
            if name in reach:
                reach[name] = place
    row: list[str | Fork | Tangle] = []
    farthest, start, last = reach[before], 0, before
    for place, name in enumerate(ends):
        if farthest <= place:
            between = names[start:place]
            if between:
                row.append(_between(between, reads, last, name))
            if place < len(names):
                row.append(name)
            start, last = place + 1, name
        farthest = max(farthest, reach.get(name, 0))
    return tuple(row)


def _between(names: Sequence[str], reads: Reads, before: str, after: str) -> Fork | Tangle:
    groups = _components(names, reads)
    passed_on = before in reads.get(after, ())
    if len(groups) == 1 and not passed_on:
        return Tangle(tuple(names))
    rows = []
    for group in groups:
        branch_reads = {name: reads[name] for name in group}
        branch_reads[after] = tuple(name for name in reads.get(after, ()) if name in branch_reads)
        rows.append(_row(group, branch_reads, before, after))
    return Fork((*rows, ()) if passed_on else tuple(rows))


def _components(names: Sequence[str], reads: Reads) -> list[list[str]]:
    """Layers that are connected with one another, in order."""
    groups: list[set[str]] = []
    for name in names:
        joined = {name}.union(*(group for group in groups if group.intersection(reads[name])))
        groups = [group for group in groups if not group <= joined] + [joined]
    members = [[name for name in names if name in group] for group in groups]
    return sorted(members, key=lambda group: names.index(group[0]))


def _by_prefix(row: Row) -> Iterator[tuple[str, Row]]:
    """Branches with the layer that joins them, and those around them that are named alike."""
    units: list[tuple[str, Row]] = []
    items = iter(row)
    for item in items:
        unit: Row = (item,) if isinstance(item, str) else (item, next(items))
        units.append(("" if isinstance(item, str) else prefix_of(unit), unit))
    named = {prefix for prefix, _ in units if prefix}
    open_prefix = ""
    members: Row = ()
    for prefix, unit in units:
        if not prefix:
            first = next(layers_of(unit))
            prefix = next((candidate for candidate in named if first.startswith(candidate)), "")
        if members and (prefix != open_prefix or not prefix):
            yield open_prefix, members
            members = ()
        open_prefix, members = prefix, (*members, *unit)
    if members:
        yield open_prefix, members
