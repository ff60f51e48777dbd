"""Gradient boosting of oblivious trees on squared errors, repeatable to the bit.

Friedman 2001 (gradient boosting), Friedman 2002 (rows and features by chance), Prokhorenkova et al.
2018 (oblivious trees, as CatBoost grows them). Every level asks the question that lowers the sum of
squares most over all of its nodes together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alexsim.costs.trees import Forest

_BINS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a forest grows."""

    trees: int = 400
    depth: int = 6
    rate: float = 0.08
    shrink: float = 1.0
    """Added to the weight of a node: its value shrinks towards 0."""
    rows: float = 0.6
    """Share of the rows that a tree sees."""
    features: float = 0.3
    """Share of the features."""
    seed: int = 1


def grow(
    features: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    growth: Growth | None = None,
    *,
    done: Callable[[int], None] = lambda _: None,
) -> Forest:
    """The forest that predicts ``target`` (n) from ``features`` (n x f), weighted by ``weight``.

    The mean weight is 1 within. Equal arguments give equal bits.
    """
    growth = growth or Growth()
    chance = np.random.default_rng(growth.seed)
    count, columns = features.shape
    weight = weight / weight.mean()
    edges, binned = _binned(features)
    bias = float(np.average(target, weights=weight))
    left = target - bias
    shape = (growth.trees, growth.depth)
    asked, threshold = np.zeros(shape, np.intp), np.zeros(shape)
    value = np.zeros((growth.trees, 1 << growth.depth))
    some = max(1, round(columns * growth.features))
    for tree in range(growth.trees):
        rows = np.flatnonzero(chance.random(count) < growth.rows)
        chosen = np.sort(chance.permutation(columns)[:some])
        bins = binned[np.ix_(chosen, rows)]
        pull, mass = (weight * left)[rows], weight[rows]
        node = np.zeros(len(rows), np.intp)
        for level in range(growth.depth):
            at, edge = _question(bins, pull, mass, node, 1 << level, growth.shrink)
            feature = chosen[at]
            asked[tree, level] = feature
            # Beyond the last edge lies nothing: the level divides no node.
            threshold[tree, level] = edges[feature][edge] if edge < len(edges[feature]) else np.inf
            node = 2 * node + (bins[at] > edge)
        nodes = 1 << growth.depth
        sums = np.bincount(node, pull, nodes), np.bincount(node, mass, nodes)
        value[tree] = growth.rate * sums[0] / (sums[1] + growth.shrink)
        place = (1 << np.arange(growth.depth))[::-1]
        left -= value[tree][(features[:, asked[tree]] > threshold[tree]) @ place]
        done(tree + 1)
    return Forest(bias, asked, threshold, value, features.min(axis=0), features.max(axis=0))


def _binned(features: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Thresholds of each feature between equal shares of the rows; each value's bin (f x n)."""
    edges = []
    binned = np.empty(features.shape[::-1], np.uint8)
    shares = np.linspace(0, 1, _BINS + 1)[1:-1]
    for column in range(features.shape[1]):
        values = features[:, column]
        between = np.unique(np.quantile(values, shares, method="lower").astype(np.float32))
        # As the file keeps them, so that a row falls on the same side of a threshold everywhere.
        edges.append(between.astype(np.float64))
        binned[column] = np.searchsorted(edges[-1], values, side="left")
    return edges, binned


def _question(
    bins: np.ndarray,
    pull: np.ndarray,
    mass: np.ndarray,
    node: np.ndarray,
    nodes: int,
    shrink: float,
) -> tuple[int, int]:
    """Which of the features to ask, and after which of its bins to divide."""
    best, answer = -1.0, (0, 0)
    base = node * _BINS
    for at, each in enumerate(bins):
        cell = base + each
        below = np.bincount(cell, pull, nodes * _BINS).reshape(nodes, _BINS).cumsum(axis=1)
        light = np.bincount(cell, mass, nodes * _BINS).reshape(nodes, _BINS).cumsum(axis=1)
        above, heavy = below[:, -1:] - below, light[:, -1:] - light
        gain = (below**2 / (light + shrink) + above**2 / (heavy + shrink)).sum(axis=0)[:-1]
        edge = int(gain.argmax())
        if gain[edge] > best:
            best, answer = gain[edge], (at, edge)
    return answer
