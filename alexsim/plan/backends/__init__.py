"""Backends by name; each file has what is decided before anything runs, without torch."""

from functools import cache

from alexsim.plan.backends.aten import Aten
from alexsim.plan.backends.base import (
    Asked,
    Backend,
    Choice,
    Counted,
    Passes,
    Rows,
    read_as_rows,
    rows_of,
)
from alexsim.plan.backends.chosen import Chosen
from alexsim.plan.backends.native import Native
from alexsim.plan.backends.triton import Triton

BACKENDS: dict[str, Backend] = {
    "": Counted(), "aten": Aten(), "native": Native(), "triton": Triton()
}  # fmt: skip


@cache
def backend_of(name: str, triton_ops: tuple[str, ...]) -> Backend:
    """The backend of a plan."""
    return Chosen(triton_ops) if triton_ops else BACKENDS[name]


__all__ = [
    "BACKENDS", "Asked", "Backend", "Choice", "Passes", "Rows", "backend_of", "read_as_rows",
    "rows_of",
]  # fmt: skip
