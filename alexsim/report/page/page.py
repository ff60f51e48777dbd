"""The page: sections on one subject, or on two beside each other, as one HTML text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alexsim.report.page.bars import layer_bars
from alexsim.report.page.curves import curves, telemetry
from alexsim.report.page.elements import Section
from alexsim.report.page.filters import filter_figures, filter_table
from alexsim.report.page.inputs import Subject
from alexsim.report.page.layers import count_table, layer_table
from alexsim.report.page.memory import alive_table, budget_bars, through_the_step
from alexsim.report.page.roofline import roofline
from alexsim.report.page.text import digits, percent, scaled, seconds
from alexsim.report.page.timeline import timeline, traffic
from alexsim.units import format_bytes

_KINDS = {"run": "Training run", "profile": "Profile", "plan": "Plan"}


def page(subject: Subject) -> str:
    """One subject as HTML."""
    sections = [
        section
        for section in (
            _summary(subject),
            _settings(subject),
            _curves(subject),
            _layers(subject),
            _roofline(subject),
            _memory(subject),
            _timeline(subject),
            _traffic(subject),
            _filters(subject),
            _telemetry(subject),
        )
        if section is not None
    ]
    return rendered(title(subject), _KINDS[subject.kind], sections)


def title(subject: Subject) -> str:
    """What it is, in a line."""
    document = subject.document
    on = document["where"] if subject.measured else document["machine"]
    return f"{document['network']}, batch {document['batch_size']}: {subject.name} on {on}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("alexsim.report.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rendered(heading: str, kind: str, sections: list[Section]) -> str:
    """Sections as a page."""
    environment = _environment()
    return environment.get_template("page.html.j2").render(
        heading=heading,
        kind=kind,
        sections=sections,
        version=version("alexsim"),
        style=_own(environment, "style.css"),
        script=_own(environment, "sort.js"),
    )


def _own(environment: Environment, name: str) -> Markup:
    """A file of ours: it goes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _summary(subject: Subject) -> Section:
    return Section(
        id="summary",
        title="In short",
        text=_sentence(subject),
        facts=tuple(_facts(subject)),
        notes=subject.notes,
    )


def _sentence(subject: Subject) -> str:
    document = subject.document
    gpus = len(document["memory"]["devices"])
    split = "one GPU" if gpus == 1 else f"{gpus} GPUs"
    text = (
        f"{document['network']} on {split}, {document['batch_size']} images per step, memory"
        f" policy {document['policy']}, schedule {document['schedule']}."
    )
    if subject.measured:
        text += (
            f" Measured on this machine ({document['where']}), medians of"
            f" {document['rounds']} steps."
        )
    return f"{text} Predicted for {document['machine']} with {document['library']}."


def _facts(subject: Subject) -> Iterator[tuple[str, str, str]]:
    document, batch = subject.document, subject.document["batch_size"]
    if subject.measured:
        low, high = document["step_s_interval"]
        yield (
            "Step, measured",
            seconds(document["step_s"]),
            f"{seconds(low)} to {seconds(high)}; {digits(batch / document['step_s'])} images/s",
        )
    low, high = document["predicted_step_s_interval"]
    yield (
        "Step, predicted",
        seconds(document["predicted_step_s"]),
        f"{seconds(low)} to {seconds(high)}, 9 in 10;"
        f" {digits(batch / document['predicted_step_s'])} images/s"
        + (f"; {parts['text']}" if (parts := document.get("predicted_parts")) else ""),
    )
    if subject.metrics:
        last = subject.metrics[-1]
        yield (
            "Last training loss",
            digits(last["loss"], 4),
            f"step {last['step']:,}; top-1 error {percent(last['top1'])} of the batch",
        )
    if subject.held_out:
        found = subject.held_out[-1]["held_out"]
        yield (
            "Top-1 error, held out",
            percent(found["top1"]),
            f"top-5 error {percent(found['top5'])}, loss {digits(found['loss'], 4)}",
        )
    fullest = max(document["memory"]["devices"], key=lambda one: int(one["planned_bytes"]))
    budget = subject.budget
    share = (
        f"{percent(fullest['planned_bytes'] / budget[0])} of {format_bytes(budget[0])}"
        if budget
        else "planned"
    )
    yield "Memory of a GPU", format_bytes(fullest["planned_bytes"]), f"{fullest['name']}; {share}"
    if document["exchanges"]:
        moved = sum(one["bytes"] for one in document["exchanges"])
        yield (
            "Exchanged per step",
            format_bytes(moved),
            f"in {len(document['exchanges'])} exchanges",
        )
    flop = sum(
        layer["flop"] + layer["grad_input_flop"] + layer["grad_weight_flop"]
        for layer in document["layers"]
    )
    rate = f"{scaled(flop / document['step_s'], 'FLOP/s')} reached" if subject.measured else ""
    yield "Arithmetic per step", scaled(flop, "FLOP"), rate or "multiply-adds count two"


def _settings(subject: Subject) -> Section:
    return Section(
        id="what-ran",
        title="What ran where" if subject.kind != "plan" else "What is planned",
        pairs=tuple(described(subject).items()),
    )


