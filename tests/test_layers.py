"""What the layers say of themselves, and that the documentation says the same."""

from __future__ import annotations

import inspect
from pathlib import Path

from alexsim.network import layers
from alexsim.network.layers import (
    Add,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    Multiply,
    Operator,
    Pool,
)

PAGE = Path(__file__).parent.parent / "docs" / "networks.md"
BEGIN, END = "<!-- layers -->\n", "<!-- end -->\n"
FIELDS: dict[type[Layer], dict] = {
    Convolution: {"filters": 4, "size": 3},
    FullyConnected: {"units": 4},
    Add: {"inputs": ("a", "b")},
    Multiply: {"inputs": ("a", "b")},
    Concat: {"inputs": ("a", "b")},
}


def examples() -> list[Layer]:
    """One of every kind of layer, as it is by default."""
    kinds = [
        kind
        for kind in vars(layers).values()
        if inspect.isclass(kind) and issubclass(kind, Layer) and kind not in (Layer, Pool, Operator)
    ]
    pool = {"size": 3, "stride": 2, "rounding": "floor"}
    return [
        kind(name="x", **FIELDS.get(kind, pool if issubclass(kind, Pool) else {}))
        for kind in sorted(kinds, key=lambda kind: kind.__name__.lower())
    ]


def table() -> str:
    rows = [
        "| layer | forward | input's gradient | parameters' gradients | reads | keeps beside it |",
        "|---|---|---|---|---|---|",
    ]
    for layer in examples():
        shape = (8, 9, 9)
        shapes = [shape] * max(1, len(layer.inputs))
        inputs = layer.input_shape(shapes)
        flop = layer.elementwise()
        kept = [kept.name for kept in layer.auxiliary(inputs, layer.output_shape(inputs))]
        rows.append(
            f"| `{type(layer).__name__}` | {flop.forward} | {flop.grad_input}"
            f" | {flop.grad_weight or ''} | {', '.join(layer.backward_reads)} | {', '.join(kept)} |"
        )
    return "\n".join(rows) + "\n"


def test_the_page_has_every_layer_as_it_says_itself() -> None:
    page = PAGE.read_text("utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == table()


def test_a_layer_that_keeps_its_input_does_not_let_it_be_overwritten() -> None:
    for layer in examples():
        # What is overwritten cannot be read again; in place the output stands for the input.
        assert not (layer.overwrites_input and "input" in layer.backward_reads), layer
        assert not (layer.several and layer.overwrites_grad), layer
        masks = [a for a in layer.auxiliary((8, 9, 9), (8, 9, 9)) if a.category == "mask"]
        assert bool(masks) == isinstance(layer, Dropout), layer


if __name__ == "__main__":
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], "utf-8")
