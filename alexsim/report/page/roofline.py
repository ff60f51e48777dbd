"""The roofline: what each pass reached, beside what arithmetic and memory allow.

Williams, Waterman and Patterson, CACM 52(4), 2009: a pass of so many FLOP per byte can run no
faster than the lower of the machine's peak and its memory rate times that intensity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from alexsim.report.page.chart import Scale, label, text_width
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Key,
    Table,
    number_columns,
    svg,
    symbol,
    tag,
    text_columns,
)
from alexsim.report.page.passes import NAMES, PASSES, SHAPES, Pass, passes_of
from alexsim.report.page.text import digits, milliseconds, percent, scaled, shortened, tick

_WIDTH, _HEIGHT = 1120.0, 620.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 1096.0, 34.0, 570.0
_RINGS = (9, 15, 23, 32, 43, 56, 72, 92)
_LINE = 13.0
"""Height of a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dot:
    of: Pass
    intensity: float
    flop_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def hits(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def roofline(document: dict[str, Any]) -> Figure | None:
    """Every pass whose FLOP, bytes and time are known; None where there is none."""
    measured = "step_s" in document
    each = 1 if measured else len(document["memory"]["devices"])
    dots, left_out = [], 0
    for one in passes_of(document):
        spent = one.measured_s if measured else one.predicted_s
        if one.flop and one.moved_bytes and spent:
            dots.append(
                _Dot(
                    of=one,
                    intensity=one.flop / one.moved_bytes,
                    flop_per_s=one.flop / each / spent,
                    seconds=spent,
                )
            )
        else:
            left_out += 1
    if not dots:
        return None
    flop_per_s = document["ceilings"]["flop_per_s"]
    bytes_per_s = document["ceilings"]["bytes_per_s"]
    whose = "measured here" if measured else f"data sheet of {document['machine']}"
    text = (
        f"Ceilings ({whose}): {scaled(flop_per_s, 'FLOP/s')} and {scaled(bytes_per_s, 'B/s')};"
        f" they meet at {digits(flop_per_s / bytes_per_s)} FLOP per byte. A dot is a pass of a"
        " layer; its area grows with its time."
    )
    roofs = (min(flop_per_s, dot.intensity * bytes_per_s) for dot in dots)
    if measured or any(dot.flop_per_s > roof for dot, roof in zip(dots, roofs, strict=True)):
        text += (
            " FLOP are those of direct convolution. Above the roof: Winograd or FFT multiply less"
            + (", or data stayed in a cache." if measured else ".")
        )
    if each > 1:
        text += " Rates are those of one GPU."
    if left_out:
        text += f" {left_out} passes for which no FLOP are counted are not drawn."
    return Figure(
        id="roofline",
        title="Roofline" + ("" if measured else ", predicted"),
        text=text,
        drawing=svg(
            "roofline-picture", "Roofline", text,
            list(_parts(dots, flop_per_s, bytes_per_s)), size=(_WIDTH, _HEIGHT), least=1020,
        ),
        keys=tuple(Key(style=name, name=NAMES[name], mark=SHAPES[name]) for name in PASSES),
        table=_table(dots, flop_per_s, bytes_per_s),
    )  # fmt: skip


def _parts(dots: Sequence[_Dot], flop_per_s: float, bytes_per_s: float) -> Iterator[Markup]:
    ridge = flop_per_s / bytes_per_s
    x = Scale(
        low=min(*(dot.intensity for dot in dots), ridge) / 1.6,
        high=max(*(dot.intensity for dot in dots), ridge) * 1.8,
        start=_LEFT,
        end=_RIGHT,
        log=True,
    )
    # A stray pass of a microsecond must not squeeze the others to the top.
    lowest = max(min(dot.flop_per_s for dot in dots), flop_per_s / 1e6) / 1.8
    y = Scale(
        low=lowest,
        high=max(*(dot.flop_per_s for dot in dots), flop_per_s) * 2,
        start=_BOTTOM,
        end=_TOP,
        log=True,
    )
    yield from _axes(x, y)
    whole = sum(dot.seconds for dot in dots)
    placed = [
        (
            x(dot.intensity),
            y(max(dot.flop_per_s, lowest)),
            3.4 + 13 * math.sqrt(dot.seconds / whole),
        )
        for dot in dots
    ]
    around = [_Box(a - r - 1, b - r - 1, a + r + 1, b + r + 1) for a, b, r in placed]
    roof = _Roof(x=x, y=y, flop_per_s=flop_per_s, bytes_per_s=bytes_per_s, at=x.low * 1.15)
    roof = _clear(roof, around)
    yield from roof.parts()
    yield from _names(dots, placed, roof.names() + around)
    # The longest first, so that no dot hides a smaller one.
    for dot, (at, up, radius) in sorted(zip(dots, placed, strict=True), key=lambda d: -d[1][2]):
        title = (
            f"{dot.of.title}: {scaled(dot.flop_per_s, 'FLOP/s')}, {digits(dot.intensity)} FLOP"
            f" per byte, {milliseconds(dot.seconds)} ms"
        )
        shape = SHAPES[dot.of.name]
        yield tag(
            "g", tag("title", title),
            symbol(shape, at, up, radius, class_=f"f-{dot.of.name} dot"),
        )  # fmt: skip


def _axes(x: Scale, y: Scale) -> Iterator[Markup]:
    for value in x.ticks():
        yield tag("line", x1=x(value), x2=x(value), y1=_TOP, y2=_BOTTOM, class_="grid")
        yield label(x(value), _BOTTOM + 17, tick(value), "tick", "middle")
    yield label((_LEFT + _RIGHT) / 2, _BOTTOM + 38, "FLOP per byte moved", "axis", "middle")
    for value in y.ticks():
        yield tag("line", x1=_LEFT, x2=_RIGHT, y1=y(value), y2=y(value), class_="grid")
        text = scaled(value, "")
        number, _, prefix = text.partition(" ")
        text = f"{float(number):g} {prefix}".strip()
        yield label(_LEFT - 7, y(value) + 4, text, "tick", "end")
    yield label(4, 16, "FLOP/s", "axis")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roof:
    """Two ceilings; ``at`` is the intensity where the slope's name begins."""

    x: Scale
    y: Scale
    flop_per_s: float
    bytes_per_s: float
    at: float

    @property
    def ridge(self) -> float:
        return self.flop_per_s / self.bytes_per_s

    @property
    def low(self) -> float:
        """Where the slope leaves the picture."""
        return max(self.x.low, self.y.low / self.bytes_per_s)

    def slope(self) -> tuple[float, float, float]:
        """Pixels where its name begins, and how steep it is, in degrees."""
        here = self.x(self.at), self.y(self.at * self.bytes_per_s)
        far = self.x(10 * self.at), self.y(10 * self.at * self.bytes_per_s)
        return *here, math.degrees(math.atan2(far[1] - here[1], far[0] - here[0]))

    def parts(self) -> Iterator[Markup]:
        """The line and its two names."""
        points = (
            (self.low, self.low * self.bytes_per_s),
            (self.ridge, self.flop_per_s),
            (self.x.high, self.flop_per_s),
        )
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        yield tag("polyline", points=path, class_="roof")
        name = f"arithmetic: {scaled(self.flop_per_s, 'FLOP/s')}"
        yield label(self.x(self.ridge) + 6, self.y(self.flop_per_s) - 8, name, "head halo")
        at, up, angle = self.slope()
        name = f"memory: {scaled(self.bytes_per_s, 'B/s')}"
        turn = f"rotate({angle:.1f} {at:.1f} {up:.1f})"
        yield tag("text", name, x=at, y=up - 8, class_="head halo", transform=turn)

    def names(self) -> list[_Box]:
        """Where the names stand: no other name goes there."""
        left, top = self.x(self.ridge), self.y(self.flop_per_s)
        boxes = [_Box(left, top - 22, left + 190, top - 4)]
        at, up, angle = self.slope()
        for step in range(0, 150, 12):
            dx, dy = step * math.cos(math.radians(angle)), step * math.sin(math.radians(angle))
            boxes.append(_Box(at + dx - 12, up + dy - 26, at + dx + 10, up + dy - 4))
        return boxes


def _clear(roof: _Roof, dots: Sequence[_Box]) -> _Roof:
    """With its slope's name where it hides fewest dots, the lowest of equals."""
    starts = [roof.low * 1.15 * 1.25**step for step in range(40)]
    tried = [replace(roof, at=at) for at in starts if at < roof.ridge / 3] or [roof]
    return min(tried, key=lambda one: sum(box.hits(dot) for box in one.names()[1:] for dot in dots))


def _names(
    dots: Sequence[_Dot], placed: Sequence[tuple[float, float, float]], taken: list[_Box]
) -> Iterator[Markup]:
    """A name near every dot, the longest passes' first; a line leads to those that moved away."""
    boxes = list(taken)
    for dot, (at, up, radius) in sorted(
        zip(dots, placed, strict=True), key=lambda found: -found[0].seconds
    ):
        name = shortened(dot.of.layer, 14)
        found = _place(at, up, radius, text_width(name) + 2, boxes)
        if found is None:
            continue
        boxes.append(found)
        middle = (found.top + found.bottom) / 2
        near = min(max(at, found.left), found.right)
        if math.hypot(near - at, middle - up) > radius + 14:
            yield tag("line", x1=at, y1=up, x2=near, y2=middle, class_="leader")
        yield label(found.left + 1, found.bottom - 3, name, "small halo")


def _place(at: float, up: float, radius: float, width: float, boxes: list[_Box]) -> _Box | None:
    for ring in _RINGS:
        for turn in (0, 4, 12, 8, 2, 14, 6, 10, 1, 15, 7, 9, 3, 13, 5, 11):
            angle = math.tau * turn / 16
            x = at + (radius + ring) * math.cos(angle)
            y = up - (radius + ring) * math.sin(angle)
            left = x - width * (1 - math.cos(angle)) / 2
            box = _Box(left, y - _LINE / 2, left + width, y + _LINE / 2)
            inside = box.left > _LEFT and box.right < _RIGHT and box.top > _TOP
            if inside and box.bottom < _BOTTOM and not any(box.hits(other) for other in boxes):
                return box
    return None


def _table(dots: Sequence[_Dot], flop_per_s: float, bytes_per_s: float) -> Table:
    rows = []
    for dot in dots:
        roof = min(flop_per_s, dot.intensity * bytes_per_s)
        share = dot.flop_per_s / roof
        rows.append(
            (
                Cell(text=dot.of.title),
                Cell(text=digits(dot.intensity), value=dot.intensity),
                Cell(text=digits(dot.flop_per_s / 1e9), value=dot.flop_per_s),
                Cell(text=digits(roof / 1e9), value=roof),
                Cell(text=percent(share), value=share),
                Cell(text=milliseconds(dot.seconds), value=dot.seconds),
            )
        )
    return Table(
        id="roofline-table",
        caption="Every pass on the roofline",
        columns=text_columns("pass")
        + number_columns("FLOP/B", "GFLOP/s", "roof, GFLOP/s", "of the roof", "ms"),
        rows=tuple(rows),
        sortable=True,
    )
