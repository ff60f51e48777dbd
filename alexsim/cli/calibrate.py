"""``alexsim calibrate``: measure this machine, so that it can be simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import options


def calibrate(
    net: options.Net = "alexnet-2012",
    gpus: options.ColumnGpus = None,
    policy: options.Policy = "as-released",
    batches: Annotated[
        str,
        typer.Option("--batches", metavar="N,N,...", help="Batch sizes to measure."),
    ] = "16,64,160",
    check: Annotated[
        str,
        typer.Option(
            "--check",
            metavar="N,N,...",
            help="Also measure these, in turns with the others, and compare with what is predicted"
            " for them.",
        ),
    ] = "",
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", help="Steps at every batch size.")
    ] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="CPU threads. Default: all cores.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Default: where `--library measured` looks."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Time every op of a training step here, for `alexsim simulate --library measured`.

    Also measures what this machine can do at best: products and convolutions over shapes, memory,
    the overhead of an op, decoding JPEGs.

    Example: alexsim calibrate --check 32,128 --rounds 10
    """
    import os

    from alexsim.cli.output import check_file, print_json, write_text
    from alexsim.cli.parse import MOST_AT_ONCE, as_policy, positive, whole_numbers
    from alexsim.errors import AlexsimError
    from alexsim.network.editions import load_network
    from alexsim.simulate.costs.measured import default_path, machine_of, write

    positive("--rounds", rounds)
    if threads is not None:
        positive("--threads", threads, most=MOST_AT_ONCE)
    taught = whole_numbers("--batches", batches)
    asked = whole_numbers("--check", check) if check else []
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
    from alexsim.simulate.tasks import Timer

    cores = threads or os.cpu_count() or 1
    torch.set_num_threads(cores)
    network = load_network(net)
    bench = Bench(
        network, [*taught, *asked], gpus=gpus, policy=as_policy(policy), schedule="serial"
    )
    with options.counting(f"measuring {len(taught) + len(asked)} batch sizes", rounds) as done:
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
    if json:
        from alexsim.report.documents.calibration import calibration_document

        print_json(calibration_document(calibration, checks, path=str(path)))
        return
    from alexsim.report.calibration import calibration_tables

    options.console().print(calibration_tables(calibration, checks, str(path)))
