"""``import alexsim``: its names, what its functions take and answer, and its stub.

``python tests/test_api.py`` writes the stub, ``alexsim/__init__.pyi``, and ``docs/api.md``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import here

import alexsim
from alexsim import api
from alexsim.errors import AlexsimError

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
STUB = Path(alexsim.__file__ or "").with_name("__init__.pyi")
NAMES = [
    "AlexNet", "AlexsimError", "__version__", "calibrate", "evaluate", "flops", "from_torch",
    "load_into", "machine", "memory", "network", "open_run", "plan", "profile",
    "recommend", "report", "simulate", "sweep", "train", "validate",
]  # fmt: skip
LIGHT = [
    ("flops", "lenet-5", {}),
    ("recommend", "lenet-5", {"days": 2.0, "machine": "a100", "batch": "64,128"}),
    ("memory", "lenet-5", {"batch": 64, "policy": "reuse"}),
    ("simulate", "lenet-5", {"machine": "k20x8", "gpus": 2, "what_if": ["batch=256"]}),
    ("sweep", "lenet-5", {"axis": ["batch=64,128", "gpus=1,2"], "machine": "k20x8"}),
    ("sweep", "lenet-5", {"axis": ["batch=64,128"], "dry_run": True}),
]


def stub() -> str:
    """What a type checker reads in place of ``__init__.py``."""
    lines = [
        '"""Written by `python tests/test_api.py` from the commands\' options."""',
        "",
        "from pathlib import Path",
        "from typing import Literal",
        "",
        "from alexsim.api import Answer",
        "from alexsim.api import open_run as open_run",
        "from alexsim.editions.load import load_network as network",
        "from alexsim.errors import AlexsimError as AlexsimError",
        "from alexsim.interchange.from_torch import from_torch as from_torch",
        "from alexsim.interchange.module import AlexNet as AlexNet",
        "from alexsim.machine.machine import load_machine as machine",
        "from alexsim.network.network import Network",
        "from alexsim.plan.planner import plan as plan",
        "from alexsim.train.module_state import load_into as load_into",
        "",
        f"__all__ = {json.dumps(NAMES)}",
        "__version__: str",
        "",
    ]
    for name in sorted(api.COMMANDS):
        lines += [f"def {name}("]
        named = False
        for parameter in inspect.signature(api.function(name)).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and not named:
                named = True
                lines.append("    *,")
            default = "" if parameter.default is parameter.empty else " = ..."
            lines.append(f"    {parameter.name}: {annotation(parameter)}{default},")
        lines.append(") -> Answer: ...")
    made = "\n".join(lines) + "\n"
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(command, input=made, capture_output=True, text=True, check=True).stdout


def page() -> str:
    """The reference: what ``help()`` says of every name, and of what the commands answer."""
    lines = ["# Reference of `import alexsim`", "", "Written by `python tests/test_api.py`.", ""]
    for name in NAMES:
        made = getattr(alexsim, name)
        if name == "__version__":
            continue
        made = api.function(name) if name in api.COMMANDS else getattr(made, "__wrapped__", made)
        lines += [f"## alexsim.{name}", "", "```", *code(name, made), "```", ""]
        lines += ["Answers an `Answer`: see below.\n"] if name in api.COMMANDS else []
    lines += ["## What commands answer", "", "```", *code("Answer", api.Answer), "```", ""]
    for name, member in vars(api.Answer).items():
        text = inspect.getdoc(getattr(member, "func", member))
        if not name.startswith("_") and text:
            lines += [f"### Answer.{name}", "", "```", *text.splitlines(), "```", ""]
    return "\n".join(line.rstrip() for line in lines)


def code(name: str, made: Any) -> list[str]:
    """A signature, an option a line, and the text."""
    lines = [name]
    if callable(made) and not (isinstance(made, type) and issubclass(made, Exception)):
        options = [
            f"    {annotated(each)}," for each in inspect.signature(made).parameters.values()
        ]
        lines = [f"{name}(", *options, ")"]
    return [*lines, "", *(inspect.getdoc(made) or "").splitlines()]


def annotated(parameter: inspect.Parameter) -> str:
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{parameter.name}: {annotation(parameter)}{default}"


def annotation(parameter: inspect.Parameter) -> str:
    text = inspect.formatannotation(parameter.annotation).replace("typing.", "")
    if text.startswith("Optional["):
        text = f"{text[len('Optional[') : -1]} | None"
    text = text.replace("pathlib.", "").replace("Path", "str | Path")
    return f"{text} | Network" if parameter.name == "net" else text


