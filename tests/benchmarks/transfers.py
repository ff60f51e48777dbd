"""Fit what NCCL reaches to a table of timed all-reduces and sends; judge it on devices left out.

    python tests/benchmarks/transfers.py kernels.csv.gz [--samples 24]

Prints the numbers of ``collectives/nccl.toml`` as fitted to all rows, and a line per operation and
device: the error when that device (all its forms) was left out of the fit, when none was, and of a
copy's latency and rate alone. Groups (source, device, library, link, ranks) count alike, whatever
their rows; of each so many sizes are taken, spread evenly. Some two minutes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

from alexsim.fidelity import transfer_rows
from alexsim.fidelity.transfer_rows import OPS, transfer_s
from alexsim.machine import collectives
from alexsim.machine.collectives import Nccl, load_nccl
from alexsim.machine.machine import load_machine

Row = Mapping[str, str]
FITTED = (
    "launch_s", "flag_share", "switch_share", "bridge_share", "staged_share", "peer_link_share",
    "sum_share", "send_share", "network_share",
)  # fmt: skip
DEVICES = (
    "A100", "H100", "H200", "L40S", "A40", "P100", "M40", "X (Maxwell)", "X (Pascal)", "1080 Ti",
)  # fmt: skip
"""Parts of names: variants of a chip are left out together."""


def read(path: str, samples: int) -> dict[tuple[str, ...], list[Row]]:
    """Rows that have a prediction, by what they share but for their size."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    data = Path(path).read_bytes()
    text = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    for row in csv.DictReader(text.decode().splitlines()):
        if row["op"] not in OPS or isinstance(transfer_s(row), str):
            continue
        extra = json.loads(row["extra"])
        rest = {
            key: value for key, value in extra.items() if key not in ("bytes", "elements", "gpu")
        }
        key = (row["op"], row["source"], row["device"], row["library"], json.dumps(rest))
        groups[key].append(row)
    for key, rows in groups.items():
        rows.sort(key=lambda row: json.loads(row["extra"])["bytes"])
        step = max(1, math.ceil(len(rows) / samples))
        groups[key] = rows[::step]
    return groups


def seconds(row: Row) -> float:
    """The row's prediction."""
    found = transfer_s(row)
    assert isinstance(found, float), found
    return found


def misses(groups: Iterable[Sequence[Row]]) -> Iterator[list[float]]:
    """Of each group, predicted over measured time."""
    for rows in groups:
        yield [seconds(row) / float(row["time_s"]) for row in rows]


def reaching(nccl: Nccl) -> mock._patch[object]:
    """While it lasts, NCCL reaches this."""
    return mock.patch.object(collectives, "load_nccl", return_value=nccl)


def fit(groups: Sequence[Sequence[Row]]) -> Nccl:
    """The numbers with the least mean of absolute logarithms: each in its turn, a step up or down,
    until the least step helps none."""
    nccl = load_nccl()

    def loss(numbers: Nccl) -> float:
        with reaching(numbers):
            means = [statistics.fmean(abs(math.log(r)) for r in group) for group in misses(groups)]
        return statistics.fmean(means)

    best, step = loss(nccl), 1.25
    while step > 1.02:
        moved = False
        for name in FITTED:
            now = getattr(nccl, name)
            for factor in (step, 1 / step):
                most = 1.0 if name.endswith("share") else math.inf
                other = replace(nccl, **{name: replace(now, value=min(now.value * factor, most))})
                if (found := loss(other)) < best - 1e-6:
                    nccl, best, moved = other, found, True
                    break
        if not moved:
            step = math.sqrt(step)
    return nccl


def plain_s(row: Row) -> float:
    """A copy's latency and rate alone, of the same machine; copies at their raw rate."""
    if row["op"] == "memcpy":
        size, device = json.loads(row["extra"])["bytes"], transfer_rows._device(row["device"])
        assert device is not None
        machine = load_machine(device)
        inside = "device " in json.loads(row["extra"])["what"][:7]
        rate = machine.device.memory_bytes_per_s if inside else machine.link.bytes_per_s
        return float(size) / rate.value
    as_copies = partial(replace, collectives="copies")
    machine_of = transfer_rows._machine

    def sent_s(machine: object, size: float, **how: bool) -> float:
        link = machine.network if how["apart"] else machine.peer_link or machine.link  # type: ignore[attr-defined]
        return float(link.seconds(size))

    with (
        mock.patch.object(transfer_rows, "_machine", lambda *a: as_copies(machine_of(*a))),
        mock.patch.object(transfer_rows, "send_s", sent_s),
        mock.patch.object(transfer_rows, "_PYTORCH_S", 0.0),
    ):
        return seconds(row)


def percent(ratios: Iterable[Sequence[float]]) -> str:
    """Median and mean error, each of groups' own, in per cent."""
    errors = [[abs(ratio - 1) for ratio in group] for group in ratios]
    median = statistics.fmean(map(statistics.median, errors))
    mean = statistics.fmean(map(statistics.fmean, errors))
    return f"{100 * median:.0f} / {100 * mean:.0f}"


def main() -> None:
    """Fit, and print."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("file")
    parser.add_argument("--samples", type=int, default=24)
    options = parser.parse_args()
    groups = read(options.file, options.samples)
    calls = {key: rows for key, rows in groups.items() if key[0] != "memcpy"}
    whole = fit(list(calls.values()))
    for name in FITTED:
        print(f"{name} = {getattr(whole, name).value:.3g}")
    print("\n| operation | device | groups | left out | fitted | latency and rate |")
    print("|---|---|---|---|---|---|")
    apart: dict[str, list[list[str]]] = defaultdict(list)
    total: dict[str, list[list[list[float]]]] = defaultdict(lambda: [[], [], []])
    for device in DEVICES:
        own = {key: rows for key, rows in calls.items() if device in key[2]}
        if not own:
            continue
        without = fit([rows for key, rows in calls.items() if key not in own])
        for op in OPS[:2]:
            chosen = [rows for key, rows in own.items() if key[0] == op]
            if not chosen:
                continue
            with reaching(without):
                left_out = list(misses(chosen))
            with reaching(whole):
                fitted = list(misses(chosen))
            plain = [[plain_s(r) / float(r["time_s"]) for r in rows] for rows in chosen]
            cells = [percent(ratios) for ratios in (left_out, fitted, plain)]
            apart[op].append([op, device, str(len(chosen)), *cells])
            for held, ratios in zip(total[op], (left_out, fitted, plain), strict=True):
                held += ratios
    for op, lines in apart.items():
        for line in (*lines, [op, "all", "", *map(percent, total[op])]):
            print("| " + " | ".join(line) + " |")
    kinds: dict[str, list[Sequence[Row]]] = defaultdict(list)
    for key, rows in groups.items():
        if key[0] == "memcpy":
            what = json.loads(key[4])["what"]
            inside = re.match("device (read|write|init|scale|triad)", what)
            pinned = "pinned" in what or "Pinned" in what
            by_size = len(rows) > 1
            kind = "in a device" if inside else "pinned" if pinned else "pageable"
            kinds[f"{kind}{', by size' if by_size else ''}"].append(rows)
    for kind, chosen in kinds.items():
        plain = [[plain_s(r) / float(r["time_s"]) for r in rows] for rows in chosen]
        ours = list(misses(chosen))
        print(f"| memcpy | {kind} | {len(chosen)} | | {percent(ours)} | {percent(plain)} |")


if __name__ == "__main__":
    main()
