"""Documents of commands: each has a schema that is written down, and is read back as it was."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from alexsim.budget.fit import fit
from alexsim.documents.base import Document, Part
from alexsim.documents.plan import PlanWords, memory_document
from alexsim.documents.profile import plan_document
from alexsim.editions.load import load_network
from alexsim.errors import RunError
from alexsim.machine.machine import load_machine
from alexsim.page.schemas import DOCUMENTS, written
from alexsim.plan.spec import WORDS, PlanSpec
from alexsim.profile.step_profile import Ceilings
from alexsim.simulate.simulator import on_machine, planned
from alexsim.strict_json import json_text
from alexsim.typed import read

DOCS = Path(__file__).parents[1] / "docs"


def test_schemas_are_those_that_are_written_down() -> None:
    """Whoever means to change them: python -m alexsim.page.schemas docs"""
    for path, text in written().items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, path
    assert {path.name for path in (DOCS / "schemas").iterdir()} == {
        path.removeprefix("schemas/") for path in written() if path.startswith("schemas/")
    }


def test_every_document_has_a_schema() -> None:
    def below(kind: type[Part]) -> set[type[Part]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    heads = {kind for kind in DOCUMENTS for kind in kind.__mro__}
    unknown = {
        kind for kind in below(Document)
        if kind not in heads and kind.__module__.startswith("alexsim.")
    }  # fmt: skip
    # A planned step is drawn, and printed only with what was measured.
    assert {kind.__name__ for kind in unknown} == set()
    for document in DOCUMENTS:
        Draft202012Validator.check_schema(document.model_json_schema(mode="serialization"))


def test_every_choice_of_a_plan_that_is_a_word_is_told() -> None:
    assert set(WORDS) == set(PlanWords.model_fields)


@cache
def samples() -> dict[str, Document]:
    network, machine = load_network("lenet-5"), load_machine("gtx580x2")
    spec = PlanSpec(network=network)
    made = planned(spec, machine, whole=True)
    sheet = Ceilings(flop_per_s=1e12, bytes_per_s=1e11)
    return {
        "memory": memory_document(made, fit(made, 2**20), context_bytes=0),
        "plan": plan_document(made, on_machine(spec, machine), sheet),
    }


@pytest.mark.parametrize("name", ["memory", "plan"])
def test_what_is_written_is_read_back(name: str) -> None:
    document = samples()[name]
    text = json_text(document.document())
    assert read(type(document), json.loads(text), "it", RunError) == document


@given(st.data())
def test_what_does_not_fit_is_named(data: st.DataObject) -> None:
    """Whatever value is of another type, or is missing: one line names its place."""
    document = data.draw(st.sampled_from(list(samples().values())))
    table = json.loads(json_text(document.document()))
    place, holder = [], table
    while True:
        key = data.draw(
            st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        )
        place.append(key)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        holder = inner
    holder[key] = {"an": "object"}
    where = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in place).lstrip(".")
    if isinstance(inner, dict):
        return
    with pytest.raises(RunError) as caught:
        read(type(document), table, "it", RunError)
    assert str(caught.value).startswith(f"it: {where} must be ")
    assert "\n" not in str(caught.value)
