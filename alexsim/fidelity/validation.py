"""Predictions of published figures, beside the figures, and fits to them.

Fits leave out every GTX 580 row and all rows of several GPUs, and a figure counts the less the
lower its trust; the fit in use is ``alexsim_profiles/measurements/fit.npz``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from alexsim.costs.correction import UNFITTED, Correction
from alexsim.costs.libraries import load_library
from alexsim.errors import AlexsimError
from alexsim.fidelity.row_files import Row, read_rows
from alexsim.fidelity.rows import Case, Excluded, case_of, sheet_of
from alexsim.fidelity.several import in_one_process, replicated_s, setting_of
from alexsim.fidelity.timed import UPLOAD, pieces, source_of, waits, whence, works
from alexsim.network.network import Network
from alexsim.plan.choices import Partition
from alexsim.plan.plan import OpKind
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulation import ILSVRC_EPOCHS, ILSVRC_IMAGES, NINE_IN_TEN
from alexsim.simulate.simulator import simulate_network
from alexsim.simulate.timer import Timer

if TYPE_CHECKING:
    from alexsim.fidelity.fit import Observation

_MOST_ALIKE = 40
_NOISE = {"A": 0.07, "B": 0.10, "C": 0.25, "": 0.25}
"""Relative scatter expected of figures by trust: the same code on the same card varies so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A row, its prediction in the row's unit, and the bounds for nine in ten."""

    case: Case
    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Predicted time over measured time, minus one."""
        measured = self.case.row.value
        assert measured is not None
        ratio = self.value / measured
        return (1 / ratio if self.case.row.unit == "images/s" else ratio) - 1

    @property
    def covered(self) -> bool:
        """Whether the figure lies in its interval."""
        measured = self.case.row.value
        return measured is not None and self.low <= measured <= self.high


def cases(
    rows: Iterable[Row], networks: Mapping[str, Network] = MappingProxyType({})
) -> tuple[tuple[Case, ...], tuple[Excluded, ...]]:
    """Rows that can be predicted, and those that cannot; ``networks`` as in ``case_of``."""
    judged: list[Case | Excluded] = []
    for row in rows:
        case = case_of(row, networks)
        if isinstance(case, Case) and not works(case):
            case = Excluded(row=row, why=f"nothing to do in the pass: {row.passes}")
        judged.append(case)
    return (
        tuple(case for case in judged if isinstance(case, Case)),
        tuple(case for case in judged if isinstance(case, Excluded)),
    )


def may_fit(case: Case) -> bool:
    """Whether a fit may use a row: one GPU, a measured value, and never a GTX 580."""
    row = case.row
    return row.n_gpus == 1 and row.value is not None and "GTX 580" not in row.gpu


def measured_s(case: Case) -> float:
    """Seconds of one batch that the row states."""
    assert case.row.value is not None
    return seconds_of(case, case.row.value)


def seconds_of(case: Case, value: float) -> float:
    """Seconds of one batch, of a value in the row's unit."""
    match case.row.unit:
        case "images/s":
            return case.batch_size / value
        case "ms per image":
            return value * case.batch_size / 1e3
        case "hours":
            return value * 3600 / (ILSVRC_EPOCHS * ILSVRC_IMAGES / case.batch_size)
    return value / 1e3


def flop_of(case: Case) -> int:
    """FLOP of the multiply-adds that a row timed, of all GPUs."""
    return sum(work.count.flop for work in works(case))


def _in_unit(row: Row, batch_size: int, seconds: float) -> float:
    match row.unit:
        case "images/s":
            return batch_size / seconds
        case "ms per image":
            return seconds * 1e3 / batch_size
        case "hours":
            return seconds * ILSVRC_EPOCHS * ILSVRC_IMAGES / batch_size / 3600
    return seconds * 1e3


def observations(chosen: Sequence[Case]) -> list[Observation]:
    """Figures of the rows among ``chosen`` that a fit may use.

    Rows of one device and source count together as ``_MOST_ALIKE`` rows at most: a sweep of 500
    configurations of one card says less than 500 cards.
    """
    from alexsim.fidelity.fit import Observation

    taught = [case for case in chosen if may_fit(case)]
    alike = Counter(map(whence, taught))
    figures = []
    for case in taught:
        noise, value = _NOISE.get(case.row.trust, _NOISE[""]), case.row.value
        assert value is not None
        if case.row.unit == "ms per batch" and value.is_integer() and value < 100:
            noise = math.hypot(noise, 0.29 / value)  # rounded to whole milliseconds
        noise *= math.sqrt(max(1.0, alike[whence(case)] / _MOST_ALIKE))
        figures.append(
            Observation(
                id=case.row.id,
                ops=pieces(case),
                waits=waits(case),
                measured_s=measured_s(case),
                noise=noise,
            )
        )
    return figures


