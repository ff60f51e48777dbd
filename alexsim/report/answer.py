"""What a simulation answers, on one screen: a row per question, and what to ask next."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.budget.policies import policy_words
from alexsim.costs.precision import Computed
from alexsim.errors import PlanError
from alexsim.explore.what_if import kinds_of, waits_s
from alexsim.network.network import Network
from alexsim.plan.choices import Policy
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.stages import Training
from alexsim.report.not_run import counted_share
from alexsim.report.tables import answer_rows, data_path_text, milliseconds, sharing_text
from alexsim.report.what_if import days_text
from alexsim.simulate.evidence import Evidence
from alexsim.simulate.simulation import Simulation
from alexsim.units import format_bytes

_SHARES = 3
"""Parts of a step that are named."""
_COUNTED = 0.05
"""Share of the computing in operators without a measured row from which on it is said."""
_EXCHANGED = 0.05
"""Share of the step from which on it is worth asking what would hide transfers."""


def answer(
    simulation: Simulation,
    spec: PlanSpec,
    training: Training,
    before: Simulation | None = None,
    policies: Mapping[Policy, int] | None = None,
) -> RenderableType:
    """The first screen: at most 24 lines of 80 columns; with the policies by which it would fit."""
    out = answer_rows(_rows(simulation, spec, training, before, policies or {}))
    head = f"{simulation.network} on {simulation.machine}, {simulation.library}"
    sharing = sharing_text(spec)
    if not sharing:
        head += f": one GPU, {simulation.batch_size:,} images of a step"
    parts: list[RenderableType] = [*([Text(sharing)] if sharing else ()), Text(head), Text(), out]
    if lines := rests_on(simulation.evidence, counted_share(spec.network, simulation)):
        parts += [Text(), Text("\n".join(lines))]
    return Group(*parts, Text(), Text(asks_next(simulation, spec)))


def _rows(
    simulation: Simulation,
    spec: PlanSpec,
    training: Training,
    before: Simulation | None,
    policies: Mapping[Policy, int],
) -> Iterator[tuple[str, str, str]]:
    step, days = simulation.step_interval, training.days_interval
    staged = bool(training.stages)
    wait = ", with the wait for images" if simulation.data_bound else ""
    yield (
        "step at first" if staged else "step",
        f"{milliseconds(simulation.step_s)} ms",
        f"90 %: {milliseconds(step.low)} to {milliseconds(step.high)};"
        f" forward {milliseconds(simulation.forward_s)}{wait},"
        f" backward {milliseconds(simulation.backward_s)}",
    )
    if before is not None:
        low, high = before.step_interval.low, before.step_interval.high
        yield (
            "by the fit alone",
            f"{milliseconds(before.step_s)} ms",
            f"90 %: {milliseconds(low)} to {milliseconds(high)}",
        )
    yield (
        "throughput",
        f"{simulation.images_per_s:,.0f} images/s",
        f"{100 * simulation.utilisation:.0f} % of peak{_counted(simulation)}",
    )
    # Stages differ in the third digit.
    yield (
        "training",
        f"{f'{training.days:.3g}' if staged else days_text(training.days)} days",
        f"90 %: {days_text(days.low)} to {days_text(days.high)};"
        f" {f'recipe {training.recipe}, ' if staged else ''}{training.epochs} epochs of"
        f" {training.images:,} images",
    )
    yield _memory(simulation, spec, policies)
    yield "bound by", *_bound(simulation, spec.network)
    if simulation.data_path is not None or "host" in data_path_text(simulation):
        yield "data path", "", data_path_text(simulation)
    if how := _computed(simulation.computed):
        yield "types", "", how


def _memory(
    simulation: Simulation, spec: PlanSpec, policies: Mapping[Policy, int]
) -> tuple[str, str, str]:
    fullest = simulation.fullest
    has = format_bytes(fullest.capacity_bytes)
    name = f"{fullest.name} ({fullest.card})" if simulation.unlike else fullest.name
    each = "each" if simulation.devices_count > 1 else "the"
    on = f"{name} has {has}" if len(simulation.devices) > 1 else f"{each} GPU has {has}"
    verdict = "fits" if simulation.fits else "DOES NOT FIT"
    would = f"; would fit: {', '.join(policy_words(policies))}" if policies else ""
    # Networks of one column are from after 2012, and so is what computes them.
    kept = spec.policy == "as-released" and spec.network.columns == 1 and simulation.fits
    kept = kept and _may(spec, policy="pytorch")
    usual = "; every buffer kept: --policy pytorch" if kept else ""
    note = f"{verdict}: {on}; context included{would}{usual}"
    return "memory", format_bytes(fullest.memory_bytes), note


def _bound(simulation: Simulation, network: Network) -> tuple[str, str]:
    """What takes most of the first device's step, and what comes after it."""
    device, kinds = simulation.devices[0], kinds_of(network)
    seconds: dict[str, float] = defaultdict(float)
    limits: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for layer in simulation.layers:
        if layer.device == device.name:
            seconds[kinds[layer.name]] += layer.total_s
            limits[kinds[layer.name]][layer.limit] += layer.total_s
    for name, waited_s in waits_s(device).items():
        seconds[name] += waited_s
    if simulation.data_bound:
        return "data path", f"{milliseconds(simulation.host_s)} ms for each step's images"
    if _host_bound(simulation):
        issued = f"{100 * simulation.issue_s / simulation.step_s:.0f} % of the step"
        return "host", f"it issues ops for {issued}, and the GPUs wait for it"
    shares = sorted(seconds.items(), key=lambda part: -part[1])[:_SHARES]
    (first, most_s), *others = shares
    share = f"{100 * most_s / simulation.step_s:.0f} % of the step"
    limit = limits.get(first)
    limited = f", limited by {max(limit, key=limit.__getitem__)}" if limit else ""
    least_s = simulation.step_s / 200
    rest = ", ".join(
        f"{name} {100 * s / simulation.step_s:.0f} %" for name, s in others if s > least_s
    )
    return first, f"{share}{limited}{f'; {rest}' if rest else ''}"


