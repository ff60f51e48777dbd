"""The notebooks of ``examples/``, run by a kernel as a reader runs them.

``python tests/notebooks_check.py`` runs each from its first cell to its last in an empty folder,
with the small numbers that its cell of parameters keeps beside its own, and fails where a cell
does, where an answer shows nothing, or where one shows twice. ``--write`` runs them as they are and
keeps what they show, figures as SVG, for readers of the file who have no Plotly (that needs kaleido
and a Chrome or Chromium).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("2012_in_an_afternoon", "what_would_it_take")
_PLOTLY = "application/vnd.plotly.v1+json"
_ANSWER = re.compile(r"^(\w+(\.\w+\(.*\))?)$")
_TIMEOUT_S = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep what they show")
    arguments = parser.parse_args()
    for name in NAMES:
        path = EXAMPLES / f"{name}.ipynb"
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        shown = run(book, quick=not arguments.write)
        print(f"{name}: {shown} answers and figures shown", flush=True)
        if arguments.write:
            nbformat.write(kept(book), path)


def run(book: Any, *, quick: bool) -> int:
    """Run a notebook; how many of its cells show something.

    Raises:
        CellExecutionError: a cell failed.
        AssertionError: a cell that ends with an answer shows none, or several.
    """
    sources = [cell.source for cell in book.cells]
    for cell in book.cells:
        if quick and "parameters" in cell.metadata.get("tags", ()):
            cell.source = cell.metadata["quick"]
    with tempfile.TemporaryDirectory() as folder:
        for module in EXAMPLES.glob("*.py"):
            shutil.copy(module, folder)
        client = NotebookClient(
            book,
            timeout=_TIMEOUT_S,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
        text = nbformat.writes(book)
        assert folder not in text, "a folder of this machine is shown"
    shown = 0
    for cell, source in zip(book.cells, sources, strict=True):
        if cell.cell_type != "code":
            continue
        told = [out for out in cell.outputs if out.output_type != "stream"]
        last = source.splitlines()[-1]
        assert len(told) <= 1, f"shown {len(told)} times: {last}"
        if _ANSWER.match(last):
            (out,) = told
            assert _PLOTLY in out.data or len(out.data["text/plain"]) > 5, last
        shown += len(told)
        cell.source = source
    assert shown > 5
    return shown


def kept(book: Any) -> Any:
    """The notebook as it is committed: progress left out, a picture with every figure."""
    import plotly.io

    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for out in cell.outputs:
            if "execution_count" in out:
                out.execution_count = None
            drawn = out.get("data", {}).pop(_PLOTLY, None)
            if drawn is not None:
                figure = plotly.io.from_json(json.dumps(drawn), skip_invalid=True)
                svg = plotly.io.to_image(figure, format="svg", width=860)
                out.data["image/svg+xml"] = svg.decode()
    return book


if __name__ == "__main__":
    main()
