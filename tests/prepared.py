"""Processes of alexsim that begin in a moment: forked from one that has imported torch and alexsim.

To import is most of what a short run takes, and a test of processes begins several. ``Popen`` and
``run`` are those of ``subprocess``, for ``python -m alexsim`` alone. A process that is begun so is
a child of the caller's like any other, with its pipes, environment, working directory and signals;
the other ranks that it begins are forked from itself. What is measured of the machine is the same
made-up figure for all.

What is of the interpreter (its start, its settings in the environment, what it imports) is not
tried so: `tests/test_ranks.py` and others begin real processes too, by ``subprocess``.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

COMMAND = (sys.executable, "-m", "alexsim")
_AT_START = ("OMP_", "MKL_", "TORCH_", "PYTHON", "LD_", "TRITON_")
"""Variables that are read once, when an interpreter or a library begins."""
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36
_IMPORTED = (
    "torch.distributed", "alexsim.cli.train", "alexsim.cli.train_resume", "alexsim.train.loop",
    "alexsim.train.run_profile", "alexsim.execute.bind_native", "alexsim.data.images",
    "alexsim.documents.profile", "alexsim.documents.training", "alexsim.report.chrome_trace",
    "alexsim.simulate.simulator", "alexsim.train.launch", "alexsim.processes.world",
    "alexsim.cli.train_watch", "rich.progress", "rich.live", "rich.spinner", "numpy.ma",
    "numpy.ctypeslib", "pydantic.type_adapter", "multiprocessing.popen_spawn_posix",
)  # fmt: skip


def _prctl(option: int, value: object) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Popen(subprocess.Popen):
    """``subprocess.Popen`` of ``python -m alexsim ...``, forked from the prepared process."""

    def _execute_child(  # noqa: PLR0917  (subprocess's signature)
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest,
    ) -> None:  # fmt: skip
        words = [os.fspath(word) for word in args]
        if tuple(words[:3]) != COMMAND or preexec_fn or shell or pass_fds:
            raise ValueError(f"only {' '.join(COMMAND)} is prepared")
        streams = [p2cread, c2pwrite, errwrite]
        inherited = [number if s == -1 else s for number, s in enumerate(streams)]
        where = str(cwd or Path.cwd())
        self.pid = self._begin(words[3:], inherited, where, dict(env or os.environ))
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _begin(self, words: list[str], streams: list[int], cwd: str, env: dict[str, str]) -> int:
        return _prepared().begin(words, streams, cwd, env)


def run(*args: Any, capture_output: bool = False, **options: Any) -> Any:
    """``subprocess.run`` likewise, without ``input``."""
    timeout, check = options.pop("timeout", None), options.pop("check", False)
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(*args, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def ranks_of(process: int) -> list[int]:
    """Ranks that a process has begun, in order.

    Told by their environment, or their name where they were forked: any child between ``fork`` and
    ``exec``, a compiler's also, has its parent's command line.
    """
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(pid) for pid in children if _is_a_rank(Path(f"/proc/{pid}"))]


def _is_a_rank(process: Path) -> bool:
    # It may have ended meanwhile.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        environment = (process / "environ").read_bytes().split(b"\0")
        named = (process / "comm").read_text().startswith("rank-")
        return named or any(line.startswith(b"RANK=") for line in environment)
    return False


# --- the prepared process, and this side of it ----------------------------------------------------


class _Prepared:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._environment = _at_start(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self._socket.close()
        self._process.wait()

    def begin(self, words: list[str], streams: list[int], cwd: str, env: dict[str, str]) -> int:
        if _at_start(env) != self._environment:
            raise ValueError(f"read when an interpreter begins: {', '.join(_AT_START)}")
        request = json.dumps({"words": words, "cwd": cwd, "env": env}).encode()
        # Whose parent has gone becomes the child of its nearest ancestor that asks for it.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        try:
            socket.send_fds(self._socket, [request], streams)
            answer = self._socket.recv(64)
        finally:
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        if not answer:
            raise RuntimeError("the prepared process has ended")
        return int(answer)


def _at_start(env: Any) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_AT_START)}


@functools.cache
def _prepared() -> _Prepared:
    return _Prepared()


class _Forked(Popen):
    """Of the ranks that a prepared process begins: forked from itself."""

    def _begin(self, words: list[str], streams: list[int], cwd: str, env: dict[str, str]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            return pid
        code = 1
        try:
            _become(streams, cwd, env)
            _main(words)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Answer requests; None where there are no more, and in a forked process its request."""
    while True:
        request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not request:
            return None
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            between = os.getpid()
            forked = os.fork()
            if forked:
                os.write(writing, str(forked).encode())
                os._exit(0)
            # Whoever asks for its parent must see the one that stays.
            while os.getppid() == between:
                time.sleep(0.0005)
            os.closerange(3, min(streams))
            return json.loads(request) | {"streams": streams}
        os.waitpid(between, 0)
        connection.send(os.read(reading, 64))
        for descriptor in (reading, writing, *streams):
            os.close(descriptor)


def _become(streams: list[int], cwd: str, env: dict[str, str]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=size, errors=errors, closefd=False)  # noqa: SIM115
        for number, mode, size, errors in (
            (0, "r", -1, "strict"), (1, "w", -1, "strict"), (2, "w", 1, "backslashreplace"),
        )
    )  # fmt: skip
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[0] = cwd
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if rank := env.get("RANK"):
        _prctl(_PR_SET_NAME, f"rank-{rank}".encode())


def _main(words: list[str]) -> None:
    sys.argv = ["alexsim", *words]
    runpy.run_module("alexsim", run_name="__main__", alter_sys=True)


def _prepare() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    from alexsim.cli.app import the_command
    from alexsim.profile.step_profile import Ceilings
    from alexsim.train import launch, run_profile

    the_command()
    run_profile.ceilings = lambda *_: Ceilings(
        flop_per_s=1e11, bf16_flop_per_s=None, bytes_per_s=1e10
    )
    launch.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": _Forked})
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "threads do not survive a fork"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prepare()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        _become(asked["streams"], asked["cwd"], asked["env"])
        _main(asked["words"])
