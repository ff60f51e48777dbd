"""From the times of ops to a profile, layer by layer. No torch in here."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from alexsim.ledger.tables import memory_table
from alexsim.network.counts import PASSES
from alexsim.plan.plan import PASS_OF, Op, OpKind, Plan, waited_for
from alexsim.profile.step_profile import (
    Ceilings,
    LayerCount,
    LayerProfile,
    PassCount,
    PassProfile,
    spread,
)
from alexsim.simulate.simulation import Simulation
from alexsim.trace import Trace

_OVERHEAD = 10
"""A pass that takes so many times what arithmetic and memory need is bound by something else."""

Rounds = Sequence[dict[str, float]]
"""Seconds of every op, step by step."""


def rounds_of(trace: Trace, plan: Plan) -> list[dict[str, float]]:
    """Durations by op, one dictionary per step; the first replica's."""
    devices = {device.name for device in plan.devices}
    steps: dict[int, dict[str, float]] = {}
    for span in trace.spans:
        if span.device not in devices:
            continue
        steps.setdefault(span.step, {})[span.op_id] = span.duration_s
    return [steps[step] for step in sorted(steps)]


def transfers_s(plan: Plan, rounds: Rounds) -> float:
    """Seconds of uploads, exchanges, all-reduces and waiting for these in a step, all devices."""
    moves = ("upload", "exchange", "all_reduce")
    ids = [op.id for op in plan.ops() if op.kind.activity in moves]
    ids += [waited_for(op).id for op in plan.ops() if op.kind == OpKind.UPDATE]
    return sum(statistics.median(ops.get(op_id, 0.0) for ops in rounds) for op_id in ids)


def counted_layers(plan: Plan, simulation: Simulation) -> tuple[LayerCount, ...]:
    """Every layer of the network: counts and bytes of the plan, and predicted times."""
    ops = _by_pass(plan)
    predicted = _predicted(plan, simulation)
    held = memory_table(plan)
    layers = []
    for parts in plan.network.parts:
        first = parts[0]
        name = first.layer.name
        counted_parts = parts[:1] if first.copied else parts
        channels = sum(part.output_shape[0] for part in counted_parts)
        layers.append(
            LayerCount(
                name=name,
                kind=type(first.layer).__name__,
                shape=(channels, *first.output_shape[1:]),
                parameters=sum(part.parameters for part in counted_parts),
                passes=tuple(
                    _count(pass_, ops[name, pass_], predicted[name, pass_])
                    for pass_ in PASSES
                    if ops[name, pass_]
                ),
                memory_bytes={
                    device.name: sum(
                        size
                        for key, size in device.by_layer.items()
                        if key in (name, f"{name}.remote")
                    )
                    for device in held
                },
            )
        )
    return tuple(layers)


def layers_of(
    plan: Plan, rounds: Rounds, ceilings: Ceilings, simulation: Simulation
) -> tuple[LayerProfile, ...]:
    """The counted layers with medians over ``rounds``."""
    ops = _by_pass(plan)
    return tuple(
        LayerProfile(
            name=layer.name,
            kind=layer.kind,
            shape=layer.shape,
            parameters=layer.parameters,
            passes=tuple(
                _measured(plan, count, ops[layer.name, count.name], rounds, ceilings)
                for count in layer.passes
            ),
            memory_bytes=layer.memory_bytes,
        )
        for layer in counted_layers(plan, simulation)
    )


def _by_pass(plan: Plan) -> dict[tuple[str, str], list[Op]]:
    """Ops of every layer and pass."""
    ops: dict[tuple[str, str], list[Op]] = defaultdict(list)
    for op in plan.ops():
        if op.kind in PASS_OF:
            ops[op.layer, PASS_OF[op.kind]].append(op)
    return ops


def _predicted(plan: Plan, simulation: Simulation) -> dict[tuple[str, str], tuple[float, str]]:
    """Seconds and limit of every pass on the device that takes longest for it."""
    layer_of = {op.id: (op.layer, PASS_OF.get(op.kind, "")) for op in plan.ops()}
    times: dict[tuple[str, str], tuple[float, str]] = defaultdict(lambda: (0.0, ""))
    for layer in simulation.layers:
        for name in PASSES:
            key = (layer.name, name)
            times[key] = max(times[key], (getattr(layer, f"{name}_s"), layer.limit))
    longest: dict[tuple[str, str], float] = defaultdict(float)
    for op in simulation.ops:
        key = layer_of.get(op.name, ("", ""))
        if key in times and op.seconds > longest[key]:
            longest[key] = op.seconds
            times[key] = (times[key][0], op.limit)
    return times


def _count(name: str, ops: Sequence[Op], predicted: tuple[float, str]) -> PassCount:
    mac = sum(op.count.mac for op in ops)
    return PassCount(
        name=name,
        mac=mac,
        flop=2 * mac,
        elementwise_flop=sum(op.count.elementwise_flop for op in ops),
        moved_bytes=sum(op.count.moved_bytes for op in ops),
        predicted_s=predicted[0],
        predicted_limit=predicted[1],
        algorithm=", ".join(sorted({f"{op.backend} {op.algorithm}".strip() for op in ops})),
    )


def _measured(
    plan: Plan, count: PassCount, ops: Sequence[Op], rounds: Rounds, ceilings: Ceilings
) -> PassProfile:
    measured = spread([sum(times[op.id] for op in ops) for times in rounds])
    compute_s = sum(ceilings.compute_s(op, plan.part(op)) for op in ops)
    memory_s = count.moved_bytes / ceilings.bytes_per_s
    floor_s = max(compute_s, memory_s)
    limit = "compute" if compute_s > memory_s else "memory"
    return PassProfile(
        **asdict(count),
        measured=measured,
        floor_s=floor_s,
        limit="overhead" if measured.median_s > _OVERHEAD * floor_s else limit,
    )