def _may(spec: PlanSpec, **choice: Any) -> bool:
    """Whether a choice goes with the spec's others: what does not is not worth asking."""
    try:
        replace(spec, **choice)
    except PlanError:
        return False
    return True


def _host_bound(simulation: Simulation) -> bool:
    """Whether the GPUs mostly wait for ops to be issued."""
    return simulation.issue_s > simulation.step_s / 2


def asks_next(simulation: Simulation, spec: PlanSpec) -> str:
    """Options that show more of this answer, and a question that it raises."""
    exposed = max(d.exposed_exchange_s + d.exposed_all_reduce_s for d in simulation.devices)
    if not simulation.fits:
        question = "`alexsim memory` with the same options says what would fit"
    elif simulation.data_bound:
        question = "--data-path none: the GPUs alone"
    elif _host_bound(simulation):
        question = f"--what-if batch={2 * spec.batch_size}"
    elif (
        exposed > _EXCHANGED * simulation.step_s
        and spec.schedule == "serial"
        and _may(spec, schedule="overlap")
    ):
        question = "--what-if overlap"
    elif simulation.computed.precision == "fp32" and simulation.computed.tf32_by_default:
        question = f"--what-if precision=amp, --what-if batch={2 * spec.batch_size}"
    else:
        question = f"--what-if batch={2 * spec.batch_size}, --elasticities"
    return f"More: --layers --ops --transfers --articles. Next: {question}"


def rests_on(evidence: Evidence, counted: float = 0.0) -> list[str]:
    """What a prediction rests on, in lines of 80 columns; none where this machine was measured.

    ``counted``: share of the computing in operators that no row has measured.
    """
    if evidence.error is None:
        return []
    error = evidence.error

    def seen(name: str, rows: int) -> str:
        return f"{name} {f'seen ({rows:,} rows)' if rows else 'never seen'}"

    given = f" Given {evidence.given}." if evidence.given else ""
    said = (
        f"Rests on {evidence.rows:,} rows: {seen(evidence.device, evidence.device_rows)},"
        f" {seen(evidence.library, evidence.library_rows)};"
        f" {100 * evidence.inside:.0f} % of the time in shapes as measured.{given}"
        f" {error.words[0].upper()}{error.words[1:]}: left out, {error.rows:,} were"
        f" {100 * error.median:.0f} % off at the median, {100 * error.mean:.0f} % at the mean."
    )
    if counted > _COUNTED:
        said += (
            f" They had no such operators as {100 * counted:.0f} % of the computing here, whose"
            " times are the roofline's: expect more error."
        )
    return textwrap.wrap(said, 79)


def _counted(simulation: Simulation) -> str:
    """What rates over peak count, where that is not a direct convolution's multiply-adds."""
    if simulation.utilisation_counts == "direct":
        return ""
    share = 100 * simulation.done_share
    return f", counting the {share:.0f} % of direct convolution's multiply-adds that are done"


def _computed(how: Computed) -> str:
    """In which types it computes, and which PyTorch itself would choose."""
    match how.precision:
        case "amp" if how.tensor_cores:
            return f"mixed: products in {how.half_type} on tensor cores, gradients float32"
        case "amp":
            return f"mixed, {how.half_type}; no tensor cores: fewer bytes, no more FLOP/s"
        case "pytorch" if how.tf32_by_default:
            return "as PyTorch unless told otherwise: convolutions in TF32, the rest float32"
        case "fp32" if how.tf32_by_default:
            return "float32; PyTorch itself would use TF32 here: --precision pytorch"
    return ""
