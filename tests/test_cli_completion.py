"""The tree of commands, what its options inherit, and what a shell completes."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

from alexsim.cli.app import main, the_command
from alexsim.cli.tree import MOVED, PANELS, Command, Group

COMMANDS = {name: each for panel in PANELS.values() for name, each in panel.items()}


def listed(
    commands: Mapping[str, Command | Group] = COMMANDS, path: str = ""
) -> Iterator[tuple[str, Command | Group]]:
    """Every command and group, by the words that call it."""
    for name, each in commands.items():
        yield f"{path}{name}", each
        if isinstance(each, Group):
            yield from listed(each.commands, f"{path}{name} ")


LISTED = dict(listed())


# The tree


@pytest.mark.parametrize("words", [words for words, one in LISTED.items() if type(one) is Command])
def test_a_summary_is_the_first_line_of_the_docstring(words: str) -> None:
    each = LISTED[words]
    assert isinstance(each, Command)
    module, _, function = each.target.partition(":")
    called = getattr(import_module(f"alexsim.cli.{module}"), function)
    assert (inspect.getdoc(called) or "").splitlines()[0] == each.summary


def helped(words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--help"])
    assert not ended.value.code
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("words", ["", *LISTED])
def test_help_fits_a_terminal_and_cuts_nothing(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = helped(words, capsys)
    assert max(map(len, lines)) <= 80
    inside = LISTED[words] if words else Group(COMMANDS, "", "")
    for name, each in inside.commands.items() if isinstance(inside, Group) else ():
        assert any(line.split() == [name, *each.summary.split()] for line in lines), name


def test_commands_stand_in_panels(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(helped("", capsys))
    places = [text.index(f"\n{title}:\n") for title in PANELS]
    assert places == sorted(places)
    assert len(places) == 5
    for old in MOVED:
        assert f"\n  {old} " not in text


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_says_the_new_one_and_does_the_same(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MOVED[old] in LISTED
    new = helped(MOVED[old], capsys)
    with pytest.raises(SystemExit) as ended:
        main([old, "--help"])
    assert not ended.value.code
    out, err = capsys.readouterr()
    assert out.splitlines() == new
    assert err == f"alexsim: `alexsim {old}` is now `alexsim {MOVED[old]}`\n"


def test_a_strange_command_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for words, near in ((["simulat"], "simulate"), (["model", "nearst"], "nearest")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert f"Did you mean '{near}'" in capsys.readouterr().err


# Records


def python(code: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_option_of_every_command_is_one_field() -> None:
    """The base record is given a field; then every command has it, and nothing else changed."""
    print_all = (
        "from alexsim.cli.app import the_command\n"
        "def below(command, path=''):\n"
        "    for name, each in getattr(command, 'commands', {}).items():\n"
        "        yield from below(each, f'{path} {name}')\n"
        "    if not hasattr(command, 'commands'):\n"
        "        print(path, *(one.name for one in command.params))\n"
        "        yield\n"
        "list(below(the_command()))\n"
    )
    add_one = (
        "import dataclasses\n"
        "from alexsim.command import fields\n"
        "class Options(fields.Options):\n"
        "    extra: bool = fields.flag('Also this.')\n"
        "fields.Options = dataclasses.dataclass(frozen=True, kw_only=True)(Options)\n"
    )
    before, after = python(print_all).splitlines(), python(add_one + print_all).splitlines()
    assert len(before) == len(after) >= 28
    for was, now in zip(before, after, strict=True):
        assert now.split() == [*was.split(), "extra"]


# Values that a shell completes


def completed(line: str) -> list[str]:
    """What Typer's completion for bash gives for a command line that ends where TAB is hit."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "alexsim"], capture_output=True, text=True, check=False,
        env={
            **os.environ,
            "_ALEXSIM_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
    )  # fmt: skip
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("alexsim flops --net re", {"resnet18", "resnet50"}),
        ("alexsim memory --net alexnet-paper+no-", {"alexnet-paper+no-lrn"}),
        ("alexsim memory --policy ", {"as-released", "in-place", "reuse", "pytorch"}),
        ("alexsim train --optimizer sg", {"sgd-2012", "sgd"}),
        ("alexsim train --precision fp32", {"fp32", "fp32x3"}),
        ("alexsim train --recipe m", {"modern"}),
        ("alexsim train --net lenet-5 --train-only fc3,fc", {"fc3,fc3", "fc3,fc4", "fc3,fc5"}),
        ("alexsim profile --net lenet-5 --layer po", {"pool1", "pool2"}),
        ("alexsim simulate --machine k20", {"k20", "k20x8"}),
        ("alexsim simulate --library cuda", {"cuda-convnet", "cuda-convnet2"}),
        ("alexsim simulate --network 100", {"100gbe"}),
        ("alexsim sweep --axis ba", {"batch="}),
        ("alexsim simulate --what-if f", {"fuse"}),
        ("alexsim check kernels --precision bf", {"bf16"}),
        ("alexsim hardware show gtx58", {"gtx580", "gtx580x2"}),
        ("alexsim network show res", {"resnet18", "resnet50"}),
        ("alexsim recipe show mo", {"modern"}),
        ("alexsim mo", {"model"}),
        ("alexsim model ", {"predict", "nearest", "filters", "export", "import"}),
        ("alexsim check bench ", {"run", "compare", "update"}),
        ("alexsim memory --pol", {"--policy"}),
    ],
)
def test_a_shell_completes_values(line: str, values: set[str]) -> None:
    found = completed(line)
    last = line.rpartition(" ")[2]
    assert set(found) >= values
    assert all(value.startswith(last) for value in found)
    assert len(found) < 12


def test_completing_commands_imports_none_of_them() -> None:
    code = (
        "import sys, runpy\n"
        "try: runpy.run_module('alexsim', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('alexsim.plan')))\n"
    )
    asked = {"COMP_WORDS": "alexsim ", "COMP_CWORD": "1", "_ALEXSIM_COMPLETE": "complete_bash"}
    *names, imported = python(code, **asked).split("\n")[:-1]
    assert "memory" in names
    assert not imported
    assert Path(import_module("alexsim").__file__ or "").exists()
    assert the_command().list_commands(None) == list(COMMANDS)
