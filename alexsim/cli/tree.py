"""All commands by what people want to do, and groups that import only the one that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperGroup

from alexsim.command.fields import command

if TYPE_CHECKING:
    from typer._click import Command as ClickCommand
    from typer._click import Context, HelpFormatter
    from typer._click.shell_completion import CompletionItem


class Command(NamedTuple):
    """A command before its module is imported."""

    target: str
    """Module and function, in ``alexsim.cli``."""
    summary: str
    """The first line of the function's docstring."""


class Group(NamedTuple):
    """Commands that have a word in common."""

    commands: Mapping[str, Command | Group]
    summary: str
    help: str


_MODEL = {
    "predict": Command("predict:predict", "Name the five likeliest classes of single images."),
    "nearest": Command("nearest:nearest", "Find the images of a set that are most like others."),
    "filters": Command("filters:filters", "Draw the first convolution's filters."),
    "export": Command("export:export", "Write trained weights in another format, for others."),
    "import": Command("import_:import_", "Read weights that others trained."),
}
_DATA = {
    "pack": Command("data:pack_data", "Pack images into shards of small JPEGs."),
    "inspect": Command("data:inspect_data", "Show counts, classes and broken files of a set."),
    "bench": Command("data:bench_data", "Time the loading of images alone."),
}
_HARDWARE = {
    "list": Command(
        "hardware:list_hardware", "List every machine, device and link with its main figures."
    ),
    "show": Command("hardware:show_hardware", "Show a sheet: each number's unit, kind and source."),
    "new": Command("hardware:new_hardware", "Write a sheet of your own, to be changed."),
}
_NETWORK = {
    "list": Command("network:list_networks", "List the networks and variants that --net takes."),
    "show": Command("network:show_network", "Show a network's layers, and draw them."),
}
_RECIPE = {
    "list": Command("recipe:list_recipes", "List the recipes that --recipe takes."),
    "show": Command("recipe:show_recipe", "Print a recipe's file, to be changed."),
}
_BENCH = {
    "run": Command("bench:run_bench", "Measure, and compare with nothing."),
    "compare": Command("bench:compare", "Measure and judge: a gate."),
    "update": Command("bench:update", "Measure, and make that the baseline."),
}
_CHECK: Mapping[str, Command | Group] = {
    "validate": Command("validate:validate", "Predict published figures, and say how far off."),
    "fit": Command("fit:fit", "Fit the cost models to measured kernels and published figures."),
    "calibrate": Command("calibrate:calibrate", "Measure this machine, to simulate it."),
    "bench": Group(
        _BENCH,
        "Figures against a baseline: gates that hold on noisy machines.",
        """Counted figures are compared exactly, times as ratios.

        Example: alexsim check bench compare""",
    ),
    "kernels": Command(
        "kernels:kernels", "Show what every Triton kernel compiles to, without a card."
    ),
}
Panels = Mapping[str, Mapping[str, Command | Group]]

PANELS: Panels = {
    "Train and test": {
        "train": Command("train:train", "Train a network, with a memory budget per virtual GPU."),
        "eval": Command("eval:evaluate", "Test networks on images, alone and averaged."),
    },
    "Ask how long, how much, and why": {
        "flops": Command("flops:flops", "Count FLOPs and parameters, layer by layer."),
        "memory": Command("memory:memory", "Show what each GPU holds in a step, and if it fits."),
        "simulate": Command("simulate:simulate", "Predict a step and a whole run on a machine."),
        "sweep": Command("sweep:sweep", "Simulate every combination of some choices."),
        "recommend": Command(
            "recommend:recommend", "Look for the machine that meets a goal at least cost."
        ),
        "profile": Command("profile:profile", "Measure every op of a step on this machine."),
        "report": Command("report:report", "Draw an HTML page of a run, a profile or a plan."),
    },
    "Look inside a trained network, hand it on": {
        "model": Group(
            _MODEL,
            "Trained networks: what they see, and other file formats.",
            "Example: alexsim model predict runs/a cat.jpg",
        )
    },
    "Data, machines, networks and recipes": {
        "data": Group(
            _DATA,
            "Image sets: pack, look at and time them.",
            "Example: alexsim data pack DIR packed",
        ),
        "hardware": Group(
            _HARDWARE,
            "Devices, links and machines that can be predicted.",
            "Example: alexsim hardware show gtx580x2",
        ),
        "network": Group(
            _NETWORK,
            "Networks that can be trained and counted.",
            "Example: alexsim network show alexnet-2012",
        ),
        "recipe": Group(
            _RECIPE,
            "Recipes: rates by stages of epochs, frozen layers, tests.",
            "Example: alexsim recipe show 2012 > mine.toml",
        ),
    },
    "Check the figures": {
        "check": Group(
            _CHECK,
            "Predictions beside measurements, baselines, compiled kernels.",
            "Example: alexsim check validate --quick",
        )
    },
}


def target_of(words: str) -> str:
    """Module and function of a command, such as ``check validate``."""
    level: Mapping[str, Command | Group] = {
        name: each for panel in PANELS.values() for name, each in panel.items()
    }
    *groups, last = words.split()
    for word in groups:
        group = level[word]
        assert isinstance(group, Group)
        level = group.commands
    command = level[last]
    assert isinstance(command, Command)
    return f"alexsim.cli.{command.target}"


MOVED = {name: f"model {name}" for name in _MODEL} | {name: f"check {name}" for name in _CHECK}
"""Old names, which keep working for this version, and the new ones."""


class CommandGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def fill(self, panels: Panels) -> CommandGroup:
        """Give it its commands."""
        self._panels = panels
        self._listed = {name: each for panel in panels.values() for name, each in panel.items()}
        self.commands = _Imported(self._listed)  # type: ignore[assignment]
        return self

    def list_commands(self, ctx: Context) -> list[str]:
        """Their names; nothing is imported."""
        del ctx
        return list(self._listed)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Panels of names and summaries; nothing is imported."""
        del ctx
        width = max(map(len, self._listed))
        for title, panel in self._panels.items():
            with formatter.section(title):
                rows = [(name.ljust(width), each.summary) for name, each in panel.items()]
                formatter.write_dl(rows)

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, or of options; nothing is imported."""
        from typer._click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(name, help=each.summary)
            for name, each in self._listed.items()
            if name.startswith(incomplete)
        ]


class _Imported(Mapping[str, Any]):
    """Typer's commands by name, each made when it is first looked at."""

    def __init__(self, listed: Mapping[str, Command | Group]) -> None:
        self._listed = listed
        self._made: dict[str, ClickCommand] = {}

    def __getitem__(self, name: str) -> ClickCommand:
        if name not in self._made:
            self._made[name] = _made(name, self._listed[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _made(name: str, listed: Command | Group) -> ClickCommand:
    if isinstance(listed, Group):
        text = f"{listed.summary}\n\n{inspect.cleandoc(listed.help)}"
        return CommandGroup(name=name, help=text, rich_markup_mode=None).fill(
            {"Commands": listed.commands}
        )
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(command(resolve_name(f"alexsim.cli.{listed.target}")))
    return typer.main.get_command(app)
