"""What a row timed: its ops, and the pieces of their time."""

from __future__ import annotations

import math
from functools import cache

from alexsim.costs.correction import Waits
from alexsim.costs.cost import Cost, Work
from alexsim.costs.libraries import load_library
from alexsim.fidelity.rows import Case, sheet_of
from alexsim.fidelity.several import setting_of
from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import LocalResponseNorm
from alexsim.plan.plan import OpKind

UPLOAD = "upload of images inside"
"""Notes of figures that begin with images in the host's memory."""
_ONE_BY_ONE = ("layers timed one by one", "deploy network without loss")
"""Notes of figures of Caffe's ``time``, which waits for each layer."""


def whence(case: Case) -> tuple[str, str, str]:
    """What rows of one machine have in common: card, source, framework with its versions."""
    return case.device, source_of(case), case.row.library


def source_of(case: Case) -> str:
    """Whose figure it is, without the place in the source."""
    return case.row.source.partition(" ")[0]


def works(case: Case) -> list[Work]:
    """The ops that a one-GPU row timed."""
    batch, passes = case.batch_size, case.passes
    forward = passes in ("fwd", "fwd+bwd", "train-step", "total")
    inputs = passes in ("bwd", "bwd-data", "fwd+bwd", "train-step", "total")
    weights = passes in ("bwd", "bwd-weight", "fwd+bwd", "train-step", "total")
    deployed = passes == "bwd-weight" and "deploy network" in case.row.notes
    timed = []
    for index, parts in enumerate(case.network.parts):
        for part in parts:
            if case.layers and part.layer.name not in case.layers:
                continue
            wanted = []
            if forward:
                wanted.append((OpKind.FORWARD, counts.forward(part, batch)))
            # Caffe's response norms do both passes even where nothing below asks for a gradient.
            norm = deployed and isinstance(part.layer, LocalResponseNorm)
            if norm or (inputs and (index > 0 or case.image_gradient)):
                wanted.append((OpKind.GRAD_INPUT, counts.grad_input(part, batch)))
            if weights and part.weight_shape:
                count = counts.grad_weight(part, batch, fused=False)
                wanted.append((OpKind.GRAD_WEIGHT, count))
            if passes in ("train-step", "total") and part.weight_shape:
                wanted.append((OpKind.UPDATE, counts.update(part, fused=False)))
            timed += [
                Work(kind=kind, part=part, batch_size=batch, count=count) for kind, count in wanted
            ]
    return timed


def waits(case: Case) -> Waits:
    """When the host waited: single layers are timed in loops."""
    if any(words in case.row.notes for words in _ONE_BY_ONE):
        return "op"
    return "never" if case.single_layer else "step"


@cache
def pieces(case: Case, library: str = "") -> tuple[tuple[Cost, ...], ...]:
    """Pieces of the time of each op of a one-GPU row's pass."""
    model = load_library(library or case.library, case.family)
    device = sheet_of(case.device)
    # A source's host is of its own: some issue ops twice as fast as others. Single layers wait for
    # a timer, not for a framework's pace.
    whose = ":".join(whence(case))
    host = (f"host:{whose}",)
    ops: list[tuple[Cost, ...]] = []
    if UPLOAD in case.row.notes:
        ops.append((_upload(case, whose),))
    ops += (
        tuple(
            cost.also(host, cost.traits[:1] if case.single_layer else cost.traits)
            if cost.of_host
            else cost
            for cost in model.costs(device, work, case.precision)
        )
        for work in works(case)
    )
    return tuple(ops)


def _upload(case: Case, whose: str) -> Cost:
    """Images that come from the host's memory before the pass begins, while it waits."""
    size = 2 if case.precision == "fp16" else FLOAT_BYTES
    pixels = case.batch_size * math.prod(case.network.input_shape)
    seconds = setting_of(case).machine.link.seconds(size * pixels)
    return Cost(seconds, "memory", ("upload", f"upload:{whose}"))
