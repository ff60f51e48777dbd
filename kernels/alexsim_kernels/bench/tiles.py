"""Which way to run a pass is the fastest on this card, found by elimination.

All candidates are timed shortly, the slower half goes, those that stay are timed longer, and so
on: a grid would spend most of its time on what is slow. The first order is that of the model of the
card, so that a search that is cut short has tried the most promising.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from triton.errors import TritonError

from alexsim_kernels import tables, tuning
from alexsim_kernels.bench.cases import LIMITS
from alexsim_kernels.bench.convolution_cases import Passes
from alexsim_kernels.bench.timing import milliseconds
from alexsim_kernels.candidates import kind_of, offered, tile_of
from alexsim_kernels.common import Config, Precision
from alexsim_kernels.shapes import Convolution
from alexsim_kernels.tuning import Key

_ROUNDS_MS = (4.0, 10.0, 40.0)
"""Milliseconds of launches of every candidate in the first round, and in those after it."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate: its median milliseconds, or why it has none."""

    config: Config
    ms: float | None = None
    why: str = ""


def eliminate(
    passes: Passes,
    pass_: str,
    ranked: Sequence[Config],
    *,
    over: Callable[[], bool] = lambda: False,
) -> list[Tried]:
    """Check candidates and time those that are right; the fastest first, then the others.

    Args:
        passes: a convolution's tensors.
        pass_: which of its passes.
        ranked: candidates, the most promising first: of these at least one is timed.
        over: whether there is no time for another.
    """
    tried: dict[Config, Tried] = {}
    left: list[Config] = []
    for config in ranked:
        if left and over():
            tried[config] = Tried(config=config, why="left out: no time")
            continue
        try:
            error = passes.error(pass_, config)
        except (TritonError, RuntimeError) as problem:
            if "CUDA" in str(problem):
                raise  # nothing runs in this process any more
            reason = str(problem).strip().splitlines() or [type(problem).__name__]
            tried[config] = Tried(config=config, why=f"does not run: {reason[-1]}")
            continue
        if not error <= LIMITS[passes.precision]:
            tried[config] = Tried(config=config, why=f"wrong: error {error:.1e}")
            continue
        left.append(config)
    for rep_ms in _ROUNDS_MS:
        for config in left:
            if over() and config in tried:
                break
            ms, *_ = milliseconds(lambda c=config: passes.run(pass_, c), rep_ms)
            tried[config] = Tried(config=config, ms=ms)
        left.sort(key=lambda config: tried[config].ms or 0.0)
        left = left[: max(1, (len(left) + 1) // 2)]
        if len(left) == 1 or over():
            break
    return sorted(
        tried.values(), key=lambda each: (each.ms is None, each.config not in left, each.ms or 0.0)
    )


def key_of(passes: Passes, pass_: str) -> Key:
    """The product that a pass is, for which a tile is chosen."""
    with tuning.asked(launch=False) as keys:
        passes.run(pass_)
    return keys[0]


def few(key: Key, configs: Sequence[Config], *, interpreted: bool) -> list[Config]:
    """The first candidate of each kind but the plainest; with tiles as an interpreter likes them,
    if it runs them."""
    kinds: dict[str, Config] = {}
    for config in configs:
        kind = kind_of(config)
        if kind == "pointers" or kind in kinds:
            continue
        kinds[kind] = config
        if interpreted:
            kinds[kind] = replace(
                tuning.for_interpreter(key), loads=config.loads, specialised=config.specialised,
                splits=config.splits, persistent=config.persistent,
            )  # fmt: skip
    return list(kinds.values())


def tune(name: str, shape: Convolution, precision: Precision, batch: int) -> None:
    """Time the candidates of every pass, and keep the fastest in the user's table of this card."""
    passes = Passes(shape=shape, precision=precision, batch=batch)
    card = tuning.card_of(passes.x)
    for pass_ in passes.names:
        key = key_of(passes, pass_)
        ranked = offered(key, card, stride=shape.stride, groups=shape.groups)
        best, *_ = eliminate(passes, pass_, ranked)
        if best.ms is None:
            raise RuntimeError(f"{name} {pass_}: no candidate of {len(ranked)} runs: {best.why}")
        tables.keep(card.name, {"tiles": {key.name(): tile_of(best.config)}})
