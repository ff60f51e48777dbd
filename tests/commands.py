"""Commands run here: to begin a process and import torch is most of what a short run takes.

What needs a process of its own begins one: devices in processes, signals, limits, ends.
"""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

import pytest

from alexsim.cli.app import main


def here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What a command prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(words)
    code = int(ended.value.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
