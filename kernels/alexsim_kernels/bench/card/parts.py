"""The table of parts: what is asked of a card, in order of worth, and what each part needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KERNELS = ("torch", "triton", "numpy")
ALEXSIM = (*KERNELS, "alexsim", "annotated_types", "PIL", "simplejpeg")
"""What alexsim's parts import; a test rehearses them without the other dependencies."""

DISTRIBUTIONS = {"PIL": "pillow", "pynvml": "nvidia-ml-py"}
"""What packages are called where they are installed from, if it is not the name they have here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module with ``rows(job)``, and how much of the time it has."""

    letter: str
    name: str
    module: str
    share: float = 0.0
    """Of the time: seconds of 480, if all parts run and each takes what it has."""
    needs: tuple[str, ...] = KERNELS
    """Names of packages that it imports."""
    beside: bool = False
    """It runs from the first second to the last, beside the others."""
    interpreted: bool = True
    """Triton interprets its kernels in a rehearsal."""

    @property
    def title(self) -> str:
        """As the table has it."""
        return f"{self.letter} {self.name}".strip()


_CARD = "alexsim_kernels.bench.card"
_STEPS = "alexsim.bench.card"

PARTS: Sequence[Part] = (
    Part(letter="a", name="ceilings", module=f"{_CARD}.ceilings", share=25),
    Part(letter="b", name="right", module=f"{_CARD}.right", share=60),
    Part(letter="c", name="layers", module=f"{_CARD}.layer_times", share=100),
    Part(letter="c", name="tiles", module=f"{_CARD}.tiles", share=90),
    Part(letter="d", name="steps", module=f"{_STEPS}.steps", share=90, needs=ALEXSIM),
    Part(letter="e", name="two-gpus", module=f"{_STEPS}.two_gpus", share=35, needs=ALEXSIM),
    Part(letter="g", name="calibrate", module=f"{_STEPS}.calibrated", share=50, needs=ALEXSIM),
    Part(
        letter="h", name="tests", module=f"{_STEPS}.gpu_tests", share=30,
        needs=(*ALEXSIM, "pytest"),
    ),
    Part(
        letter="f", name="telemetry", module=f"{_STEPS}.telemetry", beside=True,
        needs=("alexsim", "pynvml"),
    ),
    Part(letter="", name="compile", module=f"{_CARD}.compiling", beside=True, interpreted=False),
)  # fmt: skip


def chosen(names: Sequence[str], parts: Sequence[Part] = PARTS) -> list[Part]:
    """Parts of these names or letters, in the table's order, and what runs beside them.

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
        if not names or part.beside or part.name in wanted or part.letter in wanted
    ]
