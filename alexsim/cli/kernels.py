"""``alexsim check kernels``: what the Triton kernels compile to, without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alexsim.command import options as shared
from alexsim.command.fields import Options, option
from alexsim.command.output import print_json
from alexsim.errors import AlexsimError
from alexsim.execute.choices import PRECISIONS


def _known(given: list[str] | None) -> list[str] | None:
    """Typer's own check is for single words."""
    for name in given or ():
        if name not in PRECISIONS:
            raise AlexsimError(f"--precision must be one of {', '.join(PRECISIONS)}; got {name!r}")
    return given


@dataclass(frozen=True, kw_only=True)
class KernelsOptions(Options):
    """For what is compiled."""

    arch: Literal[75, 80, 86, 89, 90, 100, 120] = option(
        "N", "Compute capability: 75, 80, 86, 89, 90, 100 or 120.", 90
    )
    precision: list[str] | None = option(
        "PRECISION",
        "fp32, fp32x3, tf32, bf16 or fp16; may be given several times. Default: all.",
        callback=_known,
        autocompletion=lambda incomplete: [
            name for name in PRECISIONS if name.startswith(incomplete)
        ],
    )


def kernels(options: KernelsOptions) -> None:
    """Show what every Triton kernel compiles to, without a card.

    Registers, shared memory and spills are read from the machine code, which is not run. What the
    package has on record for this source and this version of Triton comes at once; else each kernel
    takes about a second, the first time.

    Example: alexsim check kernels --arch 90 --precision fp32x3
    """
    from importlib.util import find_spec

    arch = options.arch
    if find_spec("triton") is None:
        raise AlexsimError("Triton is not installed: pip install 'alexsim[triton]'")
    from alexsim.documents.calibration import kernels_document
    from alexsim.profile.kernels import compile_kernels
    from alexsim.report.kernels import kernels_table

    with shared.counting(f"compiling for sm_{arch}", 100) as done:
        compiled = compile_kernels(
            arch, options.precision or [], done=lambda count, ops: done(100 * count // ops)
        )
    if options.json:
        print_json(kernels_document(compiled, arch=arch))
        return
    shared.console().print(kernels_table(compiled, arch=arch))