def fit_to(
    chosen: Sequence[Case], base: Correction, kernels: Sequence[Observation] = ()
) -> Correction:
    """Corrections from the rows among ``chosen`` that a fit may use, and from kernels, on the trees
    of ``base``.

    Raises:
        AlexsimError: there is none.
    """
    from alexsim.fidelity.fit import fit

    figures = [*observations(chosen), *kernels]
    if not figures:
        raise AlexsimError("nothing to fit to: no row of one GPU with a value, GTX 580 left out")
    return fit(figures, base)


def roofline_noise(chosen: Sequence[Case]) -> float:
    """Scatter of rows that a fit may use around the roofline."""
    from alexsim.fidelity.fit import nine_in_ten

    return nine_in_ten(
        [
            math.log(_on_one_gpu(case, UNFITTED, "roofline")[0] / measured_s(case))
            for case in chosen
            if may_fit(case)
        ]
    )


def predict(case: Case, correction: Correction, *, library: str = "") -> Prediction:
    """Predict a row, by its library's cost model or by that of ``library``."""
    return predict_all([case], correction, library=library)[0]


def predict_all(
    chosen: Iterable[Case],
    correction: Correction,
    *,
    library: str = "",
    done: Callable[[int], None] = lambda _: None,
) -> list[Prediction]:
    """Predict rows, in their order; rows of equal conditions are timed once."""
    times: dict[Case, tuple[float, float]] = {}
    predictions = []
    for index, case in enumerate(chosen, start=1):
        # What is timed depends neither on the figure nor on how it was printed.
        row = replace(case.row, id="", value=None, unit="", source=source_of(case), trust="")
        ran = replace(case, row=row)
        if ran not in times:
            timed = _on_one_gpu if row.n_gpus == 1 else _on_several_gpus
            times[ran] = timed(ran, correction, library)
        seconds, spread = times[ran]
        value, *bounds = (
            _in_unit(case.row, case.batch_size, seconds * math.exp(side * NINE_IN_TEN * spread))
            for side in (0, -1, 1)
        )
        predictions.append(Prediction(case=case, value=value, low=min(bounds), high=max(bounds)))
        done(index)
    return predictions


def _on_one_gpu(case: Case, correction: Correction, library: str) -> tuple[float, float]:
    shares: dict[str, float] = defaultdict(float)
    total = 0.0
    ops = pieces(case, library)
    times = correction.times(ops, waits=waits(case))
    for costs, taken in zip(ops, times, strict=True):
        for cost, seconds in zip(costs, taken, strict=True):
            total += seconds
            for trait in cost.traits:
                shares[trait] += seconds
    error = correction.error_class(
        "layer" if case.single_layer else "network",
        sheet_of(case.device),
        library or case.library,
        reduced=case.precision != "fp32",
    )
    shares = {trait: share / total for trait, share in shares.items()}
    return total, correction.spread(shares, error, sheet_of(case.device).name)


def _on_several_gpus(case: Case, correction: Correction, library: str) -> tuple[float, float]:
    row = case.row
    partition: Partition = "replicas"
    if case.device.startswith("gtx580"):
        partition = "columns"
    elif row.parallelism == "hybrid":
        partition = "hybrid"
    ran = setting_of(case)
    if case.passes == "fwd" or in_one_process(case) or "COMPUTE part only" in row.notes:
        # Every device does its share, and none waits for another.
        alone = replace(case, batch_size=case.batch_size // row.n_gpus, row=replace(row, n_gpus=1))
        seconds, spread = _on_one_gpu(alone, correction, library)
        if in_one_process(case):
            seconds = replicated_s(case, ran.machine, seconds)
        return seconds, spread
    timer = Timer(
        machine=ran.machine,
        library=load_library(library or case.library, case.family),
        correction=correction,
        precision=case.precision,
    )
    configuration = PlanSpec(
        network=replace(case.network, copies_concats=True),
        gpus=row.n_gpus,
        partition=partition,
        batch_size=case.batch_size,
    )
    # Where a pipeline's host is not stated, it is taken to keep up.
    ready = any(words in row.notes for words in ("synthetic", UPLOAD, "input pipeline included"))
    simulated = simulate_network(configuration, timer, data="none" if ready else "jpeg")
    step_s, low = simulated.step_s, simulated.step_interval.low
    spread = math.log(step_s / low) / NINE_IN_TEN
    if partition == "replicas":
        step_s -= ran.hidden * simulated.devices[0].exposed_all_reduce_s
        if UPLOAD not in row.notes:
            # Images lie on the device, or come while the step before computes.
            step_s -= simulated.devices[0].exposed_upload_s
    if case.passes == "fwd+bwd":
        # A plan's step ends with the update, which these rows lack.
        step = works(replace(case, passes="train-step"))
        updates = [cost for w in step if w.kind == OpKind.UPDATE for cost in timer.costs(w)]
        step_s -= sum(cost.seconds for cost in updates if not cost.of_host)
    return step_s, spread


def all_rows(
    path: str, networks: Mapping[str, Network] = MappingProxyType({})
) -> tuple[tuple[Case, ...], tuple[Excluded, ...]]:
    """Cases and exclusions of a file; ``networks`` as in ``case_of``.

    Raises:
        ProfileError: the file cannot be read.
    """
    return cases(read_rows(path), networks)
