"""Mistakes of every kind in every command: one line, exit code 2, nothing ignored."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import SOURCE, write_weights

from alexsim.cli.app import main, the_command
from alexsim.cli.train_options import BESIDE, CHANGEABLE

ROOT = Path(__file__).parents[1]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that can be run, by the words that call it."""
    command = command or the_command()
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


COMMANDS = dict(commands())


def option_of(parameter: Any) -> str:
    return max(parameter.opts, key=len)


def options_of(command: str) -> list[Any]:
    return [one for one in COMMANDS[command].params if one.param_type_name == "option"]


def kind_of(parameter: Any) -> str:
    return str(parameter.type_descriptor.annotation)


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command said that had to end with exit code 2 and one line."""
    with pytest.raises(SystemExit) as caught:
        main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    assert caught.value.code == 2, (arguments, err)
    lines = [line for line in err.splitlines() if line.startswith("alexsim: ")]
    assert len(lines) == 1, (arguments, err)
    assert err.splitlines()[-1] == lines[0]
    assert not out, arguments
    return lines[0]


# Numbers


MAY_BE_ZERO = {
    ("train", "--learning-rate"), ("train", "--bias-rate"), ("check bench compare", "--tolerance"),
}  # fmt: skip
ANY_NUMBER = {("train", "--seed"), ("data pack", "--seed")}
NUMBERS = [
    (command, option_of(one), value)
    for command in COMMANDS
    for one in options_of(command)
    if (kind := kind_of(one)) in ("<class 'int'>", "int | None", "<class 'float'>", "float | None")
    for value in ("-1", "0", *(("nan", "inf") if "float" in kind else ("1e3", "nan")))
    if not (value == "0" and (command, option_of(one)) in MAY_BE_ZERO)
    if not (value in ("-1", "0") and (command, option_of(one)) in ANY_NUMBER)
]


@pytest.fixture(scope="module")
def valid(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    """What each command needs beside the option that is wrong."""
    where = tmp_path_factory.mktemp("valid")
    weights, image = write_weights(where), next((folder / "dark").iterdir())
    counted = ("--only", "counted", "--no-kernels")
    return {
        "train": ("--net", "lenet-5", "--data", folder, "-o", where / "run"),
        "eval": (weights, "--data", folder),
        "model predict": (weights, image),
        "model nearest": (weights, image, "--data", folder),
        "report": ("lenet-5", "-o", where / "page.html"),
        "sweep": ("-a", "batch=2"),
        "recommend": ("--net", "lenet-5", "--machine", "k80", "--days", "9"),
        "check calibrate": ("-o", where / "here.json"),
        "check bench compare": counted[:2],
        "check fit": ("--kernels", "kernels.csv", "-o", where / "fit"),
        "check bench update": ("--baseline", where / "base.json"),
        "data pack": (folder, where / "packed"),
        "data inspect": (folder,),
        "data bench": (folder,),
    }


@pytest.mark.parametrize(("command", "option", "value"), NUMBERS)
def test_a_number_out_of_range_is_refused_by_name(
    command: str,
    option: str,
    value: str,
    valid: dict[str, tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = failed(capsys, *command.split(), *valid.get(command, ()), option, value)
    assert option.strip("-").partition("-")[0] in line


def test_numbers_of_every_command_are_tried() -> None:
    tried = {(command, option) for command, option, _ in NUMBERS}
    assert len(tried) >= 55
    assert tried >= MAY_BE_ZERO | ANY_NUMBER


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("memory", "--mem-cap", "3"), "--mem-cap: a size needs its unit, as in 3GB"),
        (("train", "--mem-cap", "3221225472"), "a size needs its unit"),
        (("memory", "--mem-cap", "nanGB"), "not a size"),
        (("memory", "--mem-cap", "9" * 400 + "GB"), "not a size"),
        (("simulate", "--set", "device.clock_mhz=1700MHz"), "a plain number of MHz"),
        (("simulate", "--set", "device.clock_mhz=1.7GHz"), "device.clock_mhz takes a plain"),
        (("simulate", "--set", "link.gb_per_s=8GB"), "a plain number of GB/s"),
        (("simulate", "--set", "link.latency_us=5us"), "a plain number of microseconds"),
        (("simulate", "--set", "device.power_w=250W"), "a plain number of watts"),
        (("simulate", "--set", "decode_workers=two"), "a plain number, without a unit"),
        (("simulate", "--set", "device.memory_bytes=3XB"), "device.memory_bytes: not a size"),
        (("simulate", "--set", "device.clock_mhz=nan"), "device.clock_mhz must be finite"),
        (("simulate", "--set", "device.clock_mhz=-5"), "not negative, got -5"),
        (("simulate", "--set", "link.efficiency=inf"), "link.efficiency must be finite"),
        (("data", "bench", "x", "--workers", ","), "--workers must be a positive whole number"),
        (("data", "bench", "x", "--workers", "100000"), "--workers must be at most 1,024"),
        (("check", "calibrate", "--check", ","), "--check must be a positive whole number"),
        (("memory", "--batch", "9" * 400), "--batch must be at most"),
        (("profile", "--threads", "9" * 30), "--threads must be at most 1,024"),
        (("train", "--net", "lenet-5", "--workers", "9" * 30), "--workers must be at most 1,024"),
        (("train", "--data="), "--data is given without a value"),
        (("memory", "--net", ""), "--net is given without a value"),
        (("network", "show", ""), "an argument is given without a value"),
    ],
)
def test_values_say_what_they_may_be(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failed(capsys, *arguments)


@pytest.mark.parametrize("more", [(), ("--names", "gone"), ("--val-labels", "gone")])
def test_packing_what_is_not_there_makes_no_folder(
    more: tuple[str, ...], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = folder if more else tmp_path / "gone"
    assert "gone: no such file" in failed(capsys, "data", "pack", source, tmp_path / "to", *more)
    assert not [*tmp_path.iterdir()]


ENDINGS = {
    "sheet": ".png", "output": ".png", "trace": ".json.gz", "snapshot": ".pickle", "html": ".html",
    "predictions": ".csv",
}  # fmt: skip
OUTPUTS = {
    "check calibrate": ".json", "sweep": ".csv", "profile": ".json", "report": ".html",
    "hardware new": ".toml", "network show": ".svg", "recipe show": ".toml",
    "check validate": ".csv", "check bench run": ".json",
}  # fmt: skip


def ending_of(command: str, parameter: Any) -> str:
    name = str(parameter.name)
    return OUTPUTS.get(command, ".png") if name == "output" else ENDINGS[name]


def needed(command: str, valid: dict[str, tuple[Any, ...]]) -> tuple[Any, ...]:
    if command == "model filters":
        return valid["model predict"][:1]
    return {"network show": ("lenet-5",), "recipe show": ("2012",)}.get(
        command, valid.get(command, ())
    )


WRITES = [
    (command, one)
    for command in COMMANDS
    for one in options_of(command)
    if one.name in ("output", "predictions", "snapshot", "trace", "sheet", "html")
    if command not in ("train", "check fit")
]


@pytest.mark.parametrize(
    ("command", "parameter"), WRITES, ids=[f"{c} {option_of(one)}" for c, one in WRITES]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    command: str,
    parameter: Any,
    tmp_path: Path,
    valid: dict[str, tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("alexsim.files.write_whole", None)
    ending, given = ending_of(command, parameter), needed(command, valid)
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").touch()
    for name, why in ((f"file/x{ending}", "cannot write"), (f"folder{ending}", "it is a folder")):
        line = failed(capsys, *command.split(), *given, option_of(parameter), tmp_path / name)
        assert why in line


@pytest.mark.parametrize(
    ("command", "parameter"), WRITES, ids=[f"{c} {option_of(one)}" for c, one in WRITES]
)
def test_a_file_of_another_format_is_refused_before_the_work(
    command: str,
    parameter: Any,
    tmp_path: Path,
    valid: dict[str, tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the ending of its name, whatever the command writes."""
    path = tmp_path / "x.doc"
    line = failed(
        capsys, *command.split(), *needed(command, valid), option_of(parameter), path, "--json"
    )
    assert ending_of(command, parameter) in line
    assert str(path) in line
    assert not path.exists()


