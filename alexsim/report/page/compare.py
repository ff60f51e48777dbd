"""Several subjects beside each other: what differs, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from alexsim.report.documents.step import PlannedLayer
from alexsim.report.figures.compare import (
    Compared,
    Estimate,
    layer_estimate,
    layer_names,
    layers_compared,
    memory_compared,
    step_estimate,
    steps_compared,
)
from alexsim.report.figures.curves import NOISY, overlaid
from alexsim.report.figures.passes import Clock, clocks_of, layer_s
from alexsim.report.figures.text import digits, percent, ratio, seconds
from alexsim.report.page.curves import metric_table
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Section,
    Table,
    number_columns,
    text_columns,
    words,
)
from alexsim.report.page.inputs import Subject
from alexsim.report.page.memory import category_table
from alexsim.report.page.page import described, rendered
from alexsim.report.page.steps import time
from alexsim.units import format_bytes

_CURVES = (
    ("loss", "Training loss", 1.0, ""),
    ("top1", "Training error, top-1", 100.0, " %"),
    ("top5", "Training error, top-5", 100.0, " %"),
)


def comparison(*subjects: Subject) -> str:
    """Two subjects or more as one HTML text; what is said of the others is over the first."""
    compared = [
        Compared(name=name, document=subject.document, clock=_clock(subject, subjects))
        for name, subject in zip(_names(subjects), subjects, strict=True)
    ]
    sections = [
        _summary(subjects, compared),
        _steps(compared),
        _curves(subjects, compared),
        _layers(compared),
        _memory(subjects, compared),
        _settings(subjects, compared),
    ]
    heading = " beside ".join(each.name for each in compared)
    kept = [section for section in sections if section is not None]
    return rendered(heading, "Comparison", kept)


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


def _verdict(quotient: Estimate) -> str:
    if quotient.undecided:
        return "no difference"
    return "less time" if quotient.value < 1 else "more time"


def _summary(subjects: Sequence[Subject], compared: Sequence[Compared]) -> Section:
    first, *others = compared
    facts = []
    for each in compared:
        step = _estimate(each)
        rate = f"{digits(each.document.batch_size / step.value)} images/s"
        facts.append((f"Step of {each.name}, {each.clock}", seconds(step.value), rate))
    for each in others:
        quotient = _estimate(each).over(_estimate(first))
        facts.append(
            (
                f"Step, {each.name} over {first.name}",
                ratio(quotient.value),
                f"{_verdict(quotient)}: {ratio(quotient.low)} to {ratio(quotient.high)}",
            )
        )
    sizes = [each.document.batch_size for each in compared]
    text = "Ratios are over the first. "
    text += (
        f"{'Both' if len(sizes) == 2 else 'All'} in batches of {sizes[0]}. "
        if len(set(sizes)) == 1
        else f"Batches of {', '.join(map(str, sizes[:-1]))} and of {sizes[-1]}: "
        + ", ".join(
            f"{ratio(rate)} times the images/s in {each.name}"
            for each in others
            for rate in [_rate(each) / _rate(first)]
        )
        + ". "
    )
    notes = tuple(
        f"{each.name}: {note}"
        for subject, each in zip(subjects, compared, strict=True)
        for note in subject.notes
    )
    return Section(
        id="summary",
        title="In short",
        text=text + _clocks_text(subjects, compared),
        facts=tuple(facts),
        notes=notes,
    )


def _rate(each: Compared) -> float:
    return each.document.batch_size / _estimate(each).value


def _clocks_text(subjects: Sequence[Subject], compared: Sequence[Compared]) -> str:
    measured = {
        each.name: subject.measured.where
        for subject, each in zip(subjects, compared, strict=True)
        if subject.measured and each.clock == "measured"
    }
    predicted = {
        each.name: f"{each.document.machine} with {each.document.library}"
        for each in compared
        if each.clock == "predicted"
    }
    if not measured:
        machines = ", and ".join(each.document.machine for each in compared)
        return f"Not all were measured, so predicted times are compared: {machines}."
    if not predicted:
        text = "All were measured." if len(measured) > 2 else "Both were measured."
        if len(set(measured.values())) > 1:
            text += f" They did not run alike: {', and '.join(measured.values())}."
        return text
    parts = [f"{name} was measured ({where})" for name, where in measured.items()]
    parts += [f"{name} is predicted for {where}" for name, where in predicted.items()]
    return ", ".join(parts) + "."


def _steps(compared: Sequence[Compared]) -> Section:
    first = compared[0]
    rows = []
    for each in compared:
        for clock in clocks_of(each.document):
            step = step_estimate(each.document, clock)
            quotient = step.over(_estimate(first))
            is_first = each is first and clock == first.clock
            rows.append(
                (
                    *words(f"{each.name}, {clock}"),
                    time(step.value),
                    time(step.low),
                    time(step.high),
                    Cell(text=digits(each.document.batch_size / step.value)),
                    *(Cell(text=ratio(v)) for v in (quotient.value, quotient.low, quotient.high)),
                    *words("" if is_first else _verdict(quotient)),
                )
            )
    table = Table(
        id="step-table",
        caption=f"Steps, and their ratios to {first.name}, {first.clock}",
        columns=text_columns("step")
        + number_columns("ms", "from", "to", "images/s", "ratio", "ratio from", "ratio to")
        + text_columns("difference"),
        rows=tuple(rows),
    )
    text = (
        "Intervals of measured steps hold 8 of 10 rounds, those of predicted ones the truth 9 times"
        " in 10. A ratio's interval comes from both; where it holds 1, no difference is shown."
    )
    figure = Figure(
        id="steps-side-by-side", title="Time of a step", text=text, drawing=steps_compared(compared)
    )
    return Section(id="steps", title="Step times", figures=(figure,), tables=(table,))


def _settings(subjects: Sequence[Subject], compared: Sequence[Compared]) -> Section:
    told = [described(subject) for subject in subjects]
    keys = list(dict.fromkeys(chain.from_iterable(told)))
    differing = [key for key in keys if len({each.get(key) for each in told}) > 1]
    table = Table(
        id="settings-table",
        caption="Settings that differ",
        columns=text_columns("setting", *(each.name for each in compared)),
        rows=tuple(words(key, *(each.get(key, "–") for each in told)) for key in differing),
    )
    counted = "1 setting differs" if len(differing) == 1 else f"{len(differing)} settings differ"
    text = (
        f"{counted}, {len(keys) - len(differing)} are the same; – stands for what one does not say."
    )
    return Section(
        id="what-differs",
        title="What differs",
        text=text,
        tables=(table,) if differing else (),
        folded=True,
    )


def _curves(subjects: Sequence[Subject], compared: Sequence[Compared]) -> Section | None:
    runs = {
        each.name: subject.metrics
        for subject, each in zip(subjects, compared, strict=True)
        if subject.metrics
    }
    if not runs:
        return None
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
        figures.append(
            Figure(
                id=f"all-{field}",
                title=title,
                text=f"{said}.{noisy}",
                drawing=overlaid(runs, field, scale),
                wide=field == "loss",
            )
        )
    tables = tuple(
        metric_table(metrics, f"metrics-table-{index}", name)
        for index, (name, metrics) in enumerate(runs.items())
    )
    return Section(id="curves", title="Loss and error", figures=tuple(figures), tables=tables)


def _layers(compared: Sequence[Compared]) -> Section:
    one_clock = len({each.clock for each in compared}) == 1
    clock = f"{compared[0].clock} " if one_clock else ""
    names = [each.name if one_clock else f"{each.name}, {each.clock}" for each in compared]
    by_name = [{layer.name: layer for layer in each.document.layers} for each in compared]
    totals = [sum(layer_s(layer, c.clock) for layer in c.document.layers) for c in compared]
    first, *others = names
    table = Table(
        id="layer-table",
        caption=f"Layers, {clock}milliseconds per step; a ratio is over {first}, and ≈ says that"
        " its interval holds 1",
        columns=text_columns("layer")
        + number_columns(
            *(f"{name}, ms" for name in names),
            *(("ratio", "difference, ms") if len(others) == 1 else (f"{n}, ratio" for n in others)),
        ),
        rows=tuple(
            _layer_row(name, [layers.get(name) for layers in by_name], compared)
            for name in layer_names(compared)
        ),
        foot=(_row("all layers", totals, [None] * len(totals)),),
        sortable=True,
    )
    text = "All layers take " + ", ".join(
        f"{seconds(total)} in {each.name}" for total, each in zip(totals, compared, strict=True)
    )
    figure = Figure(
        id="layers-side-by-side",
        title="Time by layer",
        text=f"{text}. All on the same scale.",
        drawing=layers_compared(compared),
    )
    return Section(id="layers", title="Layers side by side", figures=(figure,), tables=(table,))


def _layer_row(
    name: str, layers: Sequence[PlannedLayer | None], compared: Sequence[Compared]
) -> tuple[Cell, ...]:
    pairs = list(zip(layers, compared, strict=True))
    times = [layer_s(layer, each.clock) if layer else None for layer, each in pairs]
    return _row(name, times, [layer_estimate(layer, each.clock) for layer, each in pairs])


def _row(
    name: str, times: Sequence[float | None], estimates: Sequence[Estimate | None]
) -> tuple[Cell, ...]:
    """Times, and those of the others over the first's."""
    cells = [Cell(text="–") if value is None else time(value) for value in times]
    first, base = times[0], estimates[0]
    for value, estimate in zip(times[1:], estimates[1:], strict=True):
        quotient = value / first if first and value is not None else None
        alike = base and estimate and estimate.over(base).undecided
        cells.append(Cell(text=("≈ " if alike else "") + ratio(quotient), value=quotient))
        if len(times) == 2:
            change = value - first if value is not None and first is not None else None
            sign = "+" if change and change > 0 else ""
            cells.append(Cell(text=sign + time(change).text, value=change))
    return (Cell(text=name), *cells)


def _memory(subjects: Sequence[Subject], compared: Sequence[Compared]) -> Section:
    devices = {
        f"{each.name}, {device.name}": device
        for each in compared
        for device in each.document.memory.devices
    }
    said = []
    for subject, each in zip(subjects, compared, strict=True):
        fullest = max(device.planned_bytes for device in each.document.memory.devices)
        text = f"{each.name}: {format_bytes(fullest)} on its fullest GPU"
        if budget := subject.budget:
            text += f", {percent(fullest / budget.bytes)} of {format_bytes(budget.bytes)}"
        said.append(text + ".")
    figure = Figure(
        id="memory-side-by-side",
        title="Memory of each GPU",
        text=" ".join(said),
        drawing=memory_compared(compared),
    )
    return Section(
        id="memory",
        title="Memory",
        figures=(figure,),
        tables=(category_table(devices, None),),
    )
