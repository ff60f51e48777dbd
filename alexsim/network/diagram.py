"""The columns of a network and what crosses between them, as text and as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from alexsim.network.layers import AveragePool, MaxPool
from alexsim.network.network import Network, Part

_BOX, _GAP = 25, 2
"""Characters of a column and between two: three columns fit an 80-column terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the diagram: a box per column that has one, and whether columns cross above."""

    labels: tuple[str | None, ...]
    crosses: bool


def rows(network: Network) -> tuple[Row, ...]:
    """The layers that change shape or have weights, in order."""
    found = []
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
        crosses = any(set(part.sources) - {part.column} for part in parts)
        found.append(Row(labels=tuple(labels), crosses=crosses))
    return tuple(found)


def _label(part: Part) -> str:
    shape = "x".join(str(extent) for extent in part.output_shape)
    layer = part.layer
    what = layer.window.removesuffix("/1") if part.weight_shape else layer.window
    pooled = {MaxPool: "max", AveragePool: "mean"}.get(type(layer), "")
    return " ".join(filter(None, (layer.name, pooled, what, shape)))


def diagram(network: Network) -> str:
    """A text drawing: a line per layer, a stem per column, an arrow where columns exchange."""
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


def svg(networks: tuple[Network, ...]) -> str:
    """The same as a picture, networks side by side; crossings in colour."""
    box_width, box_height, gap_x, gap_y, head = 190, 26, 36, 20, 64
    parts, x0, bottom = [], 20, 0
    for network in networks:
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
            for to, label in enumerate(row.labels):
                if not label:
                    continue
                for source, there in enumerate(present):
                    if there and source == to:
                        parts.append(_line(centres[source], top, centres[to], y, "own"))
                    elif there and row.crosses:
                        parts.append(_line(centres[source], top, centres[to], y, "cross"))
                parts.append(_box(centres[to], y, box_width, box_height, label, "layer"))
            present = [label is not None for label in row.labels]
        bottom = max(bottom, y + box_height)
        x0 += width + 60
    style = (
        "text{font:12px sans-serif;text-anchor:middle;fill:#1b2733}.title{font-size:16px;"
        "font-weight:bold}.head{font-size:13px;fill:#51606e}rect{stroke:#51606e;fill:#eef3f8}"
        ".image{fill:#fff}.own{stroke:#51606e;stroke-width:1.5}"
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
