"""From a run's directory to the settings with which it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alexsim.builtin.sets import set_in
from alexsim.cli.train_options import TrainOptions
from alexsim.cli.train_settings import apart_anyway, replicated, steps_wanted
from alexsim.command.run_options import chosen_backend
from alexsim.data.dataset import Dataset
from alexsim.data.discover import discover
from alexsim.editions.load import load_network
from alexsim.errors import RunError
from alexsim.plan.planner import plan
from alexsim.processes.world import Place, World, attempt, launch
from alexsim.train import built_in
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.config import launched_as, refuse_other_run
from alexsim.train.copies import replicas_of
from alexsim.train.settings import HeldOutLine, TrainSettings, Watcher


def resumed(
    options: TrainOptions, run_dir: Path, watch: Watcher, place: Place | None
) -> tuple[TrainSettings, Dataset]:
    """Settings of a stopped run, with more steps or other processes if asked for; its images.

    Raises:
        AlexsimError: an option is out of range.
        RunError: the directory holds no run, or one that is finished.
    """
    stored = _divided(options, RunDirectory(run_dir).config().settings, watch, place)
    apart = apart_anyway(options, place)
    if (stored.strict and (apart or stored.partition == "hybrid")) or (stored.graph and apart):
        watch.note(
            "without --strict and --graph from here on: neither goes with other processes, nor"
            " --strict with a hybrid plan"
        )
        stored = replace(stored, strict=False, graph=False)
    by = "triton" if stored.triton_ops else stored.backend
    chosen_backend(by, stored.device, watch.note)
    if not Path(stored.data).is_dir():
        data = Path(stored.data)
        builtin = set_in(data.name) if data.parent == built_in.cache() else None
        if builtin is None:
            raise RunError(f"{run_dir}: its data folder {stored.data} is gone")
        built_in.drawn(builtin, watch)
    if options.threads not in (None, stored.threads):
        watch.note(
            f"{options.threads} threads instead of {stored.threads}: weights may differ in the last"
            " bits"
        )
        stored = replace(stored, threads=options.threads or stored.threads)
    classes = load_network(stored.network).classes
    images = discover(Path(stored.data), most_classes=classes)
    stored = replace(stored, steps=steps_wanted(options, stored, len(images.train)))
    _refuse_what_is_done(run_dir, stored, images)
    return stored, images


def _divided(
    options: TrainOptions, stored: TrainSettings, watch: Watcher, place: Place | None
) -> TrainSettings:
    """The settings with other GPUs, replicas or another partition, if that was asked for."""
    split = options.partition or stored.partition
    network = load_network(stored.network)
    if split == "columns":
        options = replicated(options, network, place)
    columns = options.gpus or stored.gpus
    if options.gpus is None and split == "hybrid" and place:
        columns = place.size
    elif options.gpus is None and split == "columns" != stored.partition:
        columns = network.columns
    made = plan(network, gpus=columns, partition=split, batch_size=stored.batch_size)
    copies = replicas_of(options.replicas, made, place, processes=options.processes)
    if (split, columns, copies) == (stored.partition, stored.gpus, stored.replicas):
        return stored
    watch.note(
        f"{copies} x {columns} GPUs ({split}) instead of {stored.replicas} x {stored.gpus}"
        f" ({stored.partition}): weights may differ in the last bits"
    )
    variable = stored.variable_batch and split == "hybrid"
    if variable != stored.variable_batch:
        watch.note("no variable batch from here on: it needs --partition hybrid")
    if split == "hybrid" and stored.triton_ops:
        watch.note("no ops by Triton's kernels from here on: they run no hybrid plan")
        stored = replace(stored, triton_ops=())
    return replace(stored, gpus=columns, replicas=copies, partition=split, variable_batch=variable)


def _refuse_what_is_done(run_dir: Path, settings: TrainSettings, images: Dataset) -> None:
    """Refuse to go on with what is at its end; a run that was stopped before its last test may."""
    directory = RunDirectory(run_dir)
    done, wanted = directory.steps_done(), settings.steps
    tested = any(
        isinstance(line, HeldOutLine) and line.step == done for line in directory.metrics()
    )
    if done > wanted or (done == wanted and (tested or not images.held_out)):
        raise RunError(
            f"{run_dir}: {done} steps are done, {wanted} were asked for; it goes on for more than"
            f" {done} (--steps N or --epochs N)"
        )


def restarted(settings: TrainSettings, run_dir: Path, world: World) -> bool:
    """Whether torchrun began the processes again: then they go on.

    An agent counts only the failures of its own processes, so any of them may know; after another
    agent's, a run is known by what torchrun calls it.
    """
    failed = world.any(attempt() > 0)
    stored = launched_as(run_dir) if world.first else None
    again = stored is not None and (failed or (bool(launch()) and stored == launch()))
    why = ""
    if again:
        try:
            refuse_other_run(run_dir, settings)
        except RunError as error:
            why = str(error)
    told = world.each({"again": again, "why": why})[0]
    if told["why"]:
        raise RunError(told["why"])
    return bool(told["again"])
