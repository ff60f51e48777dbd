"""Identity is a field: whatever ops, exchanges and buffers are called, all else stays the same."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny import SOURCE

from alexsim.costs.correction import load_correction
from alexsim.costs.libraries import load_library
from alexsim.documents.profile import PlanDocument, plan_document
from alexsim.documents.simulation import simulation_document
from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.machine.machine import Machine, load_machine
from alexsim.page.earlier import complete
from alexsim.page.inputs import Subject
from alexsim.page.memory import alive_table
from alexsim.page.traffic import traffic_table
from alexsim.plan.plan import DevicePlan, Op, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.step_profile import Ceilings
from alexsim.recipe.stages import Training
from alexsim.report.chrome_trace import Clock, chrome_trace
from alexsim.report.simulation import simulation_tables
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import default_library, simulate
from alexsim.simulate.timer import Timer
from alexsim.strict_json import json_text
from alexsim.typed import read

SPECS = {
    "columns": ("gtx580x2", {"gpus": 2}),
    "host": ("gtx580x2", {"gpus": 2, "schedule": "overlap", "transport": "host"}),
    "replicas": ("k20x8", {"partition": "replicas", "gpus": 4, "schedule": "overlap"}),
    "hybrid": ("k20x8", {"partition": "hybrid", "gpus": 4, "schedule": "overlap"}),
    "turns": ("k20x8", {"partition": "hybrid", "gpus": 4, "variable_batch": True}),
}


class Opaque:
    """Names that say nothing, of ops and exchanges and, if asked for, buffers; and what they
    stand for."""

    def __init__(self, *, buffers: bool) -> None:
        self._tokens: dict[str, str] = {"": ""}
        self._buffer = self if buffers else str

    def __call__(self, name: str) -> str:
        return self._tokens.setdefault(name, f"@{len(self._tokens)}@")

    def plan(self, made: Plan) -> Plan:
        """The same plan with such names."""
        return replace(
            made,
            devices=tuple(map(self._device, made.devices)),
            posted=tuple(
                replace(
                    one,
                    name=self(one.name),
                    source_buffer=self._buffer(one.source_buffer),
                    target_buffer=self._buffer(one.target_buffer),
                )
                for one in made.posted
            ),
            collectives=tuple(replace(one, name=self(one.name)) for one in made.collectives),
        )

    def _device(self, device: DevicePlan) -> DevicePlan:
        return replace(
            device,
            ops=tuple(map(self._op, device.ops)),
            buffers=tuple(
                replace(
                    one,
                    name=self._buffer(one.name),
                    shares=self._buffer(one.shares),
                    block=self._buffer(one.block),
                )
                for one in device.buffers
            ),
            blocks=tuple(replace(one, name=self._buffer(one.name)) for one in device.blocks),
            resident=tuple(map(self._buffer, device.resident)),
        )

    def _op(self, op: Op) -> Op:
        return replace(
            op,
            id=self(op.id),
            depends_on=tuple(map(self, op.depends_on)),
            operands={role: tuple(map(self._buffer, names)) for role, names in op.operands.items()},
            reads=tuple(map(self._buffer, op.reads)),
            writes=tuple(map(self._buffer, op.writes)),
            exchange=self(op.exchange),
            collective=self(op.collective),
        )

    def restored(self, text: str) -> str:
        """A text with the names that were taken away."""
        names = {token: name for name, token in self._tokens.items()}
        return re.sub(r"@\d+@", lambda token: names[token[0]], text)


def simulated(made: Plan, machine: Machine) -> Simulation:
    timer = Timer(
        machine=machine,
        library=load_library(default_library(machine)),
        correction=load_correction(),
    )
    return simulate(made, timer)


def told(made: Plan, machine: Machine) -> tuple[dict[str, str], str]:
    """What is said of a plan: texts in which names stand, and one in which none does."""
    found = simulated(made, machine)
    document = plan_document(made, found, Ceilings(flop_per_s=1e12, bytes_per_s=1e11))
    console = Console(width=100, record=True, quiet=True)
    training = Training(images=1, epochs=1, days=1.0, days_interval=found.step_interval)
    console.print(simulation_tables(found, made.spec, training))
    named = {
        "simulation": json_text(simulation_document(found, made.spec, training).document()),
        "document": json_text(document.document()),
        "trace": json_text(chrome_trace([Clock(name="simulated", plan=made, trace=found.trace)])),
        "figures": str(
            [
                figure.to_json()
                for figure in Subject(name="it", kind="plan", document=document).figures().values()
            ]
        ),
        "memory": str([alive_table(device) for device in document.memory.devices]),
        "traffic": str(traffic_table(document)),
    }
    return named, console.export_text()


@pytest.mark.parametrize("name", SPECS)
def test_a_plan_of_opaque_names_is_timed_and_reported_alike(name: str) -> None:
    machine, choices = SPECS[name]
    network = load_network("alexnet-2012" if choices.get("gpus") == 2 else "alexnet-owt")
    made = plan(PlanSpec(network=network, batch_size=128, **choices))
    opaque = Opaque(buffers=True)
    named, text = told(made, load_machine(machine))
    named_so, text_so = told(opaque.plan(made), load_machine(machine))
    assert text_so == text
    for what, known in named.items():
        assert opaque.restored(named_so[what]) == known, what


@pytest.mark.parametrize("name", ["tiny", "lenet-5"])
def test_a_plan_of_opaque_names_computes_alike(name: str, tmp_path: Path) -> None:
    if name == "tiny":
        (tmp_path / "tiny.py").write_text(SOURCE)
        spec = PlanSpec(network=load_network(f"{tmp_path / 'tiny.py'}:net"), batch_size=4)
    else:
        network = load_network(name)
        spec = PlanSpec(network=network, batch_size=4, partition="hybrid", gpus=2)
    made = plan(replace(spec, backend="aten"))
    opaque = Opaque(buffers=False)
    images = torch.randn(4, *spec.network.input_shape, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(4) % spec.network.classes
    found = []
    for one in (made, opaque.plan(made)):
        executor = Executor(one)
        executor.initialise()
        executor.record()
        for step in range(2):
            executor.step(images, labels, step=step, hyperparameters=Hyperparameters())
        losses = executor.evaluate(images, labels).losses
        assert losses is not None
        spans = (replace(span, start_s=0.0, end_s=0.0) for span in executor.trace().spans)
        found.append((losses.tolist(), opaque.restored(str(tuple(spans)))))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["columns", "replicas", "hybrid"])
def test_what_earlier_versions_said_in_names_is_read(name: str) -> None:
    machine, choices = load_machine(SPECS[name][0]), SPECS[name][1]
    network = load_network("alexnet-2012" if name == "columns" else "alexnet-owt")
    made = plan(PlanSpec(network=network, batch_size=128, **choices))
    known = plan_document(
        made, simulated(made, machine), Ceilings(flop_per_s=1.0, bytes_per_s=1.0)
    ).document()
    earlier = copy.deepcopy(known)
    records = [*earlier["spans"]["simulated"], *earlier["exchanges"]]
    records += [one for device in earlier["memory"]["devices"] for one in device["alive_at_peak"]]
    for record in records:
        for key in ("label", "activity", "kind", "layer", "exchange", "device_index"):
            record.pop(key, None)
    assert earlier != known
    assert complete(read(PlanDocument, earlier, "it")).document() == known
