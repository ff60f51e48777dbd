"""PyTorch's step of the same module beside ours, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from alexsim.profile.beside import Comparison, Group, compared
from alexsim.profile.step_profile import Beside, Ratio, StepProfile
from alexsim.report.tables import plain_table
from alexsim.units import MIB

ITSELF = "(itself)"
"""The whole module, for what stands in no other."""


def beside_tables(profile: StepProfile, *, wide: bool) -> Iterator[RenderableType]:
    """Group by group, then the steps; nothing where no module was measured."""
    comparison, beside = compared(profile), profile.beside
    if comparison is None or beside is None:
        return
    yield _groups(comparison, wide=wide)
    yield Text("\n".join(_steps(profile, beside)))


def _groups(comparison: Comparison, *, wide: bool) -> RenderableType:
    passes = ("forward", "eager", "backward", "eager") if wide else ()
    out = plain_table(
        "ms per step, beside PyTorch",
        "group", *passes, "ours", "eager", "eager/ours",
    )  # fmt: skip
    for group in comparison.groups:
        ours, eager = group.ours, group.eager
        pairs = [
            (ours.forward_s if ours else 0.0, eager.forward_s),
            (ours.backward_s if ours else 0.0, eager.backward_s),
        ]
        times = [ms(seconds) for pair in pairs for seconds in pair] if wide else []
        out.add_row(group.name or ITSELF, *times, *_row(group))
    out.add_section()
    for name, pair in (
        ("cost", comparison.loss),
        ("update", comparison.update),
        ("rest", comparison.rest),
        ("timed step", comparison.step),
    ):
        ours_s, eager_s = pair
        ratio = eager_s / ours_s if ours_s > 0 and name != "rest" else None
        out.add_row(name, *[""] * len(passes), ms(ours_s), ms(eager_s), _times(ratio))
    return out


def _row(group: Group) -> list[str]:
    ours_s = group.ours.all_s if group.ours else 0.0
    return [ms(ours_s), ms(group.eager.all_s), _times(group.ratio)]


def _steps(profile: StepProfile, beside: Beside) -> Iterator[str]:
    """The steps without timing, and what each compares with."""
    eager, compiled = beside.eager, beside.compiled
    held = ", ".join(f"{each.planned_bytes / MIB:,.1f}" for each in profile.held)
    texts = [f"ours {ms(profile.step.median_s)}", f"eager {ms(eager.untimed.median_s)}"]
    texts += [f"compiled {ms(compiled.untimed.median_s)}"] if compiled else []
    yield f"PyTorch {eager.torch} on the same module and minibatch, steps in turns"
    yield f"without timing, ms: {', '.join(texts)}"
    if beside.over_ours:
        yield f"  eager over ours {_interval(beside.over_ours)}"
    if compiled:
        if compiled.over_ours:
            yield f"  compiled over ours {_interval(compiled.over_ours)}"
        yield f"  compiled over eager {_interval(compiled.over_eager)}"
        yield f"  torch.compile took {compiled.compile_s:,.1f} s, in no step's time"
    else:
        yield f"  nothing compiled: {beside.why_not}"
    yield f"  eager's step held {eager.held_bytes / MIB:,.1f} MiB" + (
        f", ours {held} planned" if held else ""
    )
    yield "  all in this process, by its threads and allocator; eager's memory formats as"
    yield "  the module has them; eager's groups take in what lies between their ops"


def group_lines(profile: StepProfile, layer: str) -> Iterator[str]:
    """Where a layer's group stands; nothing where no module was measured, or it has none."""
    comparison = compared(profile)
    for group in comparison.groups if comparison else ():
        if layer in group.layers and group.ours:
            ratio = f", {_times(group.ratio)} times ours" if group.ratio else ""
            yield f"beside PyTorch, {group.name or ITSELF}: {', '.join(group.layers)}"
            yield (
                f"  ours {ms(group.ours.forward_s)} + {ms(group.ours.backward_s)} ms, eager"
                f" {ms(group.eager.forward_s)} + {ms(group.eager.backward_s)} ms{ratio}"
            )


def _interval(ratio: Ratio) -> str:
    # Of fewer pairs the smallest and the largest are all that there is.
    share = "95 %" if ratio.pairs >= 6 else f"all {ratio.pairs} rounds"
    return f"{_times(ratio.median)} ({share}: {_times(ratio.low)} to {_times(ratio.high)})"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def ms(seconds: float) -> str:
    """Milliseconds; nothing of none."""
    if not seconds:
        return ""
    places = 2 if abs(seconds) < 0.01 else 1 if abs(seconds) < 1 else 0
    return f"{1e3 * seconds:,.{places}f}"
