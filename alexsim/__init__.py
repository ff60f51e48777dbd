"""Faithful performance simulation and profiling of how deep networks were, and are, trained.

How long, how much memory, which FLOPs, on which machine::

    import alexsim

    step = alexsim.simulate("resnet50", machine="a100x4", batch=256)
    step                            # the answer, as `alexsim simulate` prints it
    step.step_s, step.images_per_s  # every key of its --json document
    step.to_pandas("layers")        # a DataFrame

What answers, each with the command's options by name (``help(alexsim.memory)``):

    flops, memory      what a network computes and holds
    simulate, sweep    a step on a machine, and many of them
    recommend          the machine that meets a goal
    train, evaluate    a network on images
    profile            every op of a step, measured here
    report, open_run   a page and figures of a run, a profile or a plan
    validate, calibrate    how far off predictions are; this machine measured

What is looked at and handed over:

    network(name)      an edition of AlexNet or what came after: its layers and shapes
    from_torch(module, input_shape)     the network of a PyTorch module
    load_into(module, run)     what a run has learnt, given back to the module
    machine(name)      a machine's devices and links
    plan(network, ...)     who does what, when, in which buffer: ops and buffers
    AlexNet(name)      a network alone, as a ``torch.nn.Module``

Mistakes raise ``alexsim.AlexsimError`` in one line. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = [
    "AlexNet",
    "AlexsimError",
    "__version__",
    "calibrate",
    "evaluate",
    "flops",
    "from_torch",
    "load_into",
    "machine",
    "memory",
    "network",
    "open_run",
    "plan",
    "profile",
    "recommend",
    "report",
    "simulate",
    "sweep",
    "train",
    "validate",
]

_PLACES = {
    "AlexNet": "alexsim.interchange.module",
    "AlexsimError": "alexsim.errors",
    "from_torch": "alexsim.interchange.from_torch",
    "load_into": "alexsim.train.module_state",
    "open_run": "alexsim.api",
}
_CALLED = {
    "machine": ("alexsim.machine.machine", "load_machine"),
    "network": ("alexsim.editions.load", "load_network"),
    "plan": ("alexsim.plan.planner", "plan"),
}
"""Rooms that are called: where their function is; all others answer as commands do."""


class _Room(ModuleType):
    """A room that is called too: ``alexsim.simulate(...)`` beside ``alexsim.simulate.timer``."""

    @property
    def __wrapped__(self) -> Any:
        return _function(self.__name__.rpartition(".")[2])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.__wrapped__(*arguments, **options)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return str(self.__wrapped__.__doc__)


class _Alexsim(ModuleType):
    """This package: its rooms of these names can be called."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


def _function(name: str) -> Any:
    place, function = _CALLED.get(name, ("", ""))
    if place:
        return getattr(import_module(place), function)
    return import_module("alexsim.api").function(name)


def __getattr__(name: str) -> object:
    # On demand: most commands must start without torch.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("alexsim")
    if name in __all__:
        try:
            return import_module(f"alexsim.{name}")
        except ModuleNotFoundError:
            return _function(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Alexsim
