"""``alexsim profile``: where a step's time, FLOPs and bytes go, measured and predicted."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alexsim.command import complete, fields
from alexsim.command import options as shared
from alexsim.command import output as files
from alexsim.command.answer import Given, give
from alexsim.command.fields import flag, option, written_to
from alexsim.command.options import MachineOptions, TraceOptions
from alexsim.command.plan_options import KernelOptions, PlanOptions, RuleOptions, layer_of
from alexsim.errors import AlexsimError

if TYPE_CHECKING:
    from alexsim.profile.profiler import Underlay
    from alexsim.profile.step_profile import StepProfile


_SNAPSHOT = "for pytorch.org/memory_viz"


@dataclass(frozen=True, kw_only=True)
class ProfileOptions(PlanOptions, RuleOptions, KernelOptions, TraceOptions, MachineOptions):
    """What is measured, and how."""

    layer: str = option(
        "LAYER", "Only this layer, pass by pass.", "", autocompletion=complete.layers
    )
    layers: bool = flag("Also show all layers, and of a PyTorch module its groups.")
    rounds: int = option("N", "Steps with timing, and as many without.", 5)
    snapshot: Path | None = written_to(
        "Write the step's memory as a snapshot for pytorch.org/memory_viz (a pickle).",
        *(".pickle", ".pkl"),
    )
    torch_profiler: bool = flag("Lay one step of torch.profiler under the trace as well.")
    no_beside: bool = flag("Not beside eager and compiled PyTorch, on the module of --net.")
    output: Path | None = written_to(
        "Keep it all, for `alexsim report`.", ".json", names="-o --output"
    )


def profile(context: typer.Context, options: ProfileOptions) -> None:
    """Measure every op of a step on this machine.

    Beside it stand the op's counts, another machine's time and, of a PyTorch module, eager's and
    torch.compile's. Timing costs time: steps with and without it take turns.

    Example: alexsim profile --layer conv1 --machine gtx580x2

    Example: alexsim profile --rounds 10 --trace step.json.gz --snapshot memory.pickle
    """
    from alexsim.command.run_options import chosen_backend, kernels_text, say
    from alexsim.documents.profile import profile_document
    from alexsim.editions.load import load_network
    from alexsim.machine.machine import load_machine
    from alexsim.network.not_run import refuse_not_run
    from alexsim.page.figures import step_figures
    from alexsim.plan.planner import plan
    from alexsim.profile.beside import is_wanted
    from alexsim.report.profile import profile_tables
    from alexsim.simulate.simulator import on_machine

    if options.json:
        fields.refuse(context, "is for the tables: --json has all", "layers")
    if options.layer:
        fields.refuse(context, "goes without --layer: that layer is shown alone", "layers")
    if options.torch_profiler and options.trace is None:
        raise AlexsimError("--torch-profiler goes under a trace: give --trace FILE too")
    cores = options.cores()
    network = load_network(options.net)
    refuse_not_run(network)
    layer = options.layer
    if layer:
        layer = layer_of("--layer", layer, tuple(each.name for each in network.layers))
    device = options.device_here()
    faster = options.faster_by_triton([network], options.batch)
    backend = chosen_backend(options.backend, device, say)
    spec = replace(options, backend=backend, threads=cores).plan_spec(triton_ops=faster)
    # The machine has kernels and buffers of its own.
    theirs = replace(spec.counted, policy="as-released", fusion="none")
    simulation = on_machine(theirs, load_machine(options.machine))
    planned = plan(spec)
    beside = is_wanted(network, options.net, without=options.no_beside, note=say)
    if text := kernels_text(planned):
        say(text)
    # torch.profiler's library writes to stderr that it started and stopped.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    import torch

    from alexsim.profile.profiler import Underlay
    from alexsim.profile.profiler import profile as run
    from alexsim.profile.rivals import PREPARATIONS, rivals_of

    torch.set_num_threads(cores)
    rounds, under = options.rounds, Underlay() if options.torch_profiler else None
    rivals = None
    if beside:
        with shared.counting("PyTorch's first steps, torch.compile", PREPARATIONS) as done:
            rivals = rivals_of(planned, device, done)
    with shared.counting("profiling", rounds) as done:
        measured = run(
            planned, simulation, device=device, rounds=rounds, underlay=under, rivals=rivals,
            done=done,
        )  # fmt: skip
    _write(measured, under, options)
    give(
        options,
        Given(
            document=lambda: profile_document(measured, only=layer),
            tables=lambda width: profile_tables(
                measured, layer, width=width, layers=options.layers
            ),
            figures=lambda: step_figures(profile_document(measured)),
        ),
    )


def _write(measured: StepProfile, under: Underlay | None, options: ProfileOptions) -> None:
    """The files that were asked for."""
    from alexsim.documents.profile import profile_document
    from alexsim.report.chrome_trace import both_clocks
    from alexsim.report.memory_viz import snapshot_bytes

    if options.trace is not None:
        clocks = both_clocks(measured, under.events if under else ())
        files.write_trace(options.trace, clocks, "measured and predicted step")
    if options.snapshot is not None:
        files.write_bytes(
            options.snapshot, snapshot_bytes(measured.plan), "for pytorch.org/memory_viz"
        )
    if options.output is not None:
        files.write_text(options.output, files.json_text(profile_document(measured)), "all of it")
