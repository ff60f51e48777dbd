"""``alexsim check fit``: fit the cost models to measured kernels and published figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.fields import AT_ONCE, REQUIRED, Options, flag, option
from alexsim.command.output import print_json, write_bytes, write_text
from alexsim.errors import AlexsimError


@dataclass(frozen=True, kw_only=True)
class FitOptions(Options):
    """To what, and where the fit goes."""

    kernels: str = option("FILE", "CSV file of measured kernels, plain or gzipped.", REQUIRED)
    networks: str = option(
        "FILE,...",
        "CSV files of figures of layers or whole networks; `published` are those that ship.",
        "published",
    )
    output: Path = option("DIR", "Where fit.npz and fit.json go.", REQUIRED, names="-o --output")
    leave_out: bool = flag(
        "Also fit without each card, generation, source and library in turn, as the card and the"
        " intervals need; or fit only.",
        True,
        names="--leave-out/--no-leave-out",
    )
    workers: int | None = option(
        "N", "Processes that leave out. Default: all cores.", rules=AT_ONCE
    )


def fit(context: typer.Context, options: FitOptions) -> None:
    """Fit the cost models to measured kernels and published figures.

    Boosted trees from measured kernels, coefficients from published figures of one GPU (never a
    GTX 580's), and the errors of fits that had not seen what they predict. Equal files give equal
    bits. What ships was made so.

    Example: alexsim check fit --kernels kernels.csv.gz --networks published,networks.csv.gz -o fit
    """
    import os

    from alexsim.documents.fit import fit_document
    from alexsim.fidelity.fit_files import correction_bytes
    from alexsim.fidelity.fitting import fit_everything
    from alexsim.fidelity.kernel_rows import read_kernels
    from alexsim.fidelity.left_out import SCOPES
    from alexsim.fidelity.row_files import digest, read_rows
    from alexsim.fidelity.validation import cases
    from alexsim.report.validation import left_out_table

    if not options.leave_out:
        fields.refuse(context, "is for leaving out: one process fits", "workers")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlexsimError(f"cannot write {options.output}: {error.strerror}") from error
    files = [options.kernels, *options.networks.split(",")]
    data = {Path(f).name: digest(f) for f in files}
    taught, _ = cases(row for file in files[1:] for row in read_rows(file))
    workers = options.workers or os.cpu_count() or 1
    scopes = SCOPES if options.leave_out else ()
    with shared.counting("fitting, each thing left out in turn", 1) as done:
        correction = fit_everything(
            read_kernels(options.kernels), taught, data, workers=workers, scopes=scopes, done=done
        )
    arrays, card = correction_bytes(correction)
    write_bytes(options.output / "fit.npz", arrays, "the fit's coefficients and trees")
    write_text(options.output / "fit.json", card, "its card: what it was fitted to, and its errors")
    if options.json:
        print_json(fit_document(correction.card, path=str(options.output)))
        return
    shared.console().print(left_out_table(correction.card), soft_wrap=True)
