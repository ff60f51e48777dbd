"""What runs the steps of a stage: its plan and executor, and how the next stage takes over."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from alexsim.budget.fit import fit
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, RunError
from alexsim.execute.context import Choices
from alexsim.execute.executor import Executor
from alexsim.execute.plan_executor import PlanExecutor
from alexsim.execute.ranks import Ranks
from alexsim.execute.stored import stored_parameters
from alexsim.network.not_run import refuse_not_photographs, refuse_not_run
from alexsim.network.update_rules import is_state
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan
from alexsim.processes.world import Connected, World
from alexsim.recipe.recipe import Stage
from alexsim.train.settings import TrainSettings


def stage_plan(settings: TrainSettings, stage: Stage) -> Plan:
    """The plan of a step in a stage, in which some layers may be frozen."""
    return plan(settings.spec(stage))


def refuse_what_does_not_fit(settings: TrainSettings) -> None:
    """Hold every stage's plan against the budget.

    Raises:
        MemoryBudgetError: a stage needs more.
        NetworkError: a layer has no kernel.
    """
    network = load_network(settings.network)
    refuse_not_run(network)
    refuse_not_photographs(network)
    if network.frozen and not any(settings.spec(stage).trained for stage in settings.recipe.stages):
        raise AlexsimError(f"{network.name}: none of its parameters requires a gradient")
    for stage in {stage.frozen: stage for stage in settings.recipe.stages}.values():
        verdict = fit(stage_plan(settings, stage), settings.budget_bytes)
        if not verdict.fits:
            raise verdict.error()


def _executor(step_plan: Plan, settings: TrainSettings, world: World) -> PlanExecutor:
    choices = Choices(
        budget_bytes=settings.budget_bytes,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        graph=settings.graph,
    )
    if isinstance(world, Connected):
        return Ranks(step_plan, choices, world)
    if settings.strict:
        raise AlexsimError("strict needs a process per GPU: `alexsim train --strict` begins them")
    return Executor(step_plan, choices)


class Engine:
    """The executor of the stage that a run is in; a new executor where other layers are frozen."""

    def __init__(self, settings: TrainSettings, world: World) -> None:
        self.settings, self.world = settings, world
        self._frozen: tuple[str, ...] | None = None
        self._executor: PlanExecutor | None = None

    @property
    def executor(self) -> PlanExecutor:
        """The executor of the stage entered last."""
        assert self._executor is not None
        return self._executor

    @property
    def frozen(self) -> tuple[str, ...] | None:
        """Layers that the stage entered last freezes; None before the first."""
        return self._frozen

    def enter(self, stage: Stage) -> None:
        """Make ready for a stage, weights and momentum as they are.

        Raises:
            MemoryBudgetError: its plan does not fit.
        """
        if self._frozen == stage.frozen:
            return
        state = None
        if self._executor is not None:
            # An arena is given back before the next is taken: a budget holds a single arena.
            state = {name: tensor.cpu().clone() for name, tensor in self._executor.state().items()}
            self._executor.close()
            self._executor = None
        self._executor = _executor(stage_plan(self.settings, stage), self.settings, self.world)
        self._frozen = stage.frozen
        if state is not None:
            self.load(state)

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load the state of any stage: frozen layers keep no state of their update rule, neither
        momentum nor a count of updates, and thawed layers begin it anew. Of several processes, the
        first process's state counts."""
        if not self.world.first:
            self.executor.load_state({})
            return
        stored = stored_parameters(self.executor.plan)
        shapes = {name: parameter.shape for name, parameter in stored.items()}
        rules = {name for name in (*shapes, *state) if is_state(name)}
        missing = sorted(shapes.keys() - state.keys() - rules)
        unknown = sorted(state.keys() - shapes.keys() - rules)
        if missing or unknown:
            raise RunError(f"the checkpoint is of another network: lacks {missing}, has {unknown}")
        self.executor.load_state(
            {
                name: state[name] if name in state else torch.zeros(shape)
                for name, shape in shapes.items()
            }
        )

    def close(self) -> None:
        """End the executor."""
        if self._executor is not None:
            self._executor.close()
