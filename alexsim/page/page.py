"""The page: sections on one subject, or on several beside each other, as one HTML text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure as Plot
from plotly.offline import get_plotlyjs

from alexsim.documents.run import RunRecipe
from alexsim.page.beside import beside_section
from alexsim.page.curves import curve_section, telemetry_section
from alexsim.page.elements import Section
from alexsim.page.figures.memory import with_context
from alexsim.page.figures.style import CONFIG, DARK, LIGHT
from alexsim.page.figures.text import digits, percent, scaled, seconds
from alexsim.page.filters import filter_section
from alexsim.page.inputs import Subject
from alexsim.page.memory import memory_section
from alexsim.page.steps import (
    layer_section,
    roofline_section,
    timeline_section,
)
from alexsim.page.traffic import sums_of, totals_of, traffic_section
from alexsim.strict_json import json_text
from alexsim.units import format_bytes

_KINDS = {"run": "Training run", "profile": "Profile", "plan": "Plan"}


def page(subject: Subject) -> str:
    """One subject as HTML."""
    document = subject.document
    sections = [
        _summary(subject),
        curve_section(subject),
        layer_section(document),
        beside_section(document),
        roofline_section(document),
        timeline_section(document),
        traffic_section(document),
        memory_section(document, subject.budget),
        filter_section(subject),
        telemetry_section(subject),
        _settings(subject),
    ]
    kept = [section for section in sections if section is not None]
    return rendered(title(subject), _KINDS[subject.kind], kept, subject.figures())


def title(subject: Subject) -> str:
    """What it is, in a line."""
    document, measured = subject.document, subject.measured
    on = measured.where if measured else document.machine
    return f"{document.network}, batch {document.batch_size}: {subject.name} on {on}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("alexsim.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rendered(
    heading: str, kind: str, sections: Sequence[Section], plots: Mapping[str, Plot]
) -> str:
    """Sections as a page; ``plots`` has what its figures show, by their ids."""
    environment = _environment()
    return environment.get_template("page.html.j2").render(
        heading=heading,
        kind=kind,
        sections=sections,
        version=version("alexsim"),
        palette=Markup(_palette()),
        style=_own(environment, "style.css"),
        # Names may be anything: a script ends at its first "</script", wherever that stands.
        drawn=Markup(_drawn(plots)),
        heights={name: plot.layout.height for name, plot in plots.items()},
        plotly=_library(),
        sort=_own(environment, "sort.js"),
        figures=_own(environment, "figures.js"),
    )


@cache
def _library() -> Markup:
    return Markup(get_plotlyjs())


def _drawn(plots: Mapping[str, Plot]) -> str:
    """What the page's script draws: every figure by its id, and what dark colours replace."""
    figures = {name: json.loads(plot.to_json()) for name, plot in plots.items()}
    colours = {LIGHT[name]: DARK[name] for name in LIGHT}
    drawn = {"figures": figures, "colours": colours, "config": CONFIG}
    # Names may be anything, and a script ends at its first "</script", wherever that stands.
    return json_text(drawn, separators=(",", ":")).replace("<", "\\u003c")


def _palette() -> str:
    """The style sheet's colours; those of print are the light ones."""
    light, dark = (
        f":root {{ {' '.join(f'--{name}: {value};' for name, value in colours.items())} }}"
        for colours in (LIGHT, DARK)
    )
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n@media print {{ {light} }}"


