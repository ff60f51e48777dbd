"""Figures that no machine changes, and that a gate therefore compares exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata, util

from alexsim.bench.verdicts import BATCH_SIZE, DIGEST, Value
from alexsim.ledger.tables import flop_table
from alexsim.machine.machine import load_machine
from alexsim.network.network import Network
from alexsim.plan.choices import RUN_POLICIES
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.kernels import compile_kernels
from alexsim.simulate.simulator import on_machine

BATCH = 128
"""Images of a step, if nothing else is asked for."""
_THREADS = 2
"""Of backend native: each has scratch of its own."""
_MACHINES = (("gtx580x2", None), ("titan-x-maxwell", 1), ("h200", 1))
"""The machine of 2012, the card with most published figures and a current card; GPUs of each."""
_DIGITS = 9
"""Digits of simulated seconds: C libraries differ in the last bits of a power or an exponential."""
_ARCHITECTURES, _PRECISIONS = (80, 90), ("fp32", "bf16")


def counted(network: Network, batch_size: int = BATCH) -> dict[str, Value]:
    """FLOPs, bytes, plans and simulated times of a network."""
    return {BATCH_SIZE: batch_size} | {
        name: value
        for part in (_flop, _memory, _simulated)
        for name, value in part(network, batch_size)
    }


def kernel_figures(done: Callable[[int, int], None] = lambda *_: None) -> dict[str, Value]:
    """Registers, shared memory and spills of every Triton kernel; nothing without Triton.

    Names hold Triton's version: another compiler's figures are other figures.
    ``done`` gets the number of compiled ops and of all ops.
    """
    if util.find_spec("triton") is None:
        return {}
    compiler = f"triton-{metadata.version('triton')}"
    figures: dict[str, Value] = {}
    for turn, arch in enumerate(_ARCHITECTURES):
        for code in compile_kernels(arch, _PRECISIONS, done=partial(_part, done, turn)):
            name = f"kernels/{compiler}/sm_{arch}/{code.op}/{code.kernel}/{code.precision}"
            figures[name] = (
                f"registers {code.registers}, shared {code.shared_bytes}, spills {code.spills}"
            )
    return figures


def _part(done: Callable[[int, int], None], turn: int, count: int, ops: int) -> None:
    """Progress of one architecture as a part of the progress of all."""
    done(turn * ops + count, len(_ARCHITECTURES) * ops)


def _flop(network: Network, batch_size: int) -> Iterator[tuple[str, Value]]:
    table = flop_table(network, batch_size)
    yield "parameters", network.parameters
    yield "neurons", network.neurons
    yield "flop/forward MAC", table.mac
    yield "flop/training", table.training_flop
    for layer in table.layers:
        yield (
            f"flop/{layer.name}",
            f"{layer.flop} + {layer.grad_input_flop} + {layer.grad_weight_flop},"
            f" elementwise {layer.elementwise_flop}",
        )


def _memory(network: Network, batch_size: int) -> Iterator[tuple[str, Value]]:
    for policy in RUN_POLICIES:
        for backend in ("", "native", "aten"):
            planned = plan(
                network, batch_size=batch_size, policy=policy, backend=backend, threads=_THREADS
            )
            where = f"{policy}/{backend}" if backend else policy
            for device in planned.devices:
                yield f"memory/{where}/{device.name}", device.total_bytes
    yield "exchanged bytes", planned.exchanged_bytes
    ops = "\n".join(f"{op.id} {op.count} {op.depends_on}" for op in planned.ops())
    yield "plan/ops", sum(1 for _ in planned.ops())
    yield DIGEST, hashlib.sha256(ops.encode()).hexdigest()[:16]


def _simulated(network: Network, batch_size: int) -> Iterator[tuple[str, Value]]:
    for name, gpus in _MACHINES:
        configuration = PlanSpec(network=network, gpus=gpus, batch_size=batch_size)
        simulation = on_machine(configuration, load_machine(name))
        for quantity, seconds in (
            ("step", simulation.step_s),
            ("low", simulation.step_interval.low),
            ("high", simulation.step_interval.high),
        ):
            yield f"simulated/{name}/{quantity}_s", f"{seconds:.{_DIGITS}g}"
