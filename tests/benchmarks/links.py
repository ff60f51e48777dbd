"""Steps of two processes over links of known speed, beside their simulation.

    python tests/benchmarks/links.py [--links 100,300,1000,100@5,300@20] [--batch 32] [--steps 12]

Needs root and Linux: two network namespaces whose devices pass so many Mbit/s (a token bucket,
tc-tbf(8)). A veth pair joins them; where a link has a latency, ``MBIT@MS``, two TUN devices do,
between which a process carries packets, each so much later. Each rank has one thread. Ops are
calibrated in two processes at once, as the two ranks share a machine's memory; the link's sheet has
the rate, the share of it that TCP leaves to data, and a measured round trip. Prints a row per link.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import fcntl
import json
import multiprocessing
import os
import select
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALEXSIM = (sys.executable, "-m", "alexsim")
ENDS = (("alexsim-a", "alexsim-va", "10.77.0.1"), ("alexsim-b", "alexsim-vb", "10.77.0.2"))
PAYLOAD = 1448 / 1514
"""Of a full Ethernet frame, with IP, TCP and its time stamps."""
TUN_MTU = 9000
TUN_PAYLOAD = (TUN_MTU - 52) / TUN_MTU
"""Of a full packet, without a frame around it."""
PINGS = 50
NEW_NETWORK, TUN_SET, TUN, NO_PACKET_INFORMATION = 0x40000000, 0x400454CA, 1, 0x1000
"""Of Linux: setns(2), ioctl(2) and <linux/if_tun.h>."""


def sh(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def opened(space: str, device: str) -> int:
    """A TUN device of a namespace, as a file of packets."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{space}", os.O_RDONLY)
    try:
        if libc.setns(there, NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"setns {space}")
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        asked = struct.pack("16sH22x", device.encode(), TUN | NO_PACKET_INFORMATION)
        fcntl.ioctl(file, TUN_SET, asked)
        return file
    finally:
        libc.setns(home, NEW_NETWORK)
        os.close(home)
        os.close(there)


def carry(files: tuple[int, int], delay_s: float) -> None:
    """Carry packets from each of two devices to the other, each ``delay_s`` later, for ever."""
    other = {files[0]: files[1], files[1]: files[0]}
    waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        left = waiting[0][0] - time.perf_counter() if waiting else 1.0
        for file in select.select(files, [], [], max(0.0, left))[0]:
            with contextlib.suppress(BlockingIOError):
                packet = os.read(file, 1 << 16)
                waiting.append((time.perf_counter() + delay_s, other[file], packet))
        while waiting and waiting[0][0] <= time.perf_counter():
            _, to, packet = waiting.popleft()
            # A device that is not up loses them.
            with contextlib.suppress(OSError):
                os.write(to, packet)


