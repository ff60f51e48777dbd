"""The table of parts: what is asked of a card, in order of worth, and what each part needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DISTRIBUTIONS = {"PIL": "pillow", "pynvml": "nvidia-ml-py"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module with ``rows(job)``, and how much of the time it has."""

    letter: str
    name: str
    module: str
    share: float = 0.0
    """Of the time: seconds of 480, if all parts run and each takes what it has."""
    needs: tuple[str, ...] = ()
    """Names of packages that it imports, beside those in the module's own ``NEEDS``."""
    always: bool = False
    """It runs whatever is asked for, as others read its rows."""
    beside: bool = False
    """It runs from the first second to the last, beside the others."""
    interpreted: bool = True
    """Triton interprets its kernels in a rehearsal."""

    @property
    def title(self) -> str:
        """As the table has it."""
        return f"{self.letter} {self.name}".strip()


_HERE = "alexsim_kernels.bench.card"
_ALEXSIM = "alexsim.bench.card"
_TOP = ("alexsim",)

PARTS: Sequence[Part] = (
    Part(letter="a", name="ceilings", module=f"{_HERE}.ceilings", share=25, always=True),
    Part(letter="b", name="right", module=f"{_HERE}.right", share=60),
    Part(letter="c", name="layers", module=f"{_HERE}.layer_times", share=100),
    Part(letter="c", name="tiles", module=f"{_HERE}.tiles", share=90),
    Part(letter="d", name="steps", module=f"{_ALEXSIM}.steps", share=90, needs=_TOP),
    Part(letter="e", name="two-gpus", module=f"{_ALEXSIM}.two_gpus", share=35, needs=_TOP),
    Part(letter="g", name="calibrate", module=f"{_ALEXSIM}.calibrated", share=50, needs=_TOP),
    Part(letter="h", name="tests", module=f"{_ALEXSIM}.gpu_tests", share=30, needs=_TOP),
    Part(letter="f", name="telemetry", module=f"{_ALEXSIM}.telemetry", beside=True, needs=_TOP),
    Part(letter="", name="compile", module=f"{_HERE}.compiling", beside=True, interpreted=False),
)


def distribution(name: str) -> str:
    """What a package is called where it is installed from."""
    return _DISTRIBUTIONS.get(name, name.replace("_", "-"))


def chosen(names: Sequence[str], parts: Sequence[Part] = PARTS) -> list[Part]:
    """Parts of these names or letters, in the table's order, and those that always run.

    Raises:
        ValueError: no part is called so.
    """
    wanted = set(names)
    known = {word for part in parts if not part.beside for word in (part.name, part.letter)}
    if unknown := sorted(wanted - known):
        listed = ", ".join(f"{part.name} ({part.letter})" for part in parts if not part.beside)
        raise ValueError(f"no part {', '.join(map(repr, unknown))}; parts: {listed}")
    return [
        part
        for part in parts
        if not names or part.beside or part.always or wanted & {part.name, part.letter}
    ]
