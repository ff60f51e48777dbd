"""All commands by what people want to do, and groups that import only the one that is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperGroup

from alexsim.cli.fields import command

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
    panel: str = "Commands"


class Group(NamedTuple):
    """Commands that have a word in common."""

    summary: str
    help: str
    commands: Mapping[str, Command | Group]
    panel: str = "Commands"


TRAIN = "Train and test"
ASK = "Ask how long, how much, and why"
INSIDE = "Look inside a trained network, hand it on"
DATA = "Data, machines, networks and recipes"
CHECK = "Check the figures"

COMMANDS: Mapping[str, Command | Group] = {
    "train": Command(
        "train:train", "Train a network on virtual GPUs with a memory budget each.", TRAIN
    ),
    "eval": Command(
        "eval:evaluate", "Test networks on images: top-1 and top-5 error, also averaged.", TRAIN
    ),
    "flops": Command(
        "flops:flops", "Count multiply-adds, FLOPs and parameters, layer by layer.", ASK
    ),
    "memory": Command(
        "memory:memory", "Show what each GPU holds in a training step, and if it fits.", ASK
    ),
    "simulate": Command(
        "simulate:simulate", "Predict a training step and a whole run on a machine.", ASK
    ),
    "sweep": Command("sweep:sweep", "Simulate every combination of some choices.", ASK),
    "profile": Command(
        "profile:profile", "Measure every op of a training step on this machine.", ASK
    ),
    "report": Command(
        "report:report", "Draw an HTML page of a run, a profile or a plan, or of two.", ASK
    ),
    "model": Group(
        "Trained networks: what they see, and other file formats.",
        "Example: alexsim model predict runs/a cat.jpg",
        {
            "predict": Command(
                "predict:predict", "Name the five likeliest classes of single images."
            ),
            "nearest": Command(
                "nearest:nearest", "Find the images of a set that are most like given ones."
            ),
            "filters": Command(
                "filters:filters", "Draw the first convolution's filters (paper, figure 3)."
            ),
            "export": Command(
                "export:export", "Write trained weights in another format, for others."
            ),
            "import": Command("import_:import_", "Read weights that others trained."),
        },
        INSIDE,
    ),
    "data": Group(
        "Image sets: pack them, look at them, time their loading.",
        """Example: alexsim data pack ILSVRC2012 packed

        Example: alexsim data inspect packed --verify --sheet sheet.png

        Example: alexsim train --data packed""",
        {
            "pack": Command("data:pack_data", "Pack images into shards of small JPEGs."),
            "inspect": Command(
                "data:inspect_data", "Show counts, classes, sizes and broken files of a set."
            ),
            "bench": Command("data:bench_data", "Time the loading of images alone."),
        },
        DATA,
    ),
    "hardware": Group(
        "Devices, links and machines that can be predicted.",
        "Example: alexsim hardware show gtx580x2",
        {
            "list": Command("hardware:list_hardware", "List every machine, device and link."),
            "show": Command("hardware:show_hardware", "Show one sheet, number by number."),
        },
        DATA,
    ),
    "network": Group(
        "Networks that can be trained and counted.",
        "Example: alexsim network show alexnet-2012",
        {
            "list": Command(
                "network:list_networks", "List the networks and variants that --net takes."
            ),
            "show": Command("network:show_network", "Show a network's layers, and draw them."),
        },
        DATA,
    ),
    "recipe": Group(
        "Recipes: rates by stages of epochs, frozen layers, tests.",
        "Example: alexsim recipe show 2012 > mine.toml",
        {
            "list": Command("recipe:list_recipes", "List the recipes that --recipe takes."),
            "show": Command("recipe:show_recipe", "Print a recipe's file, to be changed."),
        },
        DATA,
    ),
    "check": Group(
        "Predictions beside measurements, baselines, compiled kernels.",
        "Example: alexsim check validate --leave-out",
        {
            "validate": Command(
                "validate:validate", "Predict published figures, and say how far off that is."
            ),
            "calibrate": Command(
                "calibrate:calibrate", "Measure this machine, so that it can be simulated."
            ),
            "bench": Group(
                "Figures against a baseline: gates that hold on noisy machines.",
                """Counted figures are compared exactly, times as ratios.

                Example: alexsim check bench compare""",
                {
                    "run": Command("bench:run_bench", "Measure, and compare with nothing."),
                    "compare": Command("bench:compare", "Measure and judge: a gate."),
                    "update": Command("bench:update", "Measure, and make that the baseline."),
                },
            ),
            "kernels": Command(
                "kernels:kernels", "Compile every Triton kernel for a card, without one."
            ),
        },
        CHECK,
    ),
}

MOVED = {
    name: f"{group} {name}"
    for group in ("model", "check")
    for name in COMMANDS[group].commands  # type: ignore[union-attr]
}
"""Old names, which keep working for this version, and the new ones."""


class CommandGroup(TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def fill(self, commands: Mapping[str, Command | Group]) -> CommandGroup:
        """Give it its commands."""
        self.commands = _Imported(commands)  # type: ignore[assignment]
        self._listed = commands
        return self

    def list_commands(self, ctx: Context) -> list[str]:
        """Their names; nothing is imported."""
        del ctx
        return list(self._listed)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Panels of names and summaries."""
        del ctx
        width = max(map(len, self._listed))
        for panel in dict.fromkeys(each.panel for each in self._listed.values()):
            with formatter.section(panel):
                formatter.write_dl(
                    [
                        (name.ljust(width), each.summary)
                        for name, each in self._listed.items()
                        if each.panel == panel
                    ]
                )

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
        return CommandGroup(name=name, help=text, rich_markup_mode=None).fill(listed.commands)
    module, _, function = listed.target.partition(":")
    called = getattr(import_module(f"alexsim.cli.{module}"), function)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(command(called))
    return typer.main.get_command(app)
