"""Scales, ticks, axes, and line charts, as SVG that the page's style sheet colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from alexsim.report.page.elements import Key, svg, symbol, tag
from alexsim.report.page.text import tick

_MOST_POINTS = 600
"""Points drawn of one line; of more, the highest and the lowest of every stretch."""
_DOTS = 40
"""A line of no more points than this shows each of them."""
_LETTER = 7.0
"""Width of a letter of the pictures' text, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values ``low`` to ``high`` on pixels ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = ((math.log10(v) if self.log else v) for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> tuple[float, ...]:
        """Round values within: multiples of a power of ten by 1, 2 or 5."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.floor(math.log10(self.high))
            multiples = (1, 2, 5) if math.log10(self.high / self.low) < 3 else (1,)
            every = (k * 10.0**power for power in range(first, last + 1) for k in multiples)
            return tuple(value for value in every if self.low <= value <= self.high)
        span = self.high - self.low
        if span <= 0:
            return (self.low,)
        step = _step(span, about)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1))


def rounded_up(value: float, about: int = 5) -> float:
    """The first tick of an axis from 0 that is no smaller."""
    if value <= 0:
        return 1.0
    step = _step(value, about)
    return step * math.ceil(value / step - 1e-9)


def _step(span: float, about: int) -> float:
    """1, 2 or 5 times a power of ten, so that at most ``about`` of them make the span."""
    power = 10.0 ** math.floor(math.log10(span / about))
    return next(power * k for k in (1, 2, 5, 10) if span / (power * k) <= about * (1 + 1e-9))


def label(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> Markup:
    """Text at a place; ``anchor`` as SVG has it."""
    return tag("text", text, x=x, y=y, class_=style or None, text_anchor=anchor)


def text_width(text: str) -> float:
    """Pixels that a text takes, about."""
    return _LETTER * len(text)


def x_axis(
    scale: Scale, top: float, bottom: float, title: str, *, about: int = 5
) -> Iterator[Markup]:
    """Grid lines, ticks below, and a title under them."""
    for value in scale.ticks(about):
        x = scale(value)
        yield tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid")
        yield label(x, bottom + 16, tick(value), "tick", "middle")
    yield label((scale.start + scale.end) / 2, bottom + 34, title, "axis", "middle")


def y_axis(
    scale: Scale, left: float, right: float, title: str, write: Callable[[float], str] = tick
) -> Iterator[Markup]:
    """Grid lines, ticks on the left, and a title above them."""
    for value in scale.ticks():
        y = scale(value)
        yield tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
        yield label(left - 7, y + 4, write(value), "tick", "end")
    yield label(4, min(scale.start, scale.end) - 12, title, "axis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line of a chart."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: str
    dashed: bool = False
    faint: bool = False
    """Behind the others, without a name of its own at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """What a line chart shows."""

    id: str
    title: str
    text: str
    x_title: str
    y_title: str
    series: tuple[Series, ...]
    write_y: Callable[[float], str] = tick
    top: float | None = None
    """Highest value of the y axis; what the series need if None."""
    wide: bool = False

    def drawing(self) -> Markup:
        """The chart as SVG."""
        return _line_chart(self)

    def keys(self) -> tuple[Key, ...]:
        """Its legend."""
        return tuple(
            Key(style=f"{one.style} faint" if one.faint else one.style, name=one.name,
                mark=_mark(one))
            for one in self.series
        )  # fmt: skip


def _mark(one: Series) -> str:
    if len(one.points) == 1:
        return "diamond"
    return "dashed" if one.dashed else "line"


def _line_chart(chart: LineChart) -> Markup:
    named = [one for one in chart.series if not one.faint]
    room = 12 + max((text_width(one.name) for one in named), default=0.0)
    width, height, bottom = (1120.0, 240.0, 190.0) if chart.wide else (560.0, 280.0, 230.0)
    left, right, top = 56.0, width - room, 34.0
    xs = [x for one in chart.series for x, _ in one.points] or [0.0]
    ys = [y for one in chart.series for _, y in one.points] or [0.0]
    x = Scale(low=min(xs), high=max(xs), start=left, end=right)
    high = chart.top if chart.top is not None else rounded_up(max(ys))
    y = Scale(low=min(0.0, *ys) if len(ys) > 1 else 0.0, high=high, start=bottom, end=top)
    parts = [
        *y_axis(y, left, right, chart.y_title, chart.write_y),
        *x_axis(x, bottom, bottom + 4, chart.x_title),
    ]
    for one in sorted(chart.series, key=lambda one: not one.faint):
        parts += _line(one, x, y)
    reached = 0.0
    for one in sorted(named, key=lambda one: -one.points[-1][1]):
        end, at = one.points[-1]
        reached = max(y(at) + 4, reached + 14)
        parts.append(label(x(end) + 6, reached, one.name, f"tick halo on-{one.style}"))
    return svg(
        chart.id,
        chart.title,
        chart.text,
        parts,
        size=(width, height),
        least=1020 if chart.wide else 500,
    )


def _line(one: Series, x: Scale, y: Scale) -> Iterator[Markup]:
    points = thinned(one.points)
    style = f"line s-{one.style}" + " dashed" * one.dashed + " faint" * one.faint
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    if len(points) > 1:
        yield tag("polyline", points=path, class_=style)
    if len(one.points) <= _DOTS and not one.faint:
        shape = "diamond" if one.dashed else "circle"
        for a, b in points:
            yield symbol(shape, x(a), y(b), 2.6, class_=f"f-{one.style}")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """No more points than a picture can show: of every stretch its highest and its lowest."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    stretch = math.ceil(2 * len(points) / _MOST_POINTS)
    found = []
    for start in range(0, len(points), stretch):
        piece = points[start : start + stretch]
        both = {min(piece, key=lambda p: p[1]), max(piece, key=lambda p: p[1])}
        found += sorted(both)
    return found


def smoothed(points: Sequence[tuple[float, float]], window: int) -> tuple[tuple[float, float], ...]:
    """Means over ``window`` neighbours, fewer at the ends."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    found = []
    for index, (at, _) in enumerate(points):
        first, last = max(0, index - window // 2), min(len(points), index + window // 2 + 1)
        found.append((at, (sums[last] - sums[first]) / (last - first)))
    return tuple(found)
