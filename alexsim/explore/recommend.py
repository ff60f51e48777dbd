"""The inverse question: of many configurations, those that meet a goal at least cost."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, MemoryBudgetError
from alexsim.explore.pareto import Point
from alexsim.explore.sweep import configuration_of, sweep
from alexsim.network.network import Network
from alexsim.plan.choices import Partition
from alexsim.simulate.simulator import planned
from alexsim.units import format_bytes

GPUS = ("1", "2", "4", "8", "16")
BATCHES = ("128", "256", "512", "1024")
PRECISIONS = ("fp32", "amp")
Answered = Literal["fastest", "cheapest", "least energy", "fewest cards"]
NO_SENSE, NO_ROOM = "have choices that do not go together", "do not fit their cards"
NO_PRICE, NO_MONEY = "have no price", "cost more than the budget"
TOO_SLOW, BEATEN = "are surely too slow", "surely beat no answer"
"""Why configurations are left out."""
_ALONE = 50
"""Configurations that one process simulates in about a second: deep networks take longest."""
_FEWER = 1 + 1e-9
"""Bounds are of steps simulated apart; rounding must not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a training must keep to; what is None is not asked for."""

    images: int
    epochs: int
    days: float | None = None
    images_per_s: float | None = None
    budget_usd: float | None = None

    @property
    def least_images_per_s(self) -> float:
        """The rate that is asked for, by itself or by the days; 0 where neither is."""
        if self.days is None:
            return self.images_per_s or 0.0
        return self.images * self.epochs / self.days / 86_400

    @property
    def answered(self) -> tuple[Answered, ...]:
        """What is looked for; the fastest only where no rate is asked for."""
        fastest: tuple[Answered, ...] = () if self.least_images_per_s else ("fastest",)
        return (*fastest, "cheapest", "least energy", "fewest cards")

    def met(self, point: Point) -> bool:
        """Whether a configuration meets it, as predicted."""
        if self.budget_usd is not None and not 0 < (point.price_usd or 0.0) <= self.budget_usd:
            return False
        return point.images_per_s >= self.least_images_per_s

    def surely_met(self, point: Point) -> bool:
        """Whether it does even at the upper bound of its step."""
        return point.images_per_s * point.step_s >= self.least_images_per_s * point.high_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The best configurations, and how many there were."""

    goal: Goal
    answers: Mapping[Answered, Point]
    """Empty where nothing meets the goal."""
    nearest: Point
    """What comes nearest to the goal, or meets it best."""
    configurations: int
    simulated: int
    """Also some of one replica alone, which bound what several can do."""
    left_out: Mapping[str, int]
    """How many were not simulated, by reason."""
    unpriced: int
    """Machines of which no sheet states a price: they are never the cheapest."""


