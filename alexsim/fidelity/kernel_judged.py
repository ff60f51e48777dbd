"""Predictions of measured kernels, whatever table they are of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from alexsim.costs.correction import Correction
from alexsim.fidelity.judged import Judged
from alexsim.fidelity.kernel_calls import Call, call_of
from alexsim.fidelity.kernel_fields import Unlike
from alexsim.fidelity.kernel_fit import predicted_s
from alexsim.fidelity.kernel_rows import KernelRow
from alexsim.fidelity.rows import Excluded, sheet_of
from alexsim.simulate.simulation import NINE_IN_TEN

TRUST: Final = 0.75
"""What is left of the logarithm of the trees' factor where a source's timer was never seen: with a
quarter of the plain mechanism errors on unseen sources are least."""
_AT_A_TIME = 4000
_UNKNOWN = 0.5
"""Standard deviation of a logarithm of which no class is known."""


def judge_kernels(
    rows: Iterable[KernelRow],
    correction: Correction,
    *,
    done: Callable[[int], None] = lambda _: None,
) -> tuple[tuple[Judged, ...], tuple[Excluded, ...]]:
    """Rows predicted, with the bounds of their class; and those that cannot be, with the rule."""
    judged: list[Judged] = []
    excluded: list[Excluded] = []
    seen_sources = correction.card.kernel_sources
    count = 0
    every = iter(rows)
    while some := list(islice(every, _AT_A_TIME)):
        calls: dict[bool, list[Call]] = {True: [], False: []}
        for row in some:
            try:
                calls[row.source in seen_sources].append(call_of(row))
            except Unlike as why:
                excluded.append(Excluded(row=row, why=str(why)))
        for seen, chosen in calls.items():
            if chosen:
                times = predicted_s(chosen, correction, 1.0 if seen else TRUST)
                judged += (
                    _judged(call, float(seconds), correction, seen)
                    for call, seconds in zip(chosen, times, strict=True)
                )
        count += len(some)
        done(count)
    return tuple(judged), tuple(excluded)


def _judged(call: Call, seconds: float, correction: Correction, source_seen: bool) -> Judged:
    row, device = call.row, sheet_of(call.device)
    device_seen = device.name in correction.card.devices
    reduced = call.reduced
    error = correction.card.error_of(
        call.learned.kind,
        device_seen=device_seen,
        library_seen=source_seen,
        reduced=reduced,
        platform=device.architecture.platform,
    )
    away = math.exp(NINE_IN_TEN * (error.noise if error else _UNKNOWN))
    batch = row.entry["batch"]
    return Judged(
        id=row.id,
        source=row.source,
        device=call.device,
        generation=device.architecture.name,
        year=device.year,
        device_seen=device_seen,
        library=row.library,
        library_seen=source_seen,
        op=row.op,
        passes="step" if row.passes == "train-step" else row.passes,
        what=_what(row),
        batch_size=int(batch) if batch.isdecimal() else None,
        precision="fp16" if reduced else "fp32",
        cards=1,
        flop=call.flop,
        predicted_s=seconds,
        low_s=seconds / away,
        high_s=seconds * away,
        measured_s=row.time_s,
        roofline_s=call.roofline_s + call.overhead_s,
    )


def _what(row: KernelRow) -> str:
    entry = row.entry
    if row.op == "conv":
        sides = "{in_channels} x {height} x {width} to {out_channels}, {kernel_h} x {kernel_w}"
        return sides.format(**entry) + f" / {entry['stride_h']}"
    if entry["m"]:
        return " x ".join(entry[side] for side in "mnk")
    named = [row.algorithm, *(entry[c] for c in ("in_channels", "height", "width"))]
    return " x ".join(filter(None, named)) or row.op
