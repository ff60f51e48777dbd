"""Faults at random moments: processes that are killed or stopped, and a link that is cut.

    python tests/benchmarks/faults.py [--times 36] [--seed 0] [--timeout 4]

Needs root and Linux: two network namespaces stand for two machines, each with a torchrun and a
rank. Every run has one fault, of rank 0 or rank 1 in turn; torchrun begins the ranks again. A row
per run: what was named after how long, and whether the run ended with the losses and weights of an
undisturbed one. Exits with 1 if one did not, or if nothing was named in time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from links import ALEXSIM, ENDS, link, sh

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import SOURCE

STEPS = 300
SLACK_S = 3.0
"""Beyond the timeout: to notice, to say it and to end."""
FAULTS = ("kill", "stop", "cut")


@dataclass
class Machine:
    """A namespace's torchrun; what it says, with the time."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line.rstrip()))

    def named(self, since: float) -> list[tuple[float, str]]:
        """What its rank said was wrong, and how long after ``since``."""
        return [(at - since, text) for at, text in self.lines if text.startswith("alexsim: rank")]


def command(net: str, data: Path, to: Path, timeout: float) -> list[str]:
    return [
        "train", "--net", net, "--data", str(data), "--batch", "16", "--gpus", "2", "--threads",
        "1", "--workers", "1", "--steps", str(STEPS), "--checkpoint-every", "20", "--seed", "3",
        "--timeout", f"{timeout:g}", "-o", str(to), "--json",
    ]  # fmt: skip


def begin(net: str, data: Path, to: Path, timeout: float, name: str) -> list[Machine]:
    machines = []
    for index, (space, device, _) in enumerate(ENDS):
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": device, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [
                "ip", "netns", "exec", space, sys.executable, "-m", "torch.distributed.run",
                "--nnodes", "2", "--node-rank", str(index), "--nproc-per-node", "1",
                "--max-restarts", "5", "--monitor-interval", "0.2", "--rdzv-backend", "c10d",
                "--rdzv-id", name, "--rdzv-endpoint", f"{ENDS[0][2]}:29400",
                "--rdzv-conf", f"is_host={1 - index}", "--local-addr", ENDS[index][2],
                "-m", "alexsim", *command(net, data, to, timeout),
            ],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        machines.append(Machine(process))
    return machines


def worker(machine: Machine) -> int:
    """The rank that a torchrun has begun; -1 if there is none now."""
    found = subprocess.run(
        ["pgrep", "-P", str(machine.process.pid), "-f", "alexsim train"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    return int(found.stdout.split()[0]) if found.stdout.split() else -1


def steps_done(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count('"loss"') if metrics.exists() else 0


def disturbed(
    fault: str, victim: int, moment: int, machines: list[Machine], run: Path, timeout: float
) -> float:
    """Wait for the moment, let it happen; when it did."""
    while steps_done(run) < moment:
        if any(machine.process.poll() is not None for machine in machines):
            raise SystemExit("\n".join(text for m in machines for _, text in m.lines))
        time.sleep(0.002)
    if fault == "cut":
        space, device, _ = ENDS[victim]
        sh("ip", "netns", "exec", space, "ip", "link", "set", device, "down")
        at = time.monotonic()
        time.sleep(timeout + SLACK_S + 1)
        sh("ip", "netns", "exec", space, "ip", "link", "set", device, "up")
        return at
    os.kill(worker(machines[victim]), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    return time.monotonic()


def result(machines: list[Machine], within_s: float) -> dict[str, object]:
    """What rank 0 printed at its end."""
    document: dict[str, object] = {}
    for machine in machines:
        try:
            machine.process.wait(within_s)
        except subprocess.TimeoutExpired:
            for one in machines:
                one.process.kill()
            said = [line for one in machines for line in one.lines]
            raise SystemExit("\n".join(f"{at:.1f} {text}" for at, text in sorted(said))) from None
        out = machine.process.stdout
        assert out is not None
        text = out.read()
        if text.strip():
            document = json.loads(text)
    for machine in machines:
        machine.reader.join(5)
    return document


def checkpoint(run: Path) -> bytes:
    (path,) = run.glob("checkpoint-*.safetensors")
    return path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=4)
    given = parser.parse_args()
    drawn, work = random.Random(given.seed), Path(tempfile.mkdtemp())
    failed = 0
    try:
        from alexsim.builtin.textures import TEXTURES

        data = TEXTURES.ensure(work / "drawn")
        (work / "tiny.py").write_text(SOURCE.replace("units=(3, 0)", "units=(10, 0)"))
        net = f"{work / 'tiny.py'}:net"
        whole = work / "whole"
        done = subprocess.run(
            [*ALEXSIM, *command(net, data, whole, given.timeout)],
            check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        expected = json.loads(done.stdout)["losses"]
        print("  run  fault  rank  at step  named after  by and as what")
        for index in range(given.times):
            fault, victim = FAULTS[index % 3], index // 3 % 2
            moment = drawn.randint(2, STEPS - 30)
            with link(1000):
                to = work / f"run-{index}"
                machines = begin(net, data, to, given.timeout, f"run{index}")
                at = disturbed(fault, victim, moment, machines, to, given.timeout)
                document = result(machines, 200)
            said = sorted(one for machine in machines for one in machine.named(at))
            after, line = said[0] if said else (float("inf"), "nothing")
            same = document.get("losses") == expected and checkpoint(to) == checkpoint(whole)
            good = same and after <= given.timeout + SLACK_S
            failed += not good
            print(
                f"{index + 1:5}  {fault:5}  {victim:4}  {moment:7}  {after:9.1f} s"
                f"  {line.removeprefix('alexsim: ')}{'' if same else '  OTHER WEIGHTS'}",
                flush=True,
            )
            shutil.rmtree(to, ignore_errors=True)
        print(f"{given.times - failed} of {given.times}: named in time, and the same weights")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
