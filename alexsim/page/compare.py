"""Several subjects beside each other: what differs, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from plotly.graph_objects import Figure as Plot

from alexsim.documents.step import PlannedLayer
from alexsim.page.curves import metric_table
from alexsim.page.elements import Cell, Figure, Section, Table, ms, number, table
from alexsim.page.figures.compare import (
    Compared,
    Estimate,
    layer_estimate,
    layer_names,
    layers_compared,
    memory_compared,
    step_estimate,
    steps_compared,
)  # fmt: skip
from alexsim.page.figures.curves import NOISY, overlaid
from alexsim.page.figures.memory import with_context
from alexsim.page.figures.passes import Clock, clocks_of, layer_s
from alexsim.page.figures.text import digits, milliseconds, percent, ratio, seconds
from alexsim.page.inputs import Subject
from alexsim.page.memory import category_table
from alexsim.page.page import described, rendered
from alexsim.units import format_bytes

_CURVES = (
    ("loss", "Training loss", 1.0, ""),
    ("top1", "Training error, top-1", 100.0, " %"),
    ("top5", "Training error, top-5", 100.0, " %"),
)


def comparison(*subjects: Subject) -> str:
    """Two subjects or more as one HTML text; what is said of the others is over the first."""
    compared = {
        Compared(name=name, document=subject.document, clock=_clock(subject, subjects)): subject
        for name, subject in zip(_names(subjects), subjects, strict=True)
    }
    runs = {each.name: subject.metrics for each, subject in compared.items() if subject.metrics}
    plots: dict[str, Plot] = {
        "steps-side-by-side": steps_compared([*compared]),
        "layers-side-by-side": layers_compared([*compared]),
        "memory-side-by-side": memory_compared([*compared]),
    } | {f"all-{field}": overlaid(runs, field, scale) for field, _, scale, _ in _CURVES if runs}
    sections = [
        _summary(compared), _steps([*compared]), *_curves(compared), _layers([*compared]),
        _memory(compared), _settings(compared),
    ]  # fmt: skip
    heading = " beside ".join(each.name for each in compared)
    return rendered(heading, "Comparison", sections, plots)


def _names(subjects: Sequence[Subject]) -> list[str]:
    names = [subject.name for subject in subjects]
    if len(set(names)) == len(names):
        return names
    endings = {1: "st", 2: "nd", 3: "rd"}
    return [f"{name} ({n}{endings.get(n, 'th')})" for n, name in enumerate(names, 1)]


def _clock(subject: Subject, subjects: Sequence[Subject]) -> Clock:
    """Whose times are compared: measured ones with measured ones or with a plan's predicted ones.

    A run that left no profile is no plan: all are predicted then.
    """
    alike = all(other.measured or other.kind == "plan" for other in subjects)
    return "measured" if subject.measured and alike else "predicted"


def _estimate(each: Compared) -> Estimate:
    return step_estimate(each.document, each.clock)


def _rate(each: Compared) -> float:
    """Images per second."""
    return each.document.batch_size / _estimate(each).value


def _verdict(quotient: Estimate) -> str:
    if quotient.undecided:
        return "no difference"
    return "less time" if quotient.value < 1 else "more time"


def _summary(compared: Mapping[Compared, Subject]) -> Section:
    first, *others = compared
    facts = [
        (
            f"Step of {each.name}, {each.clock}", seconds(_estimate(each).value),
            f"{digits(_rate(each))} images/s",
        )
        for each in compared
    ]  # fmt: skip
    for each in others:
        quotient = _estimate(each).over(_estimate(first))
        interval = f"{ratio(quotient.low)} to {ratio(quotient.high)}"
        name = f"Step, {each.name} over {first.name}"
        facts.append((name, ratio(quotient.value), f"{_verdict(quotient)}: {interval}"))
    sizes = [each.document.batch_size for each in compared]
    text = f"{'Both' if len(sizes) == 2 else 'All'} in batches of {sizes[0]}."
    if len(set(sizes)) > 1:
        rates = (f"{ratio(_rate(each) / _rate(first))} times in {each.name}" for each in others)
        text = (
            f"Batches of {', '.join(map(str, sizes[:-1]))} and of {sizes[-1]}; images/s are"
            f" {', '.join(rates)}."
        )
    networks = [
        f"{each.name} is {each.document.network}"
        for each in compared
        if each.name != each.document.network
    ]
    text = " ".join(
        ("Ratios are over the first.", *(f"{name}." for name in networks), text,
         _clocks_text([*compared]))
    )  # fmt: skip
    notes = [f"{each.name}: {note}" for each, of in compared.items() for note in of.notes]
    return Section("summary", "In short", text, facts=facts, notes=notes)


def _clocks_text(compared: Sequence[Compared]) -> str:
    wheres = {each.name: getattr(each.document, "where", "") for each in compared}
    measured = [each.name for each in compared if each.clock == "measured"]
    if not measured:
        machines = ", and ".join(dict.fromkeys(each.document.machine for each in compared))
        whether = "Not all were" if any(wheres.values()) else "None was"
        return f"{whether} measured, so predicted times are compared: {machines}."
    if len(measured) == len(compared):
        text = "All were measured." if len(measured) > 2 else "Both were measured."
        if len(set(wheres.values())) > 1:
            text += f" They did not run alike: {', and '.join(wheres.values())}."
        return text
    said = []
    for each in compared:
        machine = f"{each.document.machine} with {each.document.library}"
        was = f"was measured ({wheres[each.name]})"
        said.append(
            f"{each.name} {was if each.name in measured else f'is predicted for {machine}'}"
        )
    return f"{', '.join(said)}."


def _steps(compared: Sequence[Compared]) -> Section:
    first = _estimate(compared[0])
    rows = [
        (f"{each.name}, {clock}", step, step.over(first), each.document.batch_size / step.value)
        for each in compared
        for clock in clocks_of(each.document)
        for step in [step_estimate(each.document, clock)]
    ]
    base = f"{compared[0].name}, {compared[0].clock}"
    steps = table(
        "step-table", f"Steps, and their ratios to {base}", rows,
        {
            "step": lambda row: row[0],
            "ms": lambda row: ms(row[1].value),
            "from": lambda row: ms(row[1].low),
            "to": lambda row: ms(row[1].high),
            "images/s": lambda row: number(row[3]),
            "ratio": lambda row: number(1.0 if row[0] == base else row[2].value),
            "ratio from": lambda row: "" if row[0] == base else number(row[2].low),
            "ratio to": lambda row: "" if row[0] == base else number(row[2].high),
            "difference": lambda row: "" if row[0] == base else _verdict(row[2]),
        },
    )  # fmt: skip
    text = (
        "Intervals of measured steps hold 8 of 10 rounds, those of predicted ones the truth 9 times"
        " in 10. A ratio's interval comes from both; where it holds 1, no difference is shown."
    )
    figure = Figure("steps-side-by-side", "Time of a step", text)
    return Section("steps", "Step times", figures=[figure], tables=[steps])


def _settings(compared: Mapping[Compared, Subject]) -> Section:
    told = {each.name: described(subject) for each, subject in compared.items()}
    keys = dict.fromkeys(chain.from_iterable(told.values()))
    differing = [key for key in keys if len({pairs.get(key) for pairs in told.values()}) > 1]
    settings = Table(
        id="settings-table",
        caption="Settings that differ",
        columns=("setting", *told),
        rows=tuple((key, *(of.get(key, "–") for of in told.values())) for key in differing),
    )
    counted = "1 setting differs" if len(differing) == 1 else f"{len(differing)} settings differ"
    alike = len(keys) - len(differing)
    text = f"{counted}, {alike} are the same; – stands for what one does not say."
    tables = [settings] if differing else []
    return Section("what-differs", "What differs", text, tables=tables, folded=True)


def _curves(compared: Mapping[Compared, Subject]) -> list[Section]:
    runs = {each.name: subject.metrics for each, subject in compared.items() if subject.metrics}
    if not runs:
        return []
    noisy = ""
    if any(len(metrics) >= NOISY for metrics in runs.values()):
        noisy = " Strong lines are means over a twentieth of the steps."
    figures = []
    for field, title, scale, unit in _CURVES:
        said = "; ".join(
            f"{name} ends at {digits(scale * getattr(metrics[-1], field))}{unit}"
            f" after {metrics[-1].step:,} steps"
            for name, metrics in runs.items()
        )
        figures.append(Figure(f"all-{field}", title, f"{said}.{noisy}", wide=field == "loss"))
    tables = [
        metric_table(metrics, f"metrics-table-{index}", name)
        for index, (name, metrics) in enumerate(runs.items())
    ]
    return [Section("curves", "Loss and error", figures=figures, tables=tables)]


def _layers(compared: Sequence[Compared]) -> Section:
    one_clock = len({each.clock for each in compared}) == 1
    names = [each.name if one_clock else f"{each.name}, {each.clock}" for each in compared]
    by_name = [{layer.name: layer for layer in each.document.layers} for each in compared]
    totals = [sum(layer_s(layer, c.clock) for layer in c.document.layers) for c in compared]
    heads = ["ratio", "difference, ms"] if len(names) == 2 else [f"{n}, ratio" for n in names[1:]]
    layers = Table(
        id="layer-table",
        caption=f"Layers, {f'{compared[0].clock} ' if one_clock else ''}milliseconds per step; a"
        f" ratio is over {names[0]}, and ≈ says that its interval holds 1",
        columns=("layer", *(f"{name}, ms" for name in names), *heads),
        rows=tuple(
            (name, *_layer_cells([of.get(name) for of in by_name], compared))
            for name in layer_names(compared)
        ),
        foot=(("all layers", *_cells(totals, [None] * len(totals))),),
        sortable=True,
    )
    times = (f"{seconds(t)} in {c.name}" for t, c in zip(totals, compared, strict=True))
    text = f"All layers take {', '.join(times)}. All on the same scale."
    figure = Figure("layers-side-by-side", "Time by layer", text)
    return Section("layers", "Layers side by side", figures=[figure], tables=[layers])


def _layer_cells(layers: Sequence[PlannedLayer | None], compared: Sequence[Compared]) -> list[Cell]:
    pairs = list(zip(layers, compared, strict=True))
    times = [layer_s(layer, each.clock) if layer else None for layer, each in pairs]
    return _cells(times, [layer_estimate(layer, each.clock) for layer, each in pairs])


def _cells(times: Sequence[float | None], estimates: Sequence[Estimate | None]) -> list[Cell]:
    """Times, and those of the others over the first's."""
    cells = [Cell("–") if value is None else ms(value) for value in times]
    first, base = times[0], estimates[0]
    for value, estimate in zip(times[1:], estimates[1:], strict=True):
        quotient = value / first if first and value is not None else None
        alike = base and estimate and estimate.over(base).undecided
        cells.append(Cell(("≈ " if alike else "") + ratio(quotient), quotient))
        if len(times) == 2:
            change = value - first if value is not None and first is not None else None
            cells.append(number(change, lambda s: ("+" if s > 0 else "") + milliseconds(s)))
    return cells


def _memory(compared: Mapping[Compared, Subject]) -> Section:
    devices = {
        f"{each.name}, {device.name}": device
        for each in compared
        for device in each.document.memory.devices
    }
    said = []
    for each, subject in compared.items():
        fullest = max(device.planned_bytes for device in each.document.memory.devices)
        text = f"{each.name}: {format_bytes(fullest)} on its fullest GPU"
        text += f", {with_context(each.document.memory.devices)}"
        if budget := subject.budget:
            of = f"{format_bytes(budget.bytes)} ({budget.source})"
            text += f": {percent(fullest / budget.bytes)} of {of}"
        said.append(text + ".")
    figure = Figure("memory-side-by-side", "Memory of each GPU", " ".join(said))
    tables = [category_table(devices, None, "memory-table")]
    return Section("memory", "Memory", figures=[figure], tables=tables)
