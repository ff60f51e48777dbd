"""A network as text and as SVG: columns and what crosses between them, or branches and joins."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from alexsim.network.branches import Block, Fork, Tangle, blocks, prefix_of, shown_reads
from alexsim.network.branches import Row as Members
from alexsim.network.layers import (
    AdaptiveAveragePool,
    AveragePool,
    Convolution,
    FullyConnected,
    Layer,
    MaxPool,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.network.part import Part

_BOX, _GAP = 25, 2
"""Characters of a column and between two: three columns fit an 80-column terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the diagram: a box per column that has one, and whether columns cross above."""

    labels: tuple[str | None, ...]
    crosses: bool


def rows(network: Network) -> tuple[Row, ...]:
    """Of a chain, the layers that change shape or have weights, in order."""
    drawn = []
    for parts in network.parts:
        if not (
            parts[0].weight_shape
            or isinstance(parts[0].layer, MaxPool | AveragePool)
            or parts is network.parts[-1]
        ):
            continue
        labels: list[str | None] = [None] * network.columns
        for part in parts:
            labels[part.column] = _label(part)
        crosses = any(part.columns_read - {part.column} for part in parts)
        drawn.append(Row(labels=tuple(labels), crosses=crosses))
    return tuple(drawn)


def _label(part: Part) -> str:
    return " ".join(filter(None, (part.layer.name, _operation(part), _extents(part))))


def _operation(part: Part) -> str:
    """What a layer does, as in ``3x3/2`` or ``max 2x2/2``."""
    layer = part.layer
    window = layer.window.removesuffix("/1") if part.weight_shape else layer.window
    pooled = {MaxPool: "max", AveragePool: "mean", AdaptiveAveragePool: "mean"}
    return f"{pooled[type(layer)]} {window}" if type(layer) in pooled else window


def _extents(part: Part) -> str:
    return "x".join(str(extent) for extent in part.output_shape)


def diagram(network: Network) -> str:
    """A text drawing: a line per layer, a stem per column, an arrow where columns exchange.

    Of a graph: a line per layer that all others stand before or behind, and a line per branch.
    """
    if not network.is_chain:
        return "\n".join(_graph_lines(network))
    image = "image " + "x".join(str(extent) for extent in network.input_shape)
    heads = [f"{network.name}, column {chr(97 + c)}" for c in range(network.columns)]
    if network.columns == 1:
        heads = [network.name]
    lines = [_spread(heads), _spread([image] * network.columns)]
    for row in rows(network):
        lines.append(_crossing(network.columns) if row.crosses else _stems(row))
        lines.append(_spread([label or "" for label in row.labels]))
    return "\n".join(lines)


def _spread(texts: list[str]) -> str:
    return (" " * _GAP).join(text.center(_BOX) for text in texts).rstrip()


def _stems(row: Row) -> str:
    return _spread(["|" if label else "" for label in row.labels])


def _crossing(columns: int) -> str:
    arrow = "<" + " exchange ".center(_BOX + _GAP - 3, "-") + ">"
    return " " * (_BOX // 2) + "|" + (arrow + "|") * (columns - 1)


_WIDTH = 78
"""Characters of a line of a graph's drawing."""


def _graph_lines(network: Network) -> list[str]:
    """Blocks one below the other; equal blocks in succession are drawn once."""
    columns = f", each of {network.columns} columns" if network.columns > 1 else ""
    image = "x".join(str(extent) for extent in network.input_shape)
    lines = [network.name, f"o  image {image}{columns}"]
    for group in repeats(network):
        lines += _block_lines(network, group)
    return lines


def repeats(network: Network) -> list[tuple[Block, ...]]:
    """The blocks; those that follow one another and differ in names only are put together."""
    groups: list[tuple[Block, ...]] = []
    before = ""
    for block in blocks(network):
        text = _row_text(network, block.row, block.prefix)
        if block.prefix and text == before and not (block.heads or groups[-1][0].heads):
            groups[-1] = (*groups[-1], block)
        else:
            groups.append((block,))
        before = text
    return groups


def _block_lines(network: Network, group: tuple[Block, ...]) -> list[str]:
    first, last = group[0], group[-1]
    lines = [f"|  {_title(group)}"] if first.prefix else []
    branches: list[str] = []
    for item, final in zip(first.row, last.row, strict=True):
        if not (isinstance(item, str) and isinstance(final, str)):
            assert not isinstance(item, str)
            branches = _branch_texts(network, item, first.prefix)
            continue
        line = "o  " + _short(network.parts_of(item)[0], first.prefix, extents=True)
        begin, end = (_extents(network.parts_of(name)[0]) for name in (item, final))
        line += f" to {end}" if end != begin else ""
        if branches:
            drawn, rail = _railed(branches, least=len(line) + 3)
            lines += drawn
            line = f"{line} <".ljust(rail, "-") + "+"
        lines.append(line)
        branches = []
    for head in first.heads:
        prefix = prefix_of(head)
        title = prefix.rstrip("_") or head[-1]
        lines.append(f"|  {title}, with a cost of its own")
        lines += _wrapped(_row_text(network, head, prefix))
    return lines


def _title(group: tuple[Block, ...]) -> str:
    first, last = (block.prefix.rstrip("_") for block in (group[0], group[-1]))
    if len(group) == 1:
        return first
    return f"{first} {'and' if len(group) == 2 else 'to'} {last}, {len(group)} blocks alike"


