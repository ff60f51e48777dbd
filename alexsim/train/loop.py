"""Training: what a run begins with, from settings or from a checkpoint, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from alexsim.data.dataset import Dataset
from alexsim.data.discover import discover
from alexsim.data.images import worker_pool
from alexsim.data.interrupt import Interrupt
from alexsim.data.loader import Loader
from alexsim.data.sources.listing import left_out_lines
from alexsim.data.statistics import Statistics, statistics
from alexsim.editions.load import load_network
from alexsim.processes.world import World
from alexsim.train.checkpoint import NoDirectory, RunDirectory
from alexsim.train.config import common, config_of, same_data
from alexsim.train.engine import Engine, refuse_what_does_not_fit
from alexsim.train.feed import Feed, shared_statistics
from alexsim.train.initial import initialised
from alexsim.train.module_state import begun_from_module
from alexsim.train.progress import Progress
from alexsim.train.run import Run
from alexsim.train.settings import (
    TrainResult,
    TrainSettings,
    Watcher,
)
from alexsim.train.weights import Weights, load_weights


def train(
    settings: TrainSettings,
    run_dir: Path,
    *,
    resume: bool,
    dataset: Dataset | None = None,
    watch: Watcher | None = None,
    world: World | None = None,
) -> TrainResult | None:
    """Train, or go on where the newest checkpoint stands; the first process has the result.

    Args:
        settings: what was asked for.
        run_dir: where the run is kept.
        resume: whether it goes on.
        dataset: the images in ``settings.data``, where they are listed already.
        watch: callbacks for whoever shows progress.
        world: the processes that train together.

    Raises:
        MemoryBudgetError: the plan does not fit.
        DataError: the data cannot be used, or too many files are broken.
        RunError: the run directory cannot be written or resumed.
        TrainingError: the loss is no longer a number; the last checkpoint stays.
    """
    watch, world = watch or Watcher(), world or World()
    torch.set_num_threads(settings.threads)
    network = load_network(settings.network)
    refuse_what_does_not_fit(settings)
    if dataset is None:
        dataset = discover(Path(settings.data), most_classes=network.classes)
    for line in left_out_lines(dataset.left_out):
        watch.note(line)
    config = config_of(settings, dataset)
    world.refuse_differences(common(config))
    directory = RunDirectory(run_dir) if world.first else NoDirectory(run_dir)
    if not resume:
        with directory.created(config):
            return _trained(settings, dataset, directory, watch, world)
    if world.first:
        same_data(directory, dataset, watch)
    return _trained(settings, dataset, directory, watch, world)


def _trained(
    settings: TrainSettings,
    dataset: Dataset,
    directory: RunDirectory,
    watch: Watcher,
    world: World,
) -> TrainResult | None:
    """Train in a directory that is there."""
    network, recipe = load_network(settings.network), settings.recipe
    with (
        contextlib.closing(Engine(settings, world)) as engine,
        _pool(settings.workers) as pool,
        Interrupt() as interrupt,
    ):
        progress = Progress(
            recipe=recipe,
            batch_size=settings.batch_size,
            images=len(dataset.train),
            held_out=len(dataset.held_out),
        )
        channels, crop_side = network.input_shape[0], network.input_shape[1]
        begun = directory.newest_checkpoint() is not None
        initial = None
        if settings.init_from and world.first and not begun:
            initial = load_weights(Path(settings.init_from))
        measured = directory.statistics()
        if measured is None and world.first:
            measured = dataset.known(crop_side, channels) or _measure(
                dataset, crop_side, channels, pool, watch
            )
            if initial is not None and initial.mean is not None:
                # Its layers have learnt from images less this mean.
                measured = replace(measured, mean=initial.mean)
            directory.save_statistics(measured)
        measured = shared_statistics(world, measured, crop_side, channels)
        done = _restore(engine, directory, progress, initial)
        directory.ask_for(settings.steps)
        loader = Loader(
            dataset,
            measured,
            recipe.preparation,
            batch_size=settings.batch_size,
            crop_side=crop_side,
            seed=settings.seed,
            pool=pool,
            order=settings.order,
            part=world.part,
        )
        share = settings.batch_size // world.part[1]
        feed = Feed(
            loader,
            world,
            shape=(share, crop_side, crop_side, channels),
            held_out=progress.held_out,
            batch_size=settings.batch_size,
        )
        run = Run(engine, feed, loader, progress, directory, watch, interrupt)
        run.steps(done)
        held_out = run.evaluate() if progress.held_out and not run.stopping else None
        return run.result(held_out)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = worker_pool(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _measure(
    dataset: Dataset, crop_side: int, channels: int, pool: ProcessPoolExecutor, watch: Watcher
) -> Statistics:
    def progress(done: int, total: int) -> None:
        watch.preparing("Mean image", done, total)

    return statistics(dataset.train, crop_side, channels, pool, progress)


def _restore(
    engine: Engine, directory: RunDirectory, progress: Progress, initial: Weights | None
) -> int:
    """Load the newest checkpoint, or begin; steps done."""
    newest, world = directory.newest_checkpoint(), engine.world
    done, state = directory.load_checkpoint(newest) if newest else (0, None)
    known = torch.tensor([done, state is not None, initial is not None], dtype=torch.int64)
    done, resumed, begun_elsewhere = (
        int(number) for number in world.broadcast(known, patient=True)
    )
    engine.enter(progress.stage(done))
    if resumed:
        engine.load(state or {})
    else:
        engine.executor.initialise()
    network = load_network(engine.settings.network)
    if network.module is not None and not (resumed or begun_elsewhere):
        state = engine.executor.state()
        engine.load(begun_from_module(state, network) if world.first else {})
        directory.save_checkpoint(0, engine.executor.state())
    if begun_elsewhere:
        drawn = engine.executor.state()
        engine.load(initialised(drawn, initial, engine.settings) if initial else {})
        # What it began from may change or go before the first checkpoint.
        directory.save_checkpoint(0, engine.executor.state())
    directory.rewind_metrics(done)
    return done
