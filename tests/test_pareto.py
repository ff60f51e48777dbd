"""The Pareto set: nothing in it is beaten, and everything outside is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexsim.explore.pareto import Point, objectives, with_pareto

SMALL = st.integers(1, 4)


@st.composite
def points(draw: st.DrawFn) -> Point:
    error = draw(st.sampled_from(["", "", "", "does not divide"]))
    if error:
        return Point(settings={}, error=error)
    return Point(
        settings={},
        training_days=draw(SMALL),
        memory_bytes=draw(SMALL),
        energy_kwh=draw(SMALL),
        price_usd=draw(st.one_of(st.none(), SMALL)) if draw(st.booleans()) else 1.0,
        fits=draw(st.booleans()),
    )


@given(st.lists(points(), max_size=12))
def test_the_set_holds_what_nothing_beats(given_points: list[Point]) -> None:
    marked = with_pareto(given_points)
    names = objectives(given_points)

    def figures(point: Point) -> tuple[float, ...]:
        return tuple(getattr(point, name) for name in names)

    able = [point for point in marked if point.fits and not point.error]
    for point in marked:
        beaten = any(
            figures(other) != figures(point)
            and all(a <= b for a, b in zip(figures(other), figures(point), strict=True))
            for other in able
            if not point.error and point.fits
        )
        assert point.pareto == (point.fits and not point.error and not beaten)


def test_price_counts_only_where_all_have_one() -> None:
    unpriced = Point(settings={}, training_days=1, memory_bytes=2, energy_kwh=1, fits=True)
    fast = replace(unpriced, memory_bytes=1, price_usd=9)
    cheap = replace(fast, training_days=2, price_usd=1)
    assert [p.pareto for p in with_pareto([cheap, fast])] == [True, True]
    assert [p.pareto for p in with_pareto([cheap, fast, unpriced])] == [False, True, False]
    assert "price_usd" not in objectives([cheap, fast, unpriced])


@pytest.mark.parametrize("error", ["", "no such card"])
def test_nothing_is_best_among_nothing(error: str) -> None:
    assert not any(p.pareto for p in with_pareto([Point(settings={}, error=error)]))