def command_of(point: Point) -> str:
    """The command line that shows a configuration."""
    usual = {"precision": "fp32", "replicas": "1"}
    chosen = {key: value for key, value in point.settings.items() if usual.get(key) != value}
    return " ".join(("alexsim simulate", *(f"--{key} {value}" for key, value in chosen.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    settings: dict[str, str]
    gpus: int
    price_usd: float | None
    alone: tuple[tuple[str, str], ...]
    """The settings of one replica alone; empty where nothing is known of that."""


@dataclass(slots=True, kw_only=True)
class _Search:
    """Points so far, and the best of those that meet the goal."""

    goal: Goal
    points: dict[tuple[tuple[str, str], ...], Point] = field(default_factory=dict)
    best: dict[Answered, Point] = field(default_factory=dict)
    nearest: Point | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    unpriced: set[str] = field(default_factory=set)
    judged: int = 0

    def simulate(self, settings: Iterable[Mapping[str, str]], done: Callable[[int], None]) -> None:
        """Add the points of configurations; those that are known already are not simulated again.

        ``done`` gets how many are simulated.
        """
        new = [each for each in settings if tuple(each.items()) not in self.points]
        unique = {tuple(each.items()): each for each in new}
        for point in sweep(
            list(unique.values()),
            images=self.goal.images,
            epochs=self.goal.epochs,
            workers=min(len(os.sched_getaffinity(0)), 1 + len(unique) // _ALONE),
            done=done,
        ):
            self.points[tuple(point.settings.items())] = point

    def judge(self, point: Point) -> None:
        """Keep a configuration if it is the best of its kind so far."""
        self.judged += not point.error
        if point.error:
            self.left_out[NO_SENSE] += 1
            return
        if self.nearest is None or point.images_per_s > self.nearest.images_per_s:
            self.nearest = point
        if self.goal.met(point):
            for name in self.goal.answered:
                if name == "cheapest" and point.price_usd is None:
                    continue
                if name not in self.best or _rank(name, point) < _rank(name, self.best[name]):
                    self.best[name] = point

    def hopeless(self, candidate: _Candidate) -> str:
        """Why a configuration cannot be an answer; empty if it might.

        Of n replicas none is faster than one alone with its share of the images: so n times its
        rate, and its energy, bound theirs.
        """
        rate, energy_kwh = float("inf"), 0.0
        if alone := self.points.get(candidate.alone):
            if alone.error:
                return ""
            copies = candidate.gpus // alone.gpus
            rate, energy_kwh = copies * alone.images_per_s * _FEWER, alone.energy_kwh / _FEWER
        short = rate < self.goal.least_images_per_s
        if short and self.nearest and (self.best or rate <= self.nearest.images_per_s):
            return TOO_SLOW
        if not self.best:
            return ""
        cheapest, price = self.best.get("cheapest"), candidate.price_usd
        chances = [
            candidate.gpus <= self.best["fewest cards"].gpus,
            energy_kwh < self.best["least energy"].energy_kwh,
            price is not None and (cheapest is None or price <= (cheapest.price_usd or 0.0)),
            "fastest" in self.best and rate > self.best["fastest"].images_per_s,
        ]
        return "" if any(chances) else BEATEN

    def hopeful(self, level: Sequence[_Candidate]) -> list[_Candidate]:
        """Those that may be an answer."""
        kept = []
        for candidate in level:
            if why := self.hopeless(candidate):
                self.left_out[why] += 1
            else:
                kept.append(candidate)
        return kept


def _rank(name: Answered, point: Point) -> tuple[float, ...]:
    """By what an answer is chosen, and where that is the same, the faster."""
    first = {
        "fastest": -point.images_per_s,
        "cheapest": point.price_usd or 0.0,
        "least energy": point.energy_kwh,
        "fewest cards": point.gpus,
    }
    return first[name], -point.images_per_s


def partitions(network: Network) -> tuple[Partition, ...]:
    """How several GPUs share a step, unless it is said: as the network is written, and with a copy
    on each, as frameworks do."""
    return ("columns", "replicas") if network.columns > 1 else ("replicas",)


def recommend(
    goal: Goal,
    axes: Mapping[str, Sequence[str]],
    fixed: Mapping[str, str],
    *,
    done: Callable[[float], None] = lambda _: None,
) -> Recommendation:
    """Look for the best of all combinations that fit their memory.

    Few cards come first; of more cards only what may still be an answer is simulated.

    Args:
        goal: what must be met.
        axes: ``machine``, ``gpus``, ``batch``, ``partition`` and ``precision``.
        fixed: other settings, as a sweep has them; ``net`` too.
        done: gets the share of the work that is over. How many of the configurations with so many
            cards will be simulated shows as they come: each number of cards counts alike.

    Raises:
        MemoryBudgetError: none fits.
        AlexsimError: none makes sense.
    """
    search = _Search(goal=goal)
    total, candidates = _candidates(search, axes, fixed)
    counts = sorted({candidate.gpus for candidate in candidates})
    for index, count in enumerate(counts):
        level = search.hopeful([each for each in candidates if each.gpus == count])
        alone = {each.alone for each in level if each.alone} - search.points.keys()
        begun, each_part = index / len(counts), 1 / len(counts) / max(1, len(alone) + len(level))
        over = partial(_over, done, begun, each_part)
        search.simulate((dict(each.alone) for each in level if each.alone), over)
        level = search.hopeful(level)
        over = partial(_over, done, begun + each_part * len(alone), each_part)
        search.simulate((each.settings for each in level), over)
        for each in level:
            search.judge(search.points[tuple(each.settings.items())])
    if search.nearest is None:
        raise AlexsimError(next(point.error for point in search.points.values()))
    return Recommendation(
        goal=goal,
        answers={name: search.best[name] for name in goal.answered if name in search.best},
        nearest=search.nearest,
        configurations=total,
        simulated=search.judged,
        left_out=dict(search.left_out),
        unpriced=len(search.unpriced),
    )


def _over(done: Callable[[float], None], begun: float, part: float, count: int) -> None:
    """So many more simulations, each a part of the work, are over."""
    done(begun + part * count)


def _candidates(
    search: _Search, axes: Mapping[str, Sequence[str]], fixed: Mapping[str, str]
) -> tuple[int, list[_Candidate]]:
    """How many combinations there are, and those that make sense, fit and can be paid."""
    able: list[_Candidate] = []
    total, error, least = 0, "", (math.inf, "")
    shared = axes["partition"]
    on_one = "replicas" if "replicas" in shared else shared[0]
    # Machines change fastest: a plan is the same on all of them.
    in_order = ("partition", "gpus", "batch", "precision", "machine")
    for values in itertools.product(*(axes[name] for name in in_order)):
        partition, gpus, batch, precision, machine = values
        if gpus == "1" and partition != on_one:
            continue  # one GPU shares nothing: its step is the same, whatever that is called
        total += 1
        settings = {**fixed, "machine": machine, "batch": batch, "precision": precision}
        try:
            candidate, need, usable = _candidate(settings, partition, int(gpus))
        except AlexsimError as refusal:
            error = error or str(refusal)
            search.left_out[NO_SENSE] += 1
            continue
        if need > usable:
            search.left_out[NO_ROOM] += 1
            least = min(least, (need - usable, f"{machine} with {gpus} GPU(s), batch {batch}"))
            continue
        able.append(candidate)
        search.unpriced |= {machine} if candidate.price_usd is None else set()
    if not able and least[1]:
        raise MemoryBudgetError(
            f"no configuration fits: nearest comes {least[1]}, {format_bytes(int(least[0]))} over"
            f" by policy {fixed.get('policy', 'as-released')}; --policy has others"
        )
    if not able:
        raise AlexsimError(error)
    if search.goal.budget_usd is None:
        return total, able
    priced = [each for each in able if each.price_usd is not None]
    search.left_out[NO_PRICE] += len(able) - len(priced)
    if not priced:
        raise AlexsimError("--budget: of these cards no sheet states a price")
    # Where the budget allows none, the cheapest is what comes nearest.
    cheapest = min(each.price_usd or 0.0 for each in priced)
    most = max(search.goal.budget_usd, cheapest)
    within = [each for each in priced if (each.price_usd or 0.0) <= most]
    search.left_out[NO_MONEY] += len(priced) - len(within)
    return total, within


def _candidate(settings: dict[str, str], partition: str, gpus: int) -> tuple[_Candidate, int, int]:
    """A configuration; the bytes that its fullest card needs, and those that it has.

    Raises:
        AlexsimError: its choices do not go together.
    """
    columns = load_network(settings["net"]).columns if partition == "columns" else 1
    together = columns if gpus > 1 else 1
    copies, rest = divmod(gpus, together)
    if rest:
        raise AlexsimError(f"{gpus} GPUs are no copies of {columns} columns")
    alone: dict[str, str] = {}
    if partition == "columns":
        settings |= {"gpus": str(together), "partition": partition, "replicas": str(copies)}
    else:
        settings |= {"gpus": str(gpus), "partition": partition}
    if copies > 1 and partition != "hybrid":
        share = {"batch": str(int(settings["batch"]) // copies)}
        alone = settings | share | ({"replicas": "1"} if together > 1 else {"gpus": "1"})
    spec, timer = configuration_of(settings)
    machine = timer.machine
    if lacking := machine.lacks(gpus):
        raise AlexsimError(lacking)
    need = max(device.total_bytes for device in planned(spec, machine).devices)
    price = machine.device.price_usd
    return (
        _Candidate(
            settings=settings,
            gpus=gpus,
            price_usd=price.value * gpus if price else None,
            alone=tuple(alone.items()),
        ),
        need + int(machine.device.context_bytes.value),
        int(machine.device.memory_bytes.value),
    )