# Going on with a run


STAYS = [one for one in options_of("train") if one.name not in (*CHANGEABLE, *BESIDE, "help")]


@pytest.mark.parametrize("parameter", STAYS, ids=option_of)
def test_what_a_resumed_run_has_already_is_refused(
    parameter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it is the default, and every option that there will be."""
    words = parameter.type_descriptor.choices or ("1",)
    default = words[0] if parameter.default in (None, "") else str(parameter.default)
    value = () if "bool" in kind_of(parameter) else (default,)
    line = failed(capsys, "train", "--resume", tmp_path, option_of(parameter), *value)
    assert f"{option_of(parameter)} cannot be given with it" in line
    assert all(f"--{name}" in line for name in CHANGEABLE)


def test_the_help_of_resume_lists_what_may_change() -> None:
    (resume,) = (one for one in options_of("train") if one.name == "resume")
    listed = set(re.findall(r"--(\w+)", str(resume.help)))
    assert listed == set(CHANGEABLE)


# Networks in users' files


LAYERS = "from alexsim.network.layers import *\n"
FAILING = {
    "syntax": ("x = (\n", "net.py:1: SyntaxError: '(' was never closed"),
    "import": ("import os\n\nimport nothere\n", "net.py:3: ModuleNotFoundError: No module"),
    "other file": ("import broken_\n", "net.py:1: SyntaxError"),
    "exception": ("def f():\n    1 / 0\n\n\nf()\n", "net.py:2: ZeroDivisionError"),
    "empty exception": ("raise ValueError\n", "net.py:1: ValueError"),
    "two lines": ("raise ValueError('a\\nb')\n", "net.py:1: ValueError: a b"),
    "exit": ("raise SystemExit(0)\n", "net.py:1: SystemExit: 0"),
    "recursion": ("def f():\n    f()\n\n\nf()\n", "net.py:2: RecursionError"),
    "base": ("raise BaseException('b')\n", "net.py:1: BaseException: b"),
    "unprintable": (
        "class E(Exception):\n    def __str__(self): raise OSError\nraise E\n",
        "net.py:3: ",
    ),
    "bytes": (b"\xff\xfe", "net.py:1: SyntaxError"),
    "null": ("a\0b", "net.py: SyntaxError"),
    "layer": (f"{LAYERS}\nConvolution(name='c', filters=0, size=1)\n", "net.py:3: layer 'c'"),
    "no name": (
        "other = 1\n",
        "has no Network and no torch.nn.Module called 'net' (it has none at all)",
    ),
    "no network": ("net = 5\n", "'net', but something of type int"),
    "function": ("def net(): pass\n", "'net', net() returns something of type NoneType"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_file_that_fails_says_where(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content, message = FAILING[case]
    (tmp_path / "broken_.py").write_text("x = (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = content if isinstance(content, bytes) else f"{content}".encode()
    Path("net.py").write_bytes(data)
    assert message in failed(capsys, "flops", "--net", "net.py:net")


TAKES_NET = [name for name in COMMANDS if any(one.name == "net" for one in options_of(name))]


@pytest.mark.parametrize("command", [*TAKES_NET, "report", "network show"])
def test_every_command_that_takes_a_network_says_so(
    command: str,
    tmp_path: Path,
    valid: dict[str, tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "net.py").write_text("import nothere\n")
    given = f"{tmp_path / 'net.py'}:net"
    if command == "model import":
        arguments: tuple[Any, ...] = (tmp_path / "a.pt", tmp_path / "b.safetensors")
    else:
        arguments = valid.get(command, ())
    where = (given,) if command in ("report", "network show") else (*arguments, "--net", given)
    line = failed(capsys, *command.split(), *where)
    assert "net.py:1: ModuleNotFoundError" in line


def test_a_file_without_a_name_lists_its_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_weights(tmp_path)
    assert "as in tiny.py:NAME (it has net)" in failed(
        capsys, "flops", "--net", tmp_path / "tiny.py"
    ).replace(f"{tmp_path}/", "")
    assert "(it has net)" in failed(capsys, "report", f"{tmp_path / 'tiny.py'}:nte")


def test_what_a_file_prints_does_not_spoil_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud.py").write_text(f"{SOURCE}print('hello')\n")
    with pytest.raises(SystemExit):
        main(["flops", "--json", "--net", f"{tmp_path / 'loud.py'}:net"])
    out, err = capsys.readouterr()
    assert out.startswith("{")
    assert err == "hello\n"


# What is said of the commands


def test_help_texts_say_the_default_that_is_one() -> None:
    """A text that names a default has no other one shown behind it, and a word for a word."""
    for command in COMMANDS:
        context = COMMANDS[command].make_context("x", [], resilient_parsing=True)
        for one in options_of(command):
            text = (one.get_help_record(context) or ("", ""))[1]
            shown = re.search(r"\[default: (.*)\]", text)
            said = re.findall(
                r"(?:^|\W)[Dd]efault:? (?:is )?([^\s;.)]+)", text[: shown and shown.start()]
            )
            assert not (shown and said), (command, text)
            default = one.default
            for word in said:
                if default not in (None, "", False):
                    assert str(default) == word, (command, text)
            # "up to 4" beside a default of 1 was such a text too.
            assert text.count("efault") <= 1, (command, text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json(command: str) -> None:
    """As README says."""
    assert any(option_of(one) == "--json" for one in options_of(command))
    assert "all take `--json`" in (ROOT / "README.md").read_text()


def called() -> Iterator[tuple[str, list[str]]]:
    """Commands in README, CONTRIBUTING and docs/, and in the commands' own help."""
    paths = [
        *(ROOT / p for p in ("README.md", "CONTRIBUTING.md", "kernels/README.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    ]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in paths}
    texts |= {f"help of {name}": str(command.help) for name, command in COMMANDS.items()}
    for name, text in texts.items():
        whole = re.sub(r"\\\n\s*", " ", text)
        lines = re.findall(r"(?:`|Example: |bin/|-m )alexsim ([a-z][^`\n|#]*)", whole)
        for block in whole.split("```")[1::2]:
            lines += re.findall(r"^ *(?:- run: )?alexsim ([a-z][^\n#]*)", block, re.MULTILINE)
        for line in lines:
            yield name, shlex.split(line.partition(" && ")[0])


def test_every_option_that_is_told_of_is_there() -> None:
    tried = 0
    for where, words in called():
        name = next((n for n in (" ".join(words[:k]) for k in (3, 2, 1)) if n in COMMANDS), None)
        if name is None:
            group = f"{' '.join(words)} "
            assert any(one.startswith(group) for one in COMMANDS), (where, words)
            continue
        has = {opt for one in COMMANDS[name].params for opt in (*one.opts, *one.secondary_opts)}
        for word in words[1:]:
            if re.match(r"--?[a-z]", word):
                tried += 1
                assert word.partition("=")[0].rstrip(".,;:)") in has | {"--help"}, (where, words)
    assert tried > 100
