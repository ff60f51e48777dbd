"""The figures of ``docs/teaching.md``, to be reused: ``python examples/figures.py FOLDER``.

Written are HTML files, which a browser saves as PNG by the camera in a figure's corner; and SVG
where ``pip install kaleido`` and a Chrome or Chromium are there.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import plotly.express as px
from plotly.graph_objects import Figure

import alexsim

CARDS = ("gtx580x2", "k40", "titan-x-maxwell", "p100", "v100", "a100", "h100")


def layers() -> Figure:
    """Shares of AlexNet's layers in its parameters and in its multiply-adds."""
    table = alexsim.flops("alexnet-2012").to_pandas("layers")
    table = table[table.parameters > 0].set_index("name")
    shares = 100 * table[["parameters", "mac"]] / table[["parameters", "mac"]].sum()
    shares = shares.rename(columns={"mac": "multiply-adds"})
    names = {"value": "% of the network", "name": "", "variable": ""}
    return px.bar(shares, barmode="group", labels=names, template="simple_white")


def days() -> Figure:
    """Days of training by card, with 90 % intervals."""
    table = alexsim.sweep("alexnet-2012", axis=[f"machine={','.join(CARDS)}"]).to_pandas()
    table["above"] = table.training_days * (table.high_s / table.step_s - 1)
    table["below"] = table.training_days * (1 - table.low_s / table.step_s)
    return px.scatter(
        table,
        x="machine",
        y="training_days",
        error_y="above",
        error_y_minus="below",
        log_y=True,
        labels={"training_days": "days of training", "machine": ""},
        template="simple_white",
    )


def main(folder: Path) -> None:
    """Write them all."""
    step = alexsim.simulate("alexnet-2012")
    figures = {
        "memory": step.plot("memory-by-category"),
        "timeline": step.plot("timeline-simulated"),
        "layers": layers(),
        "days": days(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.write_html(folder / f"{name}.html", include_plotlyjs="directory")
        if find_spec("kaleido"):
            figure.write_image(folder / f"{name}.svg", width=860)
    print(f"{len(figures)} figures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
