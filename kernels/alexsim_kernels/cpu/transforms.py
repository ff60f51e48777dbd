"""Winograd's transforms as C++: straight-line code of vectors, made from exact fractions.

F(m, r) computes ``m`` outputs of an ``r``-tap filter with ``q = m + r - 1`` multiplications:
``y = A' [(G g) * (B' d)]`` (Winograd 1980; Lavin and Gray 2016). The matrices are those of the
transposed Toom-Cook product: Lagrange interpolation at ``q - 1`` points and infinity. Gradients
take the transposes: ``G' [(A dy) * (B' d)]`` is the gradient of ``g``.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

Matrix = list[list[Fraction]]
_ZERO = Fraction(0)

TRANSFORMS = ((4, 3), (5, 3), (4, 5))
"""``(m, r)`` of every F(m, r) that the kernels know."""
_POINTS = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))
"""Where the polynomials are evaluated, beside infinity: powers of two, and opposites in pairs.

The kernels count on the second being 1: the sums of a tile of gradients stand there.
"""


class CookToom(NamedTuple):
    """``a`` is A' ``[m, q]``, ``g`` is G ``[q, r]``, ``b`` is B' ``[q, q]``."""

    a: Matrix
    g: Matrix
    b: Matrix


def cook_toom(outputs: int, taps: int) -> CookToom:
    """The matrices of F(outputs, taps), exactly.

    Rows of B are divided by the power of two that is nearest to the square root of their largest
    entry, and those of G multiplied with it: this evens out sizes, and costs no rounding.

    Raises:
        ValueError: it would need more points than there are.
    """
    products = outputs + taps - 1
    if products - 1 > len(_POINTS):
        raise ValueError(f"F({outputs}, {taps}) needs {products - 1} points, of {len(_POINTS)}")
    points = _POINTS[: products - 1]
    a = [[point**i for point in points] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    g, b = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = math.prod((point - other for other in others), start=Fraction(1))
        g.append([point**i / scale for i in range(taps)])
        b.append([*_polynomial(others), _ZERO])
    g.append([Fraction(i == taps - 1) for i in range(taps)])
    b.append(_polynomial(points))
    for row, values in enumerate(b):
        largest = float(max(map(abs, values)))
        size = Fraction(2) ** round(math.log2(math.sqrt(largest)))
        b[row] = [value / size for value in values]
        g[row] = [value * size for value in g[row]]
    return CookToom(a, g, b)


def _polynomial(roots: list[Fraction] | tuple[Fraction, ...]) -> list[Fraction]:
    """Coefficients of the monic polynomial with these roots, lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        longer = [_ZERO, *coefficients]
        for power, value in enumerate(coefficients):
            longer[power] -= root * value
        coefficients = longer
    return coefficients


def header() -> str:
    """C++ of all transforms: ``Transform<m, r>`` with a function per matrix."""
    parts = ["// Made by transforms.py.", "#pragma once", '#include "vector.h"', ""]
    parts.append("template <int M, int R> struct Transform;")
    for outputs, taps in TRANSFORMS:
        made = cook_toom(outputs, taps)
        parts.append(f"template <> struct Transform<{outputs}, {taps}> {{")
        for name, matrix in (
            ("input", made.b),
            ("filter", made.g),
            ("output", made.a),
            ("grad_output", _transposed(made.a)),
            ("grad_filter", _transposed(made.g)),
        ):
            parts += _function(name, matrix)
        parts.append("};")
    return "\n".join(parts) + "\n"


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _function(name: str, matrix: Matrix) -> list[str]:
    """``y = matrix x``; ``x_step`` and ``y_step`` are distances between values, in vectors."""
    columns = len(matrix[0])
    lines = [f"static INLINE void {name}(const vec* x, long x_step, vec* y, long y_step) {{"]
    lines += [f"  const vec x{k} = x[{k} * x_step];" for k in range(columns)]
    names = [f"x{k}" for k in range(columns)]
    rows = [list(row) for row in matrix]
    # Opposite points have columns that differ in signs alone: their sum and difference will do.
    for k in range(columns - 1):
        pair = [(abs(row[k]), abs(row[k + 1])) for row in rows]
        if all(left == right for left, right in pair) and sum(left != 0 for left, _ in pair) > 2:
            lines.append(f"  const vec s{k} = x{k} + x{k + 1}, d{k} = x{k} - x{k + 1};")
            names[k], names[k + 1] = f"s{k}", f"d{k}"
            for row in rows:
                same = row[k] == row[k + 1]
                row[k], row[k + 1] = (row[k], _ZERO) if same else (_ZERO, row[k])
    done = set()
    for i, row in enumerate(rows):
        if i in done:
            continue
        opposite = i + 1 < len(rows) and [*map(abs, row)] == [*map(abs, rows[i + 1])]
        shared = opposite and [
            u if u == v else _ZERO for u, v in zip(row, rows[i + 1], strict=True)
        ]
        if shared and any(shared) and shared != row:
            other = [u if not s else _ZERO for u, s in zip(row, shared, strict=True)]
            lines.append(f"  const vec e{i} = {_sum(shared, names)}, o{i} = {_sum(other, names)};")
            lines.append(f"  y[{i} * y_step] = e{i} + o{i};")
            lines.append(f"  y[{i + 1} * y_step] = e{i} - o{i};")
            done.add(i + 1)
        else:
            lines.append(f"  y[{i} * y_step] = {_sum(row, names)};")
    return [*lines, "}"]


def _sum(factors: list[Fraction], names: list[str]) -> str:
    """A sum of products; factors of one and of zero leave no trace."""
    text = ""
    for factor, name in zip(factors, names, strict=True):
        if factor:
            sign = "-" if factor < 0 else "+" if text else ""
            size = abs(factor)
            text += f" {sign} " if text else sign
            text += name if size == 1 else f"scalar({float(size)!r}) * {name}"
    return text or "vec{}"