@contextmanager
def link(mbit: float, delay_s: float = 0.0) -> Iterator[None]:
    """Two namespaces that reach each other at so many Mbit/s, each way so much later."""
    (a, va, _), (b, vb, _) = ENDS
    carrier = None
    for name in (a, b):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        sh("ip", "netns", "add", name)
    try:
        if delay_s:
            files = (opened(a, va), opened(b, vb))
            carrier = multiprocessing.get_context("fork").Process(
                target=carry, args=(files, delay_s), daemon=True
            )
            carrier.start()
        else:
            sh("ip", "link", "add", va, "type", "veth", "peer", "name", vb)
        for name, device, address in ENDS:
            inside = ("ip", "netns", "exec", name)
            if delay_s:
                sh(*inside, "ip", "link", "set", device, "mtu", TUN_MTU)
            else:
                sh("ip", "link", "set", device, "netns", name)
            sh(*inside, "ip", "addr", "add", f"{address}/24", "dev", device)
            sh(*inside, "ip", "link", "set", device, "up")
            sh(*inside, "ip", "link", "set", "lo", "up")
            # A step's pauses are no reason to begin slowly again.
            sh(*inside, "sysctl", "-w", "net.ipv4.tcp_slow_start_after_idle=0")
            # One frame is one packet: the bucket counts what a wire would carry.
            if shutil.which("ethtool") and not delay_s:
                sh(*inside, "ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off")
            burst = max(32_000, int(mbit * 1e6 / 8 / 250))
            sh(
                *inside, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate",
                f"{mbit:g}mbit", "burst", burst, "latency", "100ms",
            )  # fmt: skip
        yield
    finally:
        if carrier is not None:
            carrier.kill()
            carrier.join()
            for file in files:
                os.close(file)
        for name in (a, b):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def round_trip_s() -> float:
    """Median of small messages there and back."""
    server = "import socket;s=socket.create_server(('10.77.0.1',9));c,_=s.accept()\n"
    server += "c.setsockopt(6,1,1)\nwhile (d:=c.recv(64)): c.sendall(d)"
    client = "import socket,time,statistics as st\nc=socket.create_connection(('10.77.0.1',9))\n"
    client += f"c.setsockopt(6,1,1)\nt=[]\nfor _ in range({PINGS}):\n s=time.perf_counter()\n"
    client += (
        " c.sendall(b'x'*64); c.recv(64); t.append(time.perf_counter()-s)\nprint(st.median(t))"
    )
    answering = subprocess.Popen(["ip", "netns", "exec", ENDS[0][0], sys.executable, "-c", server])
    time.sleep(0.5)
    asked = subprocess.run(
        ["ip", "netns", "exec", ENDS[1][0], sys.executable, "-c", client],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    answering.wait(10)
    return float(asked.stdout)


def transmitted() -> int:
    """Bytes that have left both ends, headers included, as the kernel counts them."""
    total = 0
    for name, device, _ in ENDS:
        found = subprocess.run(
            ["ip", "netns", "exec", name, "cat", f"/sys/class/net/{device}/statistics/tx_bytes"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        total += int(found.stdout)
    return total


def sent_after(run: Path, steps: int, process: subprocess.Popen[str]) -> int:
    """Bytes sent when so many steps were done."""
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"loss"') < steps:
        if process.poll() is not None:
            raise SystemExit(process.communicate()[1])
        time.sleep(0.005)
    return transmitted()


def trained(work: Path, data: Path, batch: int, steps: int, name: str) -> dict[str, float]:
    """A run of two ranks, one in each namespace."""
    running = []
    to = work / name
    for rank, (space, device, _) in enumerate(ENDS):
        environment = {
            **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "GROUP_RANK": str(rank),
            "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": ENDS[0][2], "MASTER_PORT": "29500",
            "GLOO_SOCKET_IFNAME": device, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        running.append(
            subprocess.Popen(
                [
                    "ip", "netns", "exec", space, *ALEXSIM, "train", "--gpus", "2", "--batch",
                    str(batch), "--steps", str(steps), "--threads", "1", "--workers", "1",
                    "--data", str(data), "--checkpoint-every", "100000", "-o", str(to), "--json",
                ],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    # Between two steps nothing but a step's exchanges crosses.
    first = sent_after(to, 2, running[0])
    last = sent_after(to, steps - 2, running[0])
    out, err = running[0].communicate()
    running[1].communicate()
    if running[0].returncode:
        raise SystemExit(err)
    document = json.loads(out)
    records = [json.loads(line) for line in (to / "metrics.jsonl").read_text().splitlines()]
    seconds = [r["step_s"] for r in records if "loss" in r][2:]
    return {
        "step_s": statistics.median(seconds),
        "planned": document["exchanged_bytes_per_step"],
        "sent": (last - first) / (steps - 4),
    }


def calibrated(work: Path, batch: int) -> Path:
    """Ops' times with a second process beside that does the same."""
    files = [work / f"calibration-{index}.json" for index in (0, 1)]
    running = [
        subprocess.Popen(
            [
                *ALEXSIM, "check", "calibrate", "--gpus", "2", "--threads", "1", "--rounds", "6",
                "--batches", f"{batch // 2},{batch}", "-o", str(file), "--json",
            ],
            stdout=subprocess.DEVNULL,
        )
        for file in files
    ]  # fmt: skip
    assert not any(process.wait() for process in running)
    return files[0]


def simulated(calibration: Path, sheet: Path, batch: int) -> float:
    done = subprocess.run(
        [
            *ALEXSIM, "simulate", "--library", "measured", "--machine", str(calibration),
            "--network", str(sheet), "--gpus", "2", "--batch", str(batch), "--json",
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(json.loads(done.stdout)["step_s"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--links", default="100,300,1000,100@5,300@20", metavar="MBIT[@MS],...")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp())
    try:
        from alexsim.builtin.textures import TEXTURES

        drawn = TEXTURES.ensure(work / "drawn")
        data = work / "packed"
        subprocess.run(
            [*ALEXSIM, "data", "pack", str(drawn), str(data), "--workers", "2", "--json"],
            check=True, capture_output=True,
        )  # fmt: skip
        calibration = calibrated(work, given.batch)
        print("Mbit/s  round trip   measured  simulated   error   MiB/step  on the wire")
        for text in given.links.split(","):
            mbit, _, delay = text.partition("@")
            rate, delay_s = float(mbit), float(delay or 0) / 1e3
            with link(rate, delay_s):
                trip_s = round_trip_s()
                found = trained(work, data, given.batch, given.steps, f"run-{text}")
            sheet = work / "link.toml"
            payload = TUN_PAYLOAD if delay_s else PAYLOAD
            sheet.write_text(
                f'name = "{rate:g} Mbit/s, {1e3 * trip_s:.2f} ms there and back"\n'
                f'bytes_per_s = {{ value = {rate * 1e6 / 8}, kind = "spec", source = "tbf" }}\n'
                f'efficiency = {{ value = {payload}, kind = "spec", source = "headers" }}\n'
                f'latency_s = {{ value = {trip_s / 2}, kind = "measured", source = "ping" }}\n'
                '[sources]\ntbf = "the bucket\'s rate"\nheaders = "TCP data of a full packet"\n'
                'ping = "half a round trip"\n'
            )
            predicted = simulated(calibration, sheet, given.batch)
            print(
                f"{rate:6g}  {1e3 * trip_s:7.2f} ms  {1e3 * found['step_s']:6.0f} ms"
                f"  {1e3 * predicted:6.0f} ms  {100 * (predicted / found['step_s'] - 1):+5.1f} %"
                f"  {found['planned'] / 2**20:9.2f}"
                f"  {found['sent'] / found['planned']:.3f} of the plan's",
                flush=True,
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