def described(subject: Subject) -> dict[str, str]:
    """Everything that was set, by name."""
    document = subject.document
    found = {
        "network": document["network"],
        "batch size": str(document["batch_size"]),
        "GPUs": str(len(document["memory"]["devices"])),
        "memory policy": document["policy"],
        "schedule": document["schedule"],
    }
    if subject.measured:
        found |= {
            "ran on": document["where"],
            "ceilings measured there": f"{scaled(document['ceilings']['flop_per_s'], 'FLOP/s')},"
            f" {scaled(document['ceilings']['bytes_per_s'], 'B/s')}",
            "steps timed": str(document["rounds"]),
        }
    found |= {"predicted machine": document["machine"], "predicted library": document["library"]}
    if subject.metrics:
        # Those of a run that was resumed too; "steps" is what was asked for.
        found["steps done"] = f"{subject.metrics[-1]['step']:,}"
    if subject.config is None:
        return found
    shown = {"network", "batch_size", "gpus", "policy", "schedule"}
    for key, value in subject.config["settings"].items():
        if key == "recipe" and isinstance(value, dict):
            found |= _recipe(value)
        elif key not in shown:
            found[key.replace("_", " ")] = _told(key, value)
    if "data_fingerprint" in subject.config:
        found["data fingerprint"] = str(subject.config["data_fingerprint"])
    for name, number in subject.config["versions"].items():
        found[f"version of {name}"] = number
    return found


def _recipe(recipe: dict[str, Any]) -> dict[str, str]:
    """A recipe's numbers, its stages in one line."""
    stages = []
    for stage in recipe.get("stages", ()):
        parts = [f"rate {stage['weight_rate']:g}"]
        if recipe.get("optimizer", "sgd-2012") == "sgd-2012":
            parts = [f"{parts[0]}, biases {stage['bias_rate']:g}"]
        parts += [f"{layer} {rate:g}" for layer, rate in stage.get("layer_rates", {}).items()]
        parts += ["colour noise"] if stage.get("colour_noise") else []
        parts += [f"{', '.join(stage['frozen'])} frozen"] if stage.get("frozen") else []
        stages.append(f"from epoch {stage['from_epoch']}: {', '.join(parts)}")
    plain = (
        "optimizer", "momentum", "weight_decay", "nesterov", "decay_all", "beta2", "epsilon",
        "augmentation", "normalisation",
    )  # fmt: skip
    return {
        "recipe": str(recipe.get("title", "")),
        **{key.replace("_", " "): _told(key, recipe[key]) for key in plain if key in recipe},
        "stages": "; ".join(stages),
    }


def _told(key: str, value: Any) -> str:
    if key.endswith("_bytes"):
        return f"{format_bytes(value)} ({value:,} bytes)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _curves(subject: Subject) -> Section | None:
    if not subject.metrics:
        return None
    return Section(
        id="curves",
        title="Loss and error",
        figures=tuple(curves(subject.metrics, subject.held_out)),
    )


def _layers(subject: Subject) -> Section:
    document = subject.document
    text = ""
    if subject.measured:
        between = document["rest_s"] / document["timed_step_s"]
        moved = document["transfers_s"] / document["timed_step_s"]
        whole = seconds(document["timed_step_s"])
        layers, moves = percent(1 - between - moved), percent(moved)
        text = (
            f"Of the timed step of {whole}, layers take {layers}, uploads, exchanges and sums"
            f" {moves}, what lies between ops {percent(between)}."
            if between >= 0
            else f"The timed step took {whole}. Summed over GPUs, which ran beside each other,"
            f" layers take {layers} of that, uploads, exchanges, sums and waiting for them"
            f" {moves}."
        ) + (
            " The ceiling is what arithmetic or memory needs at the machine's own rates, over the"
            " time taken."
        )
    return Section(
        id="layers",
        title="Layers",
        text=text,
        figures=(layer_bars(document),),
        tables=(layer_table(document), count_table(document)),
    )


def _roofline(subject: Subject) -> Section | None:
    figure = roofline(subject.document)
    if figure is None:
        return None
    return Section(id="roof", title="What binds", figures=(figure,))


def _memory(subject: Subject) -> Section:
    document = subject.document
    devices = document["memory"]["devices"]
    clock = "measured" if document["spans"].get("measured") else "simulated"
    notes = tuple(
        f"{held['devices']}: the allocator held {format_bytes(held['measured_bytes'])} at most,"
        f" {format_bytes(held['planned_bytes'])} were planned."
        for held in document["memory"]["held"]
    )
    through = []
    for device in devices:
        spans = [one for one in document["spans"][clock] if one["device"] == device["name"]]
        through.append(through_the_step(device, spans, clock))
    return Section(
        id="memory",
        title="Memory",
        figures=(budget_bars(devices, subject.budget), *through),
        tables=tuple(alive_table(device) for device in devices),
        notes=notes,
    )


def _timeline(subject: Subject) -> Section | None:
    figure = timeline(subject.document)
    if figure is None:
        return None
    return Section(id="step", title="Timeline", figures=(figure,))


def _traffic(subject: Subject) -> Section:
    table = traffic(subject.document)
    if table is None:
        return Section(
            id="traffic", title="Traffic", text="One GPU holds everything: nothing is exchanged."
        )
    return Section(
        id="traffic",
        title="Traffic",
        text="Each exchange copies one column's activations, or their gradients, to the other GPU.",
        tables=(table,),
    )


def _filters(subject: Subject) -> Section | None:
    if not subject.filters:
        return None
    return Section(
        id="filters",
        title="First filters",
        figures=filter_figures(subject.filters, subject.checkpoint),
        tables=(filter_table(subject.filters),),
    )


def _telemetry(subject: Subject) -> Section | None:
    if not subject.samples:
        return None
    figures, table = telemetry(subject.samples, subject.cards)
    told = subject.document.get("telemetry") or {}
    joules = told.get("joules_per_image")
    return Section(
        id="telemetry",
        title="Cards",
        text=f"{joules:.3f} J per image." if joules is not None else "",
        figures=figures,
        tables=(table,),
    )
