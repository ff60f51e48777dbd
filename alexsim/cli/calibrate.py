"""``alexsim check calibrate``: measure this machine, so that it can be simulated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from alexsim.cli.plan_options import ColumnOptions
from alexsim.command import options as shared
from alexsim.command.fields import AT_ONCE, option, whole_numbers
from alexsim.command.options import NetOptions
from alexsim.command.output import check_file, print_json, write_text
from alexsim.errors import AlexsimError


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(NetOptions, ColumnOptions):
    """What is measured."""

    batches: str = option("N,N,...", "Batch sizes to measure.", "16,64,160")
    check: str = option(
        "N,N,...",
        "Also measure these, in turns with the others, and compare with what is predicted for"
        " them.",
        "",
    )
    rounds: int = option("N", "Steps at every batch size.", 5)
    threads: int | None = option("N", "CPU threads. Default: all cores.", rules=AT_ONCE)
    output: Path | None = option(
        "FILE", "Default: where `--library measured` looks.", names="-o --output"
    )


def calibrate(options: CalibrateOptions) -> None:
    """Measure this machine, to simulate it.

    Every op of a training step, for `alexsim simulate --library measured`; and what this machine
    can do at best: products and convolutions over shapes, memory, the overhead of an op, decoding
    JPEGs.

    Example: alexsim check calibrate --check 32,128 --rounds 10
    """
    from alexsim.documents.calibration import calibration_document
    from alexsim.editions.load import load_network
    from alexsim.report.calibration import calibration_tables
    from alexsim.simulate.costs.measured import default_path, machine_of, write

    batches, output, rounds = options.batches, options.output, options.rounds
    taught = whole_numbers("--batches", batches)
    asked = whole_numbers("--check", options.check) if options.check else []
    if len(set(taught)) < 2:
        raise AlexsimError(f"--batches needs at least two batch sizes, got {batches!r}")
    if both := sorted(set(taught) & set(asked)):
        raise AlexsimError(f"--check must differ from --batches; both have {both[0]}")

    if output and output.suffix != ".json":
        raise AlexsimError(f"-o must name a .json file, got {output}")
    # Before the minutes of measuring, not after them.
    path = output or default_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlexsimError(f"cannot write {path}: {error.strerror}") from error
    check_file(path)

    import torch

    from alexsim.profile.calibrate import Bench
    from alexsim.profile.calibrate import calibrate as run
    from alexsim.profile.calibrate import check as compare
    from alexsim.profile.throughput import data_rates
    from alexsim.simulate.costs.correction import UNFITTED
    from alexsim.simulate.costs.libraries import load_library
    from alexsim.simulate.simulator import simulate
    from alexsim.simulate.timer import Timer

    cores = options.threads or os.cpu_count() or 1
    torch.set_num_threads(cores)
    network = load_network(options.net)
    bench = Bench(
        network, [*taught, *asked], gpus=options.gpus, policy=options.policy, schedule="serial"
    )
    with shared.counting(f"measuring {len(taught) + len(asked)} batch sizes", rounds) as done:
        calibration, measured = run(
            bench,
            taught,
            rounds=rounds,
            threads=cores,
            others=asked,
            data=data_rates(network.input_shape[1], network.input_shape[0]),
            done=done,
        )
    write_text(path, write(calibration))
    timer = Timer(
        machine=machine_of(calibration),
        library=load_library("measured"),
        correction=UNFITTED,
        calibration=calibration,
    )
    checks = []
    for batch in asked:
        predicted = simulate(bench.plans[batch], timer, data="none")
        checks += compare(bench.plans[batch], predicted, measured[batch])
    if options.json:
        print_json(calibration_document(calibration, checks, path=str(path)))
        return
    shared.console().print(calibration_tables(calibration, checks, str(path)))