def test_the_names_are_these() -> None:
    assert sorted(alexsim.__all__) == NAMES
    for name in NAMES:
        assert name in dir(alexsim)
        assert getattr(alexsim, name)
    with pytest.raises(AttributeError, match="has no attribute 'simulat'"):
        alexsim.simulat  # noqa: B018


def test_every_name_has_a_text() -> None:
    text = inspect.getdoc(alexsim) or ""
    for name in set(NAMES) - {"__version__"}:
        assert name in text
        assert len(inspect.getdoc(getattr(alexsim, name)) or "") > 60, name


def test_the_import_is_light() -> None:
    code = "import sys, alexsim; print(len([m for m in sys.modules if m.startswith('alexsim')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_stub_and_page_are_of_today() -> None:
    assert STUB.read_text(encoding="utf-8") == stub(), "python tests/test_api.py writes it"
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/test_api.py writes it"


def test_a_room_stays_a_room() -> None:
    """Its modules are imported as ever, before and after it was called."""
    from alexsim.simulate import timer

    assert timer is importlib.import_module("alexsim.simulate.timer")
    assert alexsim.simulate("lenet-5").network == "lenet-5"
    assert alexsim.simulate.timer is timer  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "net", "options"), LIGHT, ids=[f"{each[0]}-{len(each[2])}" for each in LIGHT]
)
def test_a_function_answers_as_its_command(name: str, net: str, options: dict[str, Any]) -> None:
    answer = getattr(alexsim, name)(net, **options)
    words = [name, "--net", net]
    for option, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{option.replace('_', '-')}", *([] if each is True else [each])]
    said = here(*words)
    assert repr(answer) == "\n".join(line.rstrip() for line in said.stdout.splitlines())
    told = json.loads(here(*words, "--json").stdout)
    assert answer.document.document() == told
    assert "<pre" in answer._repr_html_()
    for key in told:
        assert getattr(answer, key if key != "schema" else "schema_") is not None or not told[key]
    rows = answer.to_pandas()
    lists = [value for value in told.values() if isinstance(value, list) and value]
    lists += [list(told["answers"].values())] if name == "recommend" else []
    assert len(rows) == len(next(rows for rows in lists if isinstance(rows[0], dict)))


def test_a_network_in_memory_is_one_of_a_name() -> None:
    net = alexsim.network("lenet-5")
    assert alexsim.flops(net).document == alexsim.flops("lenet-5").document
    assert alexsim.memory(net, batch=32).devices == alexsim.memory("lenet-5", batch=32).devices
    with pytest.raises(AlexsimError, match="train: a run is resumed from its network's name"):
        alexsim.train(net, steps=1)


def test_records_say_in_a_line_what_they_are() -> None:
    there = alexsim.machine("gtx580x2")
    step = alexsim.plan(alexsim.network("alexnet-2012"))
    for record, words in (
        (there, "Machine 'Two GTX 580"),
        (there.device, "Device 'GTX 580 3GB'"),
        (there.link, "Link 'PCI Express 2.0"),
        (step, "Plan of alexnet-2012: 128 images of a step, 2 devices"),
    ):
        assert repr(record).startswith(f"<{words}")
        assert len(repr(record)) <= 80


def test_a_module_is_taken_as_it_is() -> None:
    """And what is neither a network nor a name is said in a line, however long its text is."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 224 * 224, 4))
    assert alexsim.flops(module).document == alexsim.flops(alexsim.from_torch(module)).document
    with pytest.raises(AlexsimError, match="net must be text or a number; got ") as caught:
        alexsim.flops({"a" * 1000})
    assert len(str(caught.value)) < 120
    with pytest.raises(AlexsimError, match=r"give FILE\.py:NAME"):
        alexsim.train(module)


def test_processes_of_a_run_are_told_the_whole_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``alexsim.train`` begins beside itself is a command line that parses."""
    from alexsim.train import launch

    told = []

    class Others(launch.Others):
        def __init__(self, count: int, line: list[str]) -> None:
            told.append((count, line))
            raise AlexsimError("enough")

    monkeypatch.setattr(launch, "Others", Others)
    settings = {"data": folder, "batch": 8, "steps": 2, "replicas": 2, "processes": True}
    with pytest.raises(AlexsimError, match="enough"):
        alexsim.train("lenet-5", output=tmp_path / "run", **settings)
    ((count, line),) = told
    assert (count, line[0]) == (2, "train")
    assert {"--replicas", "--processes", "--net"} <= set(line)


