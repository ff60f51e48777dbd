"""(c) The fastest way to run every convolution, by elimination, in the order of the model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from alexsim_kernels import tuning
from alexsim_kernels.bench.card.ceilings import ceilings_of
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.card.right import BATCH, ORDER, RESNET_BATCH
from alexsim_kernels.bench.convolution_cases import Passes
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.tiles import Tried, eliminate, few, key_of
from alexsim_kernels.bench.timing import CARD, Ceilings
from alexsim_kernels.candidates import (
    kind_of,
    launch_of,
    offered,
    recorded_code,
    tile_of,
)
from alexsim_kernels.common import Config, Precision
from alexsim_kernels.model import Sheet, predict
from alexsim_kernels.shapes import ALEXNET, CONV1_PADDED, RESNET50, SMALL
from alexsim_kernels.tuning import Card, Key

NEEDS = ("numpy", "torch", "triton")
_PASS_S = 1.0
"""Seconds of a pass's candidates, about: less is left, and none is begun."""


def work(*, rehearse: bool = False, place: str = CARD) -> Iterator[tuple[str, Passes]]:
    """Layers and their passes, the most valuable first; half precision also of operands that are
    float32 in memory, as in training."""
    made = partial(Passes, place=place)
    if rehearse:
        for name, shape in SMALL.items():
            yield name, made(shape=shape, precision="fp32x3", batch=2)
        return
    padded = {"conv1, 4 channels": CONV1_PADDED}
    for precision, (name, shape) in product(ORDER, (ALEXNET | padded).items()):
        yield name, made(shape=shape, precision=precision, batch=BATCH)
        if precision == "bf16":
            wide = made(shape=shape, precision=precision, batch=BATCH, wide=True)
            yield f"{name} of float32", wide
    for precision, (name, shape) in product(ORDER, RESNET50.items()):
        yield f"res {name}", made(shape=shape, precision=precision, batch=RESNET_BATCH)


def rows(job: Job) -> Iterator[Row]:
    """A row per pass: the fastest candidate beside the usual tile; all others in ``detail``."""
    torch.manual_seed(0)
    peaks, left_out = ceilings_of(job), 0
    for name, passes in work(rehearse=job.rehearse):
        for pass_ in passes.names:
            if job.left_s < _PASS_S:
                left_out += 1
            else:
                yield _tuned(name, passes, pass_, peaks, job)
    if left_out:
        yield Row(op="tiles", text=f"left out: {left_out} passes, for time")


def _tuned(name: str, passes: Passes, pass_: str, peaks: Ceilings, job: Job) -> Row:
    key = key_of(passes, pass_)
    card = tuning.card_of(passes.x) if CARD == "cuda" else Card("rehearsed", 90, 132)
    shape = passes.shape
    configs = offered(key, card, stride=shape.stride, groups=shape.groups)
    # A table that was measured before must not decide what is usual.
    usual = tuning.by_model(key, card.capability, card.multiprocessors)
    if job.rehearse:
        usual = tuning.for_interpreter(key)
        configs = few(key, configs, interpreted=True)
    configs, untrusted = _trusted(configs, passes.precision, job)
    if usual not in configs:
        configs.insert(0, usual)
    predicted = {c: _predicted_ms(key, c, passes, pass_, card, peaks) for c in configs}
    ranked = sorted(configs, key=lambda c: predicted[c] or float("inf"))
    tried = eliminate(passes, pass_, ranked, over=lambda: job.left_s < _PASS_S)
    best = tried[0]
    by_usual = next((each.ms for each in tried if each.config == usual), None)
    base: dict[str, Any] = {
        "op": f"{name} {pass_}", "precision": passes.precision, "batch": passes.batch,
        "detail": {
            "key": key.name(), "usual": tile_of(usual),
            "tried": [_document(each, predicted[each.config]) for each in tried],
        },
    }  # fmt: skip
    if best.ms is None:
        return Row(**base, failed=f"none of {len(tried)} candidates runs: {best.why}")
    wrong = [each.why for each in tried if each.why.startswith("wrong")]
    base["detail"]["tile"] = tile_of(best.config)
    place = ranked.index(best.config) + 1
    return Row(
        **base, ours_ms=best.ms, other="usual tile", other_ms=by_usual,
        predicted_ms=predicted[best.config],
        text=f"{words(best.config)}; {place}. of {len(ranked)} as predicted"
        + (f"; {untrusted} not tried, not found right" if untrusted else ""),
        failed=f"{len(wrong)} of {len(tried)} candidates: {wrong[0]}" if wrong else "",
    )  # fmt: skip


def _trusted(configs: list[Config], precision: Precision, job: Job) -> tuple[list[Config], int]:
    """Candidates of kinds that part (b) found right, and how many others there are."""
    kinds: dict[str, bool] = {}
    for row in job.rows_of("right"):
        if row.precision == precision and row.detail and (kind := row.detail.get("kind")):
            kinds[kind] = kinds.get(kind, True) and not row.failed
    trusted = [c for c in configs if kind_of(c) == "pointers" or kinds.get(kind_of(c))]
    return trusted, len(configs) - len(trusted)


def _predicted_ms(
    key: Key, config: Config, passes: Passes, pass_: str, card: Card, peaks: Ceilings
) -> float | None:
    """By the model, from what the candidate compiled to, if that is on record."""
    code = recorded_code(key, config, card.capability)
    if code is None:
        return None
    images = passes.shape.extent if pass_ == "grad_input" else passes.shape.out
    launch = launch_of(
        key,
        config,
        moved_bytes=passes.moved_bytes(pass_),
        images=(passes.batch, *images),
        taps=passes.shape.taps,
    )
    rates: dict[str, float] = dict(peaks.flop_per_s.items())
    sheet = Sheet(
        name=card.name, multiprocessors=card.multiprocessors, clock_hz=card.clock_hz,
        bytes_per_s=peaks.bytes_per_s, flop_per_s=rates, shared_bytes=card.shared_bytes,
        registers=65_536, threads=2_048 if card.capability in (80, 90, 100) else 1_536,
    )  # fmt: skip
    return 1e3 * predict(code, launch, sheet).seconds


def _document(each: Tried, predicted_ms: float | None) -> dict[str, Any]:
    figures = {"ms": each.ms, "predicted_ms": predicted_ms, "why": each.why}
    return tile_of(each.config) | {k: v for k, v in figures.items() if v not in (None, "")}


def words(config: Config) -> str:
    """A candidate in a few words."""
    tile = f"{config.block_m}x{config.block_n}x{config.block_k}"
    return f"{tile} {kind_of(config)}".removesuffix(" pointers")
