"""``alexsim recipe``: what ``train --recipe`` follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from alexsim.command import complete
from alexsim.command import options as shared
from alexsim.command.fields import Options, argument
from alexsim.command.options import output_to
from alexsim.command.output import print_json, write_text


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """Of ``recipe show``."""

    output: Path | None = output_to(".toml")
    name: str = argument(
        "NAME", "One of `recipe list`, or a TOML file.", autocompletion=complete.recipes
    )


def list_recipes(options: Options) -> None:
    """List the recipes that --recipe takes.

    Example: alexsim recipe list
    """
    from alexsim.documents.training import recipes_document
    from alexsim.recipe.file import load_recipe, recipe_names
    from alexsim.report.tables import plain_table

    recipes = {name: load_recipe(name) for name in recipe_names()}
    if options.json:
        print_json(recipes_document(recipes))
        return
    table = plain_table("Recipes", "name", "epochs", "stages", "title")
    for name, recipe in recipes.items():
        table.add_row(name, str(recipe.epochs), str(len(recipe.stages)), recipe.title)
    shared.console().print(table)


def show_recipe(options: ShowOptions) -> None:
    """Print a recipe's file, to be changed.

    Example: alexsim recipe show 2012 -o mine.toml
    """
    from alexsim.documents.training import recipes_document
    from alexsim.recipe.file import load_recipe, recipe_text

    text = recipe_text(options.name)
    if options.output is not None:
        write_text(options.output, text, f"recipe {options.name}, to be changed")
    if options.json:
        print_json(recipes_document({options.name: load_recipe(options.name)}))
    elif options.output is None:
        typer.echo(text, nl=False)
