"""What ``alexsim recommend`` answers, as terminal text."""

from __future__ import annotations

from textwrap import wrap

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.explore.pareto import Point
from alexsim.explore.recommend import Goal, Recommendation, command_of
from alexsim.network.network import Network
from alexsim.report.tables import plain_table
from alexsim.report.what_if import days_text
from alexsim.units import GIB


def recommend_tables(result: Recommendation, network: Network) -> RenderableType:
    """The goal, the answers or what comes nearest, and how many configurations there were."""
    answers: dict[str, Point] = {str(name): point for name, point in result.answers.items()}
    shown = answers or {"nearest": result.nearest}
    out = plain_table("", "", *shown)
    rows = [_rows(point, result.goal) for point in shown.values()]
    for name in rows[0]:
        out.add_row(name, *(cells[name] for cells in rows))
    without = "; ".join(f"{count:,} {why}" for why, count in result.left_out.items() if count)
    counts = f"{result.configurations:,} configurations: {result.simulated:,} simulated; {without}."
    unpriced = f"; {result.unpriced} machine(s) have no stated price" if result.unpriced else ""
    policy = next(iter(shown.values())).settings.get("policy", "as-released")
    notes = (
        f"What fits is by --policy {policy}; another holds more or less.\n"
        f"USD: the cards, when they came out{unpriced}.\n"
        "kWh: the cards, at data-sheet power.\n"
        "What a larger minibatch does to the errors of the network is not predicted."
    )
    first = next(iter(shown.values()))
    goal = Text(f"{network.name}, {_goal(result.goal)}")
    # In a shell it may be pasted, lines and all.
    command = " \\\n    ".join(wrap(command_of(first), 74, break_on_hyphens=False))
    return Group(goal, out, Text(command), Text(counts), Text(notes))


def nearest_text(result: Recommendation) -> str:
    """What comes nearest to the goal, in a line."""
    point, goal = result.nearest, result.goal
    price = "" if point.price_usd is None else f", {point.price_usd:,.0f} USD"
    rate = f"{point.images_per_s:,.0f} of {goal.least_images_per_s:,.0f} images/s"
    speed = f", {rate}" if goal.least_images_per_s else ""
    return (
        f"{point.gpus} x {point.settings['machine']}, batch {point.settings['batch']}{speed}{price}"
    )


def _goal(goal: Goal) -> str:
    rate = goal.least_images_per_s
    run = f"{goal.epochs} epochs of {goal.images:,} images"
    words = []
    if goal.days is not None:
        days = "1 day" if goal.days == 1 else f"{goal.days:g} days"
        words.append(f"{run} in {days}: {rate:,.0f} images/s")
    elif rate:
        words.append(f"{rate:,.0f} images/s, {run}")
    if goal.budget_usd is not None:
        words.append(f"cards for {goal.budget_usd:,.0f} USD")
    return ", ".join(words)


def _rows(point: Point, goal: Goal) -> dict[str, str]:
    settings = point.settings
    low, high = point.days_interval
    rows = {
        "machine": settings["machine"],
        "GPUs": str(point.gpus),
        "batch": settings["batch"],
        "partition": point.partition if point.gpus > 1 else "",
        "precision": settings["precision"],
        "days": f"{point.training_days:.3g}",
        "90 %": f"{days_text(low)} to {days_text(high)}",
        "images/s": f"{point.images_per_s:,.0f}",
        "GiB": f"{point.memory_bytes / GIB:.1f} of {point.device_memory_bytes / GIB:.1f}",
        "USD": "not stated" if point.price_usd is None else f"{point.price_usd:,.0f}",
        "kWh": f"{point.energy_kwh:,.3g}",
    }
    if goal.least_images_per_s and goal.met(point):
        rows["met at the upper bound"] = "yes" if goal.surely_met(point) else "no"
    return rows
