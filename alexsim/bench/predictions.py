"""What our kernels and a step should take on a card that nobody has measured: made before, kept.

    python -m alexsim.bench.predictions --machine h200 -o h200.json

Every kernel is compiled for the card as the bench of a card (``alexsim_kernels.bench.card``) and
the executor launch it, and read by ``alexsim_kernels.model``: registers, shared memory and
instructions from machine code, rates from the card's sheet. A step is its upload over the card's
link and then its kernels, one after another; what PyTorch runs in it counts as moved bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import triton

from alexsim import __version__
from alexsim.bench.card.ahead import FUSED, PRECISIONS, SIZES, step_launches, step_plan
from alexsim.files import write_whole
from alexsim.machine.device import Device, load_device
from alexsim.network.counts import FLOAT_BYTES
from alexsim_kernels import compiled, tuning
from alexsim_kernels.bench.card import right
from alexsim_kernels.bench.row import Row
from alexsim_kernels.candidates import launch_of
from alexsim_kernels.model import Launch, Prediction, Sheet, predict

_SUSTAINED, _COPIED = 0.8, 0.9
"""Shares of a sheet's rates that long products and copies reach: assumed, as of most cards in
``devices/``; a card's own are measured first of all."""


def sheet_of(device: Device) -> Sheet:
    """A card's sheet as the kernels' model has it."""
    tensor, tf32 = device.tensor_fp16_flop_per_s, device.tensor_tf32_flop_per_s
    rates = {"bf16": tensor, "fp16": tensor, "tf32": tf32, "fp32x3": tf32 / 3}
    return Sheet(
        name=device.name, multiprocessors=int(device.multiprocessors.value),
        clock_hz=device.clock_hz.value,
        bytes_per_s=_COPIED * device.memory_bytes_per_s.value,
        flop_per_s={name: _SUSTAINED * rate for name, rate in rates.items()}
        | {"fp32": _SUSTAINED * device.flop_per_s},
        shared_bytes=int(device.shared_bytes_per_sm.value),
        registers=int(device.registers_per_sm.value), threads=int(device.threads_per_sm.value),
    )  # fmt: skip


class Predictor:
    """Compiles what is launched, and says how long it should take.

    Args:
        device: the card; its compute capability is what is compiled for.
    """

    def __init__(self, device: Device) -> None:
        self.device, self.sheet = device, sheet_of(device)
        self.capability = int(device.compute_capability.replace(".", ""))
        self._driver = compiled.CompilingDriver(self.capability, {})
        triton.runtime.driver.set_active(self._driver)
        self._card = tuning.Card("", self.capability, self.sheet.multiprocessors)

    def of(self, launch: Any, precision: str, moved_bytes: int) -> list[Prediction]:
        """Of each kernel that ``launch()`` launches; the first of them moves the bytes.

        Args:
            launch: launches on tensors without memory.
            precision: of its products.
            moved_bytes: each of its tensors once.
        """
        self._driver.precision = precision
        self._driver.launched.clear()
        with tuning.asked() as keys:
            launch()
        predictions = []
        for _, code, programs in self._driver.launched:
            work = Launch(programs=programs, moved_bytes=moved_bytes)
            if code.turn_products and keys:
                key = keys.pop(0)
                config = tuning.by_model(key, self.capability, self.sheet.multiprocessors)
                of_loop = launch_of(key, config, moved_bytes=moved_bytes)
                work = replace(of_loop, programs=programs, kernels=1)
            predictions.append(predict(replace(code, precision=precision), work, self.sheet))
            moved_bytes = 0
        return predictions


def _row(op: str, precision: str, batch: int, predictions: list[Prediction]) -> Row:
    longest = max(predictions, key=lambda each: each.seconds)
    seconds = sum(each.seconds for each in predictions)
    return Row(
        op=op, precision=precision, batch=batch, predicted_ms=round(1e3 * seconds, 6),
        text=f"bound by {longest.bound}",
    )  # fmt: skip


def kernel_rows(predictor: Predictor) -> Iterator[Row]:
    """Every kernel as the bench of a card checks and times it, by the usual tile."""
    for some in chain(right.cases(place="meta"), right.resnet(place="meta")):
        for case in some:
            predictions = predictor.of(case.run, case.precision, case.moved_bytes)
            yield _row(case.op, case.precision, case.batch, predictions)


def step_rows(predictor: Predictor) -> Iterator[Row]:
    """A step of ``alexnet-1gpu``, fused and not, from pinned memory: all one after another."""
    link = predictor.device.link
    assert link is not None, "sheets of GPUs name their slot's"
    for size, precision, (op, fused) in product(SIZES, PRECISIONS, FUSED.items()):
        planned = step_plan(size, fused=fused)
        copied = size * math.prod(planned.network.input_shape) * FLOAT_BYTES
        bounds: Counter[str] = Counter()
        bounds["link"] = 1e3 * link.seconds(copied)  # type: ignore[assignment]
        kernels = 0
        for each, launch in step_launches(planned, precision):
            moved = each.count.moved_bytes
            predictions = predictor.of(launch, precision, moved)
            if not predictions:
                predictions = [Prediction(moved / predictor.sheet.bytes_per_s + 2e-6, "memory")]
            kernels += len(predictions)
            for prediction in predictions:
                bounds[prediction.bound] += 1e3 * prediction.seconds  # type: ignore[assignment]
        by_bound = {name: round(ms, 4) for name, ms in bounds.most_common()}
        yield Row(
            op=op, precision=precision, batch=size, predicted_ms=round(sum(bounds.values()), 6),
            text=f"{kernels} kernels", detail=by_bound,
        )  # fmt: skip


def document(machine: str) -> dict[str, Any]:
    """All predictions for a card of the list."""
    device = load_device(machine)
    predictor = Predictor(device)
    rows: list[dict[str, Any]] = []
    for row in chain(step_rows(predictor), kernel_rows(predictor)):
        rows.append(row.document())
        sys.stderr.write(f"{row.line()}\n")
    return {
        "schema": 1, "alexsim": __version__, "card": machine, "name": device.name,
        "triton": triton.__version__, "rows": rows,
    }  # fmt: skip


def main() -> None:
    """Predict, print, write."""
    parser = argparse.ArgumentParser(
        prog="alexsim.bench.predictions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--machine", required=True, help="a device of `alexsim hardware list`")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file, as JSON")
    arguments = parser.parse_args()
    text = json.dumps(document(arguments.machine), indent=1, allow_nan=False)
    write_whole(arguments.output, text.encode() + b"\n")


if __name__ == "__main__":
    main()