def _own(environment: Environment, name: str) -> Markup:
    """A file of ours: it goes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _summary(subject: Subject) -> Section:
    return Section(
        "summary", "In short", _sentence(subject), facts=[*_facts(subject)], notes=subject.notes
    )


def _sentence(subject: Subject) -> str:
    document, measured = subject.document, subject.measured
    gpus = len(document.memory.devices)
    split = "one GPU" if gpus == 1 else f"{gpus} GPUs"
    text = f"{document.network} on {split}, {document.batch_size:,} images per step"
    if document.sharing:
        text = f"{document.network}, {document.sharing}"
    text += f"; memory policy {document.policy}, schedule {document.schedule}."
    if measured:
        text += f" Measured on this machine ({measured.where}), medians of {measured.rounds} steps."
    return f"{text} Predicted for {document.machine} with {document.library}."


def _facts(subject: Subject) -> Iterator[tuple[str, str, str]]:
    document, measured = subject.document, subject.measured
    batch = document.batch_size
    if document.sharing:
        images = f"{document.images_per_gpu:,} of a step's {batch:,} images"
        if document.images_per_gpu == batch:
            images = f"all {batch:,} images of a step"
        images += " in all convolutions" if document.partition == "hybrid" else ""
        yield "GPUs", f"{document.gpus:,}", f"each with {images}"
    if measured:
        low, high = measured.step_s_interval
        yield (
            "Step, measured",
            seconds(measured.step_s),
            f"{seconds(low)} to {seconds(high)}; {digits(batch / measured.step_s)} images/s",
        )
    low, high = document.predicted_step_s_interval
    yield (
        "Step, predicted",
        seconds(document.predicted_step_s),
        f"{seconds(low)} to {seconds(high)}, 9 in 10;"
        f" {digits(batch / document.predicted_step_s)} images/s"
        + (f"; {document.predicted_parts.text}" if document.predicted_parts else ""),
    )
    if subject.metrics:
        last = subject.metrics[-1]
        taken = sum(line.step_s for line in subject.metrics)
        yield (
            "Training, data included",
            f"{digits(batch * len(subject.metrics) / taken)} images/s",
            f"{percent(sum(line.data_wait_s for line in subject.metrics) / taken)} of the time was"
            " waiting for images",
        )
        yield (
            "Last training loss",
            digits(last.loss, 4),
            f"step {last.step:,}; top-1 error {percent(last.top1)} of the batch",
        )
    if subject.held_out:
        scores = subject.held_out[-1].scores
        yield (
            "Top-1 error, held out",
            percent(scores.top1),
            f"top-5 error {percent(scores.top5)}, loss {digits(scores.loss, 4)}",
        )
    fullest = max(document.memory.devices, key=lambda device: device.planned_bytes)
    budget = subject.budget
    share, context = "planned", with_context([fullest])
    if budget:
        share = f"{percent(fullest.planned_bytes / budget.bytes)} of {format_bytes(budget.bytes)}"
        if fullest.planned_bytes > budget.bytes:
            share = f"does not fit: {share}"
    yield (
        "Memory of a GPU",
        format_bytes(fullest.planned_bytes),
        f"{fullest.name}; {share}; {context}",
    )
    # Layers and exchanges are those of one replica.
    copies = document.gpus // len(document.memory.devices) or 1
    if document.exchanges:
        moved = sum(exchange.bytes for exchange in document.exchanges)
        note = f"in {len(document.exchanges)} exchanges" + (" of a replica" if copies > 1 else "")
        yield "Exchanged per step", format_bytes(moved), note
    if summed := totals_of(sums_of(document)):
        most = max(summed, key=lambda each: each.bytes)
        yield "All-reduce of gradients", format_bytes(most.bytes), f"{most.device}; {most.text}"
    flop = copies * sum(layer.training_flop for layer in document.layers)
    rate = f"{scaled(flop / measured.step_s, 'FLOP/s')} reached" if measured else ""
    yield "Arithmetic per step", scaled(flop, "FLOP"), rate or "multiply-adds count two"


def _settings(subject: Subject) -> Section:
    name = "What ran where" if subject.kind != "plan" else "What is planned"
    return Section("what-ran", name, pairs=[*described(subject).items()], folded=True)


def described(subject: Subject) -> dict[str, str]:
    """Everything that was set, by name."""
    document, measured = subject.document, subject.measured
    pairs = {
        "network": document.network,
        "batch size": str(document.batch_size),
        "GPUs": str(document.gpus or len(document.memory.devices)),
        "memory policy": document.policy,
        "schedule": document.schedule,
    }
    if measured:
        ceilings = measured.ceilings
        pairs |= {
            "ran on": measured.where,
            "ceilings measured there": f"{scaled(ceilings.flop_per_s, 'FLOP/s')},"
            f" {scaled(ceilings.bytes_per_s, 'B/s')}",
            "steps timed": str(measured.rounds),
        }
    pairs |= {"predicted machine": document.machine, "predicted library": document.library}
    if subject.metrics:
        # Those of a run that was resumed too; "steps" is what was asked for.
        pairs["steps done"] = f"{subject.metrics[-1].step:,}"
    if subject.config is None:
        return pairs
    shown = {"network", "batch_size", "gpus", "policy", "schedule"}
    for key, value in subject.config.settings:
        if isinstance(value, RunRecipe):
            pairs |= _recipe(value)
        elif key not in shown and value is not None:
            pairs[key.replace("_", " ")] = _told(key, value)
    if subject.config.data_fingerprint:
        pairs["data fingerprint"] = subject.config.data_fingerprint
    for name, number in subject.config.versions.items():
        pairs[f"version of {name}"] = number
    return pairs


def _recipe(recipe: RunRecipe) -> dict[str, str]:
    """A recipe's numbers, its stages in one line."""
    stages = []
    for stage in recipe.stages:
        parts = [f"rate {stage.weight_rate:g}"]
        if recipe.optimizer == "sgd-2012":
            parts = [f"{parts[0]}, biases {stage.bias_rate:g}"]
        parts += [f"{layer} {rate:g}" for layer, rate in stage.layer_rates.items()]
        parts += ["colour noise"] if stage.colour_noise else []
        parts += [f"{', '.join(stage.frozen)} frozen"] if stage.frozen else []
        stages.append(f"from epoch {stage.from_epoch}: {', '.join(parts)}")
    told = dict(recipe)
    plain = (
        "optimizer", "momentum", "weight_decay", "nesterov", "decay_all", "beta2", "epsilon",
        "augmentation", "normalisation",
    )  # fmt: skip
    return {
        "recipe": recipe.title,
        **{key.replace("_", " "): _told(key, told[key]) for key in plain if key in told},
        "stages": "; ".join(stages),
    }


def _told(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{format_bytes(value)} ({value:,} bytes)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
