"""``alexsim check calibrate``: measure this machine, so that it can be simulated."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.answer import Given, give
from alexsim.command.fields import option, whole_numbers
from alexsim.command.options import NetOptions
from alexsim.command.output import check_file, write_text
from alexsim.command.plan_options import ColumnOptions
from alexsim.command.run_options import PlaceOptions, chosen_backend, say
from alexsim.errors import AlexsimError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alexsim.costs.measured import Calibration
    from alexsim.profile.calibrate import Check
    from alexsim.profile.sittings import Bench, Round


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(NetOptions, ColumnOptions, PlaceOptions):
    """What is measured."""

    batches: str = option("N,N,...", "Batch sizes to measure.", "16,64,160")
    check: str = option(
        "N,N,...",
        "Also measure these, in turns with the others, and compare with what is predicted for"
        " them.",
        "",
    )
    rounds: int = option("N", "Steps at every batch size.", 5)
    rows: Path | None = option(
        "FILE",
        "Write the microbenchmarks, and more of usual sizes, as a table of kernels (.csv).",
        callback=check_file,
    )
    given: str = option(
        "FILE",
        "Measure nothing: show what measured rows of one's own, of the kinds that `alexsim check"
        " validate` takes, make of the shipped fit; `alexsim simulate --given FILE` predicts so.",
        "",
    )
    output: Path | None = option(
        "FILE", "Default: where `--library measured` looks.", names="-o --output"
    )


def calibrate(context: typer.Context, options: CalibrateOptions) -> None:
    """Measure this machine, to simulate it.

    Every op of a training step, for `alexsim simulate --library measured`; and what this machine
    can do at best: products and convolutions over shapes, memory, launches, copies to and from a
    card, sums of gradients, decoding JPEGs.

    Example: alexsim check calibrate --check 32,128 --rounds 10

    Example: alexsim check calibrate --net resnet18 --device cuda --rows h200.csv

    Example: alexsim check calibrate --given h200.csv
    """
    if options.given:
        _given(context, options)
        return
    from alexsim.costs.measured import write
    from alexsim.documents.calibration import calibration_document
    from alexsim.editions.load import load_network
    from alexsim.network.not_run import refuse_not_run
    from alexsim.plan.spec import PlanSpec
    from alexsim.report.calibration import calibration_tables
    from alexsim.report.rows import csv_text

    taught, asked = _batches(options)
    path = _path(options)
    cores, device = options.cores(), options.device_here()
    network = load_network(options.net)
    refuse_not_run(network)

    import torch

    from alexsim.execute.cards import places
    from alexsim.profile.calibrate import calibrate as run
    from alexsim.profile.clock import watched
    from alexsim.profile.microbench import kernel_rows, network_rates, usual_rates
    from alexsim.profile.sittings import Bench
    from alexsim.profile.throughput import data_rates
    from alexsim.profile.transfers import transfer_rates

    places(device, 1)
    backend = chosen_backend(None, device, say)
    torch.set_num_threads(cores)
    with watched(device) as clocks:
        kernels = [*network_rates(network, device), *transfer_rates(device)]
        more = list(usual_rates(device)) if options.rows else []
        images = data_rates(network.input_shape[1], network.input_shape[0])
        spec = PlanSpec(
            network=network, gpus=1 if device == "cuda" else options.gpus, policy=options.policy,
            backend=backend, threads=cores,
        )  # fmt: skip
        bench = Bench(spec, [*taught, *asked], device=device, copies=taught)
        what = f"measuring {len(taught) + len(asked)} batch sizes"
        with shared.counting(what, options.rounds) as done:
            calibration, measured = run(
                bench,
                taught,
                rounds=options.rounds,
                threads=cores,
                rates=[*(kernel.rate for kernel in kernels), *images],
                clocks=clocks,
                done=done,
            )
    write_text(path, write(calibration))
    if options.rows:
        write_text(options.rows, csv_text(kernel_rows([*kernels, *more], calibration)), "kernels")
    checks = _checks(calibration, bench, {batch: measured[batch] for batch in asked})
    answer = Given(
        document=lambda: calibration_document(calibration, checks, path=str(path)),
        tables=lambda _: calibration_tables(calibration, checks, str(path)),
    )
    give(options, answer)


def _given(context: typer.Context, options: CalibrateOptions) -> None:
    """Each given row beside both predictions."""
    from alexsim.costs.correction import load_correction
    from alexsim.documents.given import given_document
    from alexsim.fidelity.given import given
    from alexsim.report.given import given_tables

    names = [field.name for field in fields_of(CalibrateOptions)]
    others = [name for name in names if name not in ("given", "json")]
    fields.refuse(context, "is for measuring, and --given measures nothing", *others)
    conditioned = given(options.given, load_correction())
    answer = Given(
        document=lambda: given_document(conditioned), tables=lambda _: given_tables(conditioned)
    )
    give(options, answer)


def _batches(options: CalibrateOptions) -> tuple[list[int], list[int]]:
    """Batch sizes to measure, and those to predict."""
    taught = whole_numbers("--batches", options.batches)
    asked = whole_numbers("--check", options.check) if options.check else []
    if len(set(taught)) < 2:
        raise AlexsimError(f"--batches needs at least two batch sizes, got {options.batches!r}")
    if both := sorted(set(taught) & set(asked)):
        raise AlexsimError(f"--check must differ from --batches; both have {both[0]}")
    if options.gpus is not None and options.device_here() == "cuda":
        raise AlexsimError("--gpus is for a CPU (--device cpu): one card has all columns")
    return taught, asked


def _path(options: CalibrateOptions) -> Path:
    """Where the calibration goes; refused before the minutes of measuring, not after them."""
    from alexsim.costs.measured import default_path

    output = options.output
    if output and output.suffix != ".json":
        raise AlexsimError(f"-o must name a .json file, got {output}")
    if options.rows and options.rows.suffix != ".csv":
        raise AlexsimError(f"--rows must name a .csv file, got {options.rows}")
    path = output or default_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlexsimError(f"cannot write {path}: {error.strerror}") from error
    check_file(path)
    return path


def _checks(
    calibration: Calibration, bench: Bench, measured: Mapping[int, Sequence[Round]]
) -> list[Check]:
    """What the calibration predicts of batch sizes that it has not seen, beside their rounds."""
    from alexsim.costs.correction import UNFITTED
    from alexsim.costs.libraries import load_library
    from alexsim.costs.measured import machine_of
    from alexsim.profile.calibrate import check
    from alexsim.simulate.simulator import simulate
    from alexsim.simulate.timer import Timer

    timer = Timer(
        machine=machine_of(calibration),
        library=load_library("measured"),
        correction=UNFITTED,
        calibration=calibration,
    )
    checks = []
    for batch, rounds in measured.items():
        predicted = simulate(bench.plans[batch], timer, data="none")
        checks += check(bench.plans[batch], predicted, rounds)
    return checks
