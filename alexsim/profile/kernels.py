"""Figures of the Triton kernels' machine code, from a process that compiles without a GPU those
that are not on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from alexsim.errors import AlexsimError
from alexsim_kernels.code import KernelCode


def compile_kernels(
    arch: int,
    precisions: Sequence[str],
    *,
    done: Callable[[int, int], None] = lambda *_: None,
) -> tuple[KernelCode, ...]:
    """What every op compiles to for one architecture; in all precisions if none is named.

    ``done`` gets the number of compiled ops and of all ops.

    Raises:
        AlexsimError: a kernel did not compile.
    """
    command = [sys.executable, "-m", "alexsim_kernels.compiled", "--arch", str(arch)]
    for precision in precisions:
        command += ["--precision", precision]
    # Kernels are compiled or interpreted in a process, never both.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    kernels = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            code = json.loads(line)
            done(code.pop("done"), code.pop("all"))
            del code["recorded"]
            kernels.append(KernelCode(**code))
        problem = child.stderr.read()
    if child.returncode:
        last = problem.strip().splitlines()[-1:] or ["no message"]
        where = f" after {kernels[-1].op}" if kernels else ""
        raise AlexsimError(f"sm_{arch}: a kernel did not compile{where}: {last[0]}")
    return tuple(kernels)