def _branch_texts(network: Network, item: Fork | Tangle, prefix: str) -> list[str]:
    if isinstance(item, Fork):
        return [_row_text(network, branch, prefix) for branch in item.branches]
    reads = shown_reads(network)
    return [
        f"{_short(network.parts_of(name)[0], prefix)} of {', '.join(reads[name])}"
        for name in item.layers
    ]


def _railed(branches: list[str], least: int) -> tuple[list[str], int]:
    """Branches one below the other, and the column of the line at their right that joins them."""
    drawn = [_wrapped(text) for text in branches]
    rail = max(least, *(len(line) + 3 for lines in drawn for line in lines))
    railed: list[str] = []
    for index, (*lines, end) in enumerate(drawn):
        railed += [line.ljust(rail) + "|" if index else line for line in lines]
        railed.append((f"{end} " if branches[index] else "+").ljust(rail, "-") + "+")
    return railed, rail


def _wrapped(text: str) -> list[str]:
    """A branch on as many lines as it takes, broken before its arrows."""
    start, further = "+--> ", "|      "
    lines, line = [], start
    for step in text.replace(" > ", "\n> ").split("\n"):
        if len(line) > len(start) and len(line) + 1 + len(step) > _WIDTH - 4:
            lines.append(line)
            line = further + step
        else:
            line = f"{line} {step}" if len(line) > len(start) else line + step
    return [*lines, line.rstrip()]


def _row_text(network: Network, row: Members, prefix: str) -> str:
    words = []
    for item in row:
        if isinstance(item, str):
            words.append(_short(network.parts_of(item)[0], prefix))
        else:
            inner = _branch_texts(network, item, prefix)
            words.append("[" + " | ".join(text or "unchanged" for text in inner) + "]")
    return " > ".join(words)


def _short(part: Part, prefix: str, *, extents: bool = False) -> str:
    """A layer without the words that its block has in its title."""
    layer = part.layer
    outputs = _extents(part) if extents else _outputs(layer)
    name = layer.name.removeprefix(prefix)
    kind = type(layer).__name__.lower() if layer.several else ""
    if isinstance(layer, SoftmaxCrossEntropy) and layer.weight != 1:
        outputs = f"x {layer.weight:g}"
    return " ".join(filter(None, (name, "" if kind in name else kind, _operation(part), outputs)))


def _outputs(layer: Layer) -> str:
    if isinstance(layer, Convolution):
        return str(layer.filters)
    return str(layer.units) if isinstance(layer, FullyConnected) else ""


def svg(networks: tuple[Network, ...]) -> str:
    """Diagrams as a picture, networks side by side; crossings in colour, graphs as their text."""
    box_width, box_height, gap_x, gap_y, head = 190, 26, 36, 20, 64
    parts, x0, bottom = [], 20, 0
    for network in networks:
        if not network.is_chain:
            lines = _graph_lines(network)
            for place, line in enumerate(lines):
                y = 22 + 16 * place
                parts.append(f'<text x="{x0}" y="{y}" class="line">{escape(line)}</text>')
            bottom = max(bottom, 22 + 16 * len(lines))
            x0 += 8 * max(map(len, lines)) + 60
            continue
        step = box_width + gap_x
        width = network.columns * step - gap_x
        parts.append(_text(x0 + width / 2, 22, network.name, "title"))
        for column in range(network.columns):
            head_text = f"GPU {column}" if network.columns > 1 else "one column"
            parts.append(_text(x0 + column * step + box_width / 2, 44, head_text, "head"))
        y = head
        centres = [x0 + c * step + box_width / 2 for c in range(network.columns)]
        image = "image " + "x".join(str(extent) for extent in network.input_shape)
        parts += [_box(centre, y, box_width, box_height, image, "image") for centre in centres]
        present = [True] * network.columns
        for row in rows(network):
            top = y + box_height
            y = top + gap_y
            for target, label in enumerate(row.labels):
                if not label:
                    continue
                for source, is_present in enumerate(present):
                    if is_present and source == target:
                        parts.append(_line(centres[source], top, centres[target], y, "own"))
                    elif is_present and row.crosses:
                        parts.append(_line(centres[source], top, centres[target], y, "cross"))
                parts.append(_box(centres[target], y, box_width, box_height, label, "layer"))
            present = [label is not None for label in row.labels]
        bottom = max(bottom, y + box_height)
        x0 += width + 60
    style = (
        "text{font:12px sans-serif;text-anchor:middle;fill:#1b2733}.title{font-size:16px;"
        "font-weight:bold}.head{font-size:13px;fill:#51606e}rect{stroke:#51606e;fill:#eef3f8}"
        ".line{font-family:monospace;text-anchor:start;white-space:pre}.image{fill:#fff}.own{stroke:#51606e;stroke-width:1.5}"
        ".cross{stroke:#c2410c;stroke-width:2}"
    )
    description = "; ".join(f"{n.name} in {n.columns} column(s)" for n in networks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {x0 - 40} {bottom + 20}"'
        f' role="img"><title>{escape(description)}</title><style>{style}</style>'
        f'<rect x="0" y="0" width="{x0 - 40}" height="{bottom + 20}"'
        f' style="fill:#fff;stroke:none"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(text)}</text>'


def _box(centre: float, y: float, width: float, height: float, text: str, kind: str) -> str:
    return (
        f'<rect x="{centre - width / 2:g}" y="{y:g}" width="{width}" height="{height}" rx="4"'
        f' class="{kind}"/>' + _text(centre, y + height / 2 + 4, text, "label")
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'
