"""How often the timed gate fails when nothing changed, and how often it catches a slowdown.

    python tests/benchmarks/gate_rates.py --unchanged 30 --slowed 10 --share 0.15

Every run is what ``alexsim check bench compare --only timed`` does, against the shipped baseline;
where that has no ratios of this machine, make them first (``check bench update --only timed``).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from alexsim.bench.runner import Selection, compare
from alexsim.bench.store import default_path, load

NETWORK, BATCH, TOLERANCE = "alexnet-2012", 8, 0.05


def main() -> None:
    """Print a line per run, and the two rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--unchanged", type=int, default=30)
    parser.add_argument("--slowed", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    baseline = load(default_path(NETWORK))
    plain = Selection(network=NETWORK, batch_size=BATCH, counted=False)
    rows = []
    for selection, times in (
        (plain, given.unchanged),
        (replace(plain, slowed=given.share), given.slowed),
    ):
        for index in range(times):
            _, verdicts = compare(selection, baseline, tolerance=TOLERANCE)
            assert all(verdict.change for verdict in verdicts), "no ratios of this machine"
            changes = {v.name: round(v.change.median - 1, 4) for v in verdicts if v.change}
            failing = [v.name for v in verdicts if v.fails]
            rows.append({"slowed": selection.slowed, "changes": changes, "failing": failing})
            print(index + 1, json.dumps(rows[-1]), flush=True)
    for slowed in (0.0, given.share):
        mine = [row for row in rows if row["slowed"] == slowed]
        failed = sum(1 for row in mine if row["failing"])
        cases = sum(len(row["changes"]) for row in mine)
        judged = sum(len(row["failing"]) for row in mine)
        print(
            f"slowed by {slowed:.0%}: {failed} of {len(mine)} runs failed,"
            f" {judged} of {cases} cases"
        )
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
