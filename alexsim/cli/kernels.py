"""``alexsim kernels``: what the Triton kernels compile to, without a GPU."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

ARCHITECTURES = (80, 90)


def kernels(
    arch: Annotated[
        int, typer.Option("--arch", metavar="N", help="Compute capability: 80 or 90.")
    ] = 90,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="fp32, fp32x3, tf32, bf16 or fp16; may be given several times. Default: all.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Compile every Triton kernel for a card, and show registers, shared memory and spills.

    No GPU is needed: the machine code is read, not run. About a minute the first time; what was
    compiled once comes from Triton's cache.

    Example: alexsim kernels --arch 90 --precision fp32x3
    """
    from importlib.util import find_spec

    from alexsim.cli.output import print_json
    from alexsim.errors import AlexsimError

    if arch not in ARCHITECTURES:
        raise AlexsimError(f"--arch must be one of 80, 90; got {arch}")
    if find_spec("triton") is None:
        raise AlexsimError("Triton is not installed: pip install 'alexsim[triton]'")
    from alexsim.cli.parse import choice
    from alexsim.execute.choices import PRECISIONS
    from alexsim.profile.kernels import compile_kernels

    for name in precision or ():
        choice("--precision", name, PRECISIONS)
    with options.counting(f"compiling for sm_{arch}", 100) as done:
        found = compile_kernels(
            arch, precision or [], done=lambda count, ops: done(100 * count // ops)
        )
    if json:
        from alexsim.report.documents.calibration import kernels_document

        print_json(kernels_document(found, arch=arch))
        return
    from alexsim.report.kernels import kernels_table

    options.console().print(kernels_table(found, arch=arch))