def test_what_does_not_fit_is_an_answer_with_a_problem() -> None:
    answer = alexsim.memory("alexnet-2012", gpus=1)
    assert answer.fits is False
    assert answer.problem.exit_code == 3
    assert str(answer.problem).startswith("gpu0 needs 3.22 GiB")
    assert alexsim.memory("lenet-5").problem is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 0}, "--batch must be at least 1, got 0"),
        ({"precision": "fp7"}, "--precision must be one of fp32, tf32"),
        ({"machine": "a1000"}, "no machine or device 'a1000'; did you mean"),
        ({"mchine": "a100"}, "no option of simulate 'mchine'; did you mean machine?"),
        ({"json": True}, "no option of simulate 'json'"),
        ({"transport": "host", "gpus": 1}, "no GPU exchanges anything"),
        ({"batch": object()}, "batch must be text or a number; got <object"),
        ({"net": "lenet-5"}, "simulate takes one network, and options by name"),
    ],
)
def test_mistakes_are_the_command_line_s(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AlexsimError) as caught:
        alexsim.simulate("alexnet-2012", **options)
    assert says in str(caught.value)


def test_a_run_is_trained_opened_and_drawn(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {"data": folder, "batch": 8, "steps": 4, "workers": 1, "threads": 1}
    trained = alexsim.train("lenet-5", output=run, **settings)
    assert len(trained.losses) == trained.steps == 4
    opened = alexsim.open_run(run)
    assert tuple(each.loss for each in opened.metrics) == trained.losses
    assert opened.plot("loss") == trained.plot("loss") != opened.plot("error")
    tested = alexsim.evaluate(run, data=folder, threads=1)
    assert tested.to_pandas().shape[0] == 1
    assert alexsim.evaluate(models=[run], data=folder, threads=1).document == tested.document
    page = alexsim.report(inputs=[run], output=tmp_path / "page.html")
    with pytest.raises(AlexsimError, match="report: inputs are given twice"):
        alexsim.report(run, inputs=[run])
    assert page.plot().data
    with pytest.raises(AlexsimError, match="no figure 'x'; there are "):
        page.plot("x")
    with pytest.raises(AlexsimError, match="no table 'x'; there are "):
        tested.to_pandas("x")


def test_a_simulation_has_the_figures_of_its_page(tmp_path: Path) -> None:
    there = {"machine": "k20x8", "batch": 64}
    step = alexsim.simulate("alexnet-2012", **there)
    page = alexsim.report("alexnet-2012", output=tmp_path / "page.html", **there)
    names = ("layers-predicted", "roofline", "memory-by-category", "memory-gpu0", "memory-gpu1")
    for name in names:
        assert step.plot(name) == page.plot(name)
    # The page's has no data path, to be laid beside what was measured.
    lanes, others = (
        of.plot("timeline-simulated").layout.yaxis.categoryarray for of in (step, page)
    )
    assert lanes[: len(others)] == others
    assert all(lane.startswith("host") for lane in lanes[len(others) :])
    assert len(lanes) > len(others)


@pytest.mark.parametrize("precision", ["tf32", "amp"])  # Winograd passes that of fp32
def test_no_pass_is_above_the_roof_of_its_precision(precision: str) -> None:
    roof = alexsim.simulate("alexnet-owt", machine="a100", precision=precision).plot("roofline")
    arithmetic, *others = (trace for trace in roof.data if trace.mode == "lines")
    ceiling = max(max(trace.y) for trace in (arithmetic, *others))
    rates = [rate for trace in roof.data if "markers" in trace.mode for rate in trace.y]
    assert max(rates) <= ceiling
    assert max(rates) > ceiling / 20


def test_a_sweep_has_a_mark_for_every_configuration_that_makes_sense() -> None:
    axis = ["batch=64,128,512", "machine=gtx580x2,a100", "gpus=1,2,7"]
    found = alexsim.sweep("alexnet-2012", axis=axis)
    rows = found.to_pandas()
    made = rows[rows["error"].isna() | (rows["error"] == "")]
    assert 0 < len(made) < len(rows)
    marks = [
        (day, gib, trace.name, day - minus, day + plus)
        for trace in found.plot().data
        for day, gib, minus, plus in zip(
            trace.x, trace.y, trace.error_x.arrayminus, trace.error_x.array, strict=True
        )
    ]
    assert len(marks) == len(made)
    assert {name for _, _, name, _, _ in marks} == {
        "no other that fits is better", "another that fits is better", "does not fit",
    }  # fmt: skip
    for row, mark in zip(
        made.sort_values(["training_days", "memory_bytes"]).itertuples(), sorted(marks), strict=True
    ):
        days, gib, name, low, high = mark
        assert (days, gib) == pytest.approx((row.training_days, row.memory_bytes / 2**30))
        assert name.startswith("does not" if not row.fits else "no other" if row.pareto else "anot")
        assert low < days < high


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
