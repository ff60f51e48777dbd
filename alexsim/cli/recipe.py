"""``alexsim recipe``: what ``train --recipe`` follows."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

app = typer.Typer(
    help="""Recipes: rates by stages of epochs, frozen layers, tests on the way.

    Example: alexsim recipe show 2012 > mine.toml"""
)


@app.command(name="list")
def list_recipes(json: options.Json = False) -> None:
    """Names and titles of the recipes that come with alexsim.

    Example: alexsim recipe list
    """
    from alexsim.cli.output import print_json
    from alexsim.recipe.file import load_recipe, recipe_names
    from alexsim.report.documents.training import recipes_document
    from alexsim.report.tables import plain_table

    found = {name: load_recipe(name) for name in recipe_names()}
    if json:
        print_json(recipes_document(found))
        return
    table = plain_table("Recipes", "name", "epochs", "stages", "title")
    for name, recipe in found.items():
        table.add_row(name, str(recipe.epochs), str(len(recipe.stages)), recipe.title)
    options.console().print(table)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="One of `recipe list`, or a TOML file.")
    ],
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Print a recipe's file, to be copied and changed.

    Example: alexsim recipe show 2012 -o mine.toml
    """
    from alexsim.cli.output import write_text
    from alexsim.recipe.file import recipe_text

    text = recipe_text(name)
    if output is not None:
        write_text(output, text)
    if json:
        from alexsim.cli.output import print_json
        from alexsim.recipe.file import load_recipe
        from alexsim.report.documents.training import recipes_document

        print_json(recipes_document({name: load_recipe(name)}))
    elif output is None:
        typer.echo(text, nl=False)
