"""``kernels/README.md`` is true, its examples run, and what is missing is told in a line."""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

import alexsim_kernels
from alexsim.cli.kernels import KernelsOptions
from alexsim_kernels import common, ops
from alexsim_kernels.bench import cpu_cases, cpu_layer_cases, layer_cases
from alexsim_kernels.bench.cases import checked
from alexsim_kernels.cpu.build import available
from alexsim_kernels.shapes import ALEXNET, RESNET50, Convolution, own
from alexsim_kernels.tuning import SHARED_BYTES

ROOT = Path(__file__).parents[1]
README = (ROOT / "kernels" / "README.md").read_text("utf-8")
RECORD = Path(alexsim_kernels.__file__ or "").parent / "compiled.csv"
COMMANDS = [
    line
    for language, block in re.findall(
        r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE
    )
    if not language
    for line in block.splitlines()
]
CARD = torch.cuda.is_available()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, and Triton as whoever types this has it."""
    inherited = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments], env=inherited | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_the_examples_run_one_after_the_other() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        if "alexsim_kernels.cpu" in block and (why_not := available()):
            pytest.skip(why_not)
        exec(compile(block, "kernels/README.md", "exec"), names)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_run(line: str, cpu_kernels: None) -> None:
    python, *arguments = shlex.split(line)
    assert python == "python"
    ran = run(*arguments)
    if "--tune" in arguments and not CARD:
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
        assert ran.stderr.startswith("alexsim_kernels: there is no CUDA card here; ")
        return
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_the_table_has_every_operator_and_its_arguments() -> None:
    rows = dict(re.findall(r"^\| `(\w+)\(([\w, ]+)\)` \|", README, flags=re.MULTILINE))
    schemas = {
        name: getattr(torch.ops.alexsim, name).default._schema.arguments for name in ops.__all__
    }
    assert rows == {
        name: ", ".join(argument.name for argument in arguments)
        for name, arguments in schemas.items()
    }
    assert set(re.findall(r"`(\w+)`", README.split("| `precision` |")[1].split("\n\n")[0])) == set(
        common.PRECISIONS
    )


def on_record() -> list[dict[str, str]]:
    """What kernels compiled to."""
    return list(csv.DictReader(RECORD.read_text("utf-8").splitlines()))


def by_arch() -> str:
    """The README's table, of the record."""
    lines = ["| `--arch` | kernels | spill | products on |", "|---|---:|---:|---|"]
    rows = [
        row
        for row in csv.DictReader(RECORD.read_text("utf-8").splitlines())
        if row["triton"] == "3.7.1"
    ]
    for arch in SHARED_BYTES:
        of_arch = [row for row in rows if row["arch"] == str(arch)]
        spilt = Counter(row["precision"] for row in of_arch if row["spills"] != "0")
        spills = f"{sum(spilt.values())}"
        if spilt:
            spills += f" ({', '.join(f'{n} {p}' for p, n in sorted(spilt.items()))})"
        units = sorted({row["products"] for row in of_arch} - {""})
        lines.append(f"| {arch} | {len(of_arch)} | {spills} | {', '.join(units)} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_cards_is_the_record() -> None:
    """Whoever compiles them anew: python tests/test_kernels_door.py writes the table."""
    assert by_arch() in README
    rows = on_record()
    assert {int(row["arch"]) for row in rows} == set(SHARED_BYTES)
    for row in rows:
        assert int(row["shared_bytes"]) <= SHARED_BYTES[int(row["arch"])], row
        spared = row["arch"] in ("80", "86", "89", "90") and row["triton"] == "3.7.1"
        assert row["spills"] == "0" or not spared, row
        assert 16 <= int(row["registers"]) <= 255, row
    # What a kernel is launched for does not depend on the card.
    ops_of = {
        arch: {(r["op"], r["precision"]) for r in rows if r["arch"] == str(arch)}
        for arch in SHARED_BYTES
    }
    assert len({frozenset(each) for each in ops_of.values()}) == 1
    assert RECORD.stat().st_size < 120_000  # it is read at every `check kernels`, and shipped


def test_a_block_may_take_what_the_guide_says() -> None:
    """CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", in KB."""
    guide = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
    assert {arch: size / 1024 for arch, size in SHARED_BYTES.items()} == guide
    assert get_args(get_type_hints(KernelsOptions)["arch"]) == tuple(guide)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2,3", "must be ten whole numbers N,C,H,W,K,R,S,STRIDE,PAD,GROUPS"),
        ("1,2,3,4,5,6,7,8,9,x", "must be ten whole numbers"),
        ("0,3,8,8,4,3,3,1,1,1", "all at least 1 and PAD at least 0"),
        ("1,3,8,8,4,3,3,1,-1,1", "all at least 1 and PAD at least 0"),
        ("1,3,8,8,4,3,3,0,1,1", "all at least 1 and PAD at least 0"),
        ("1,3,8,8,4,3,3,1,1,0", "all at least 1 and PAD at least 0"),
        ("1,3,8,8,4,3,3,1,1,2", "2 groups do not divide 3 channels and 4 filters"),
        ("1,3,4,4,4,5,3,1,0,1", "taps (5, 3) do not fit (4, 4) pixels padded by 0"),
    ],
)
def test_a_shape_that_is_none_is_refused(text: str, says: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(says)):
        own(text)


@pytest.mark.parametrize("bench", ["layers", "cpu"])
def test_both_benches_refuse_it(bench: str) -> None:
    for more, says in (
        (("--conv", "1,2,3"), "must be ten whole numbers N,C,H,W,K,R,S,STRIDE,PAD,GROUPS"),
        (("--conv", "1,4,8,8,4,3,3,1,1,1", "--batch", "2"), "--conv says"),
    ):
        ran = run("-m", f"alexsim_kernels.bench.{bench}", *more)
        assert ran.returncode == 2
        assert says in ran.stderr.splitlines()[-1]


def test_shapes_are_those_of_pytorch() -> None:
    batch, shape = own("2,6,9,7,8,5,3,2,1,2")
    x, weight = torch.empty(batch, 6, 9, 7), torch.empty(8, 3, 5, 3)
    y = torch.nn.functional.conv2d(x, weight, stride=2, padding=1, groups=2)
    assert (*y.shape[2:],) == shape.out
    assert shape.overhang == (0, 0)
    assert shape.multiply_adds(batch) == y.numel() * 3 * 5 * 3
    assert ALEXNET["conv1"].overhang == (3, 3)
    assert not own("1,4,8,8,4,3,3,1,1,1")[1].images_alone


def test_own_shapes_are_checked_and_timed_on_a_cpu(tmp_path: Path, cpu_kernels: None) -> None:
    out = tmp_path / "own.json"
    ran = run(
        "-m", "alexsim_kernels.bench.cpu", "--conv", "2,8,9,7,12,3,5,1,1,2",
        "--conv", "1,3,16,16,8,5,5,2,2,1", "--rounds", "1", "--threads", "1", "--out", str(out),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    document = json.loads(out.read_text())
    passes = ["forward", "grad_input", "grad_weight"]
    rows = [(row["op"], row["pass_"]) for row in document["rows"]]
    # The gradient of three colours is left out.
    assert rows == [("own1", p) for p in passes] + [("own2", p) for p in passes if p[5:] != "input"]
    assert all(row["ours_ms"] > 0 and row["error"] < 1e-5 for row in document["rows"])
    assert document["convolutions"]["own1"]["groups"] == 2
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_a_wrong_kernel_is_not_timed(cpu_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexsim_kernels.bench.cpu import timed

    shape = Convolution(channels=4, extent=(6, 6), filters=4, taps=(3, 3), padding=1)
    forward, *_ = cpu_cases.convolutions(1, {"own1": shape})
    assert timed(forward, 1, {"fp32": 1.0}).error < 1e-6
    computed = cpu_cases.convolution.forward
    monkeypatch.setattr(
        cpu_cases.convolution, "forward",
        lambda x, w, b, y, **options: (computed(x, w, b, y, **options), y.mul_(1.001)),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="own1 forward: error 1"):
        timed(forward, 1, {"fp32": 1.0})


@pytest.mark.skipif(CARD, reason="there is a card")
def test_without_a_card_it_is_one_line() -> None:
    otherwise = "--check compares with float64 in Triton's interpreter"
    ran = run("-m", "alexsim_kernels.bench.layers")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"alexsim_kernels: there is no CUDA card here; {otherwise}")
    assert ran.stderr.count("\n") == 1
    script = (
        "import torch, alexsim_kernels.ops\n"
        "x, w = torch.zeros(1, 4, 5, 5), torch.zeros(4, 4, 3, 3)\n"
        "for run in (\n"
        "    lambda: torch.ops.alexsim.conv2d(x, w, None, 1, 1, 1, False, 'fp32'),\n"
        "    lambda: torch.ops.alexsim.max_pool2d(x, 3, 2, 'first'),\n"
        "    lambda: torch.ops.alexsim.local_response_norm(x, 5, 2.0, 0.1, 0.75),\n"
        "    lambda: torch.ops.alexsim.linear(w[0, 0], w[0, 0], None, False, 'fp32'),\n"
        "):\n"
        "    try:\n        run()\n"
        "    except ValueError as error:\n        print(error)\n"
    )
    ran = run("-c", script)
    lines = ran.stdout.splitlines()
    assert len(lines) == 4, ran.stderr
    assert set(lines) == {lines[0]}
    assert lines[0].startswith("Triton's kernels run on CUDA cards, and the tensors lie on the CPU")


def test_without_triton_it_is_one_line() -> None:
    """As if it were not installed: what is None in ``sys.modules`` is not found."""
    none = "import sys, runpy; sys.modules['triton'] = None; sys.argv = ['x']; "
    bench = "runpy.run_module('alexsim_kernels.bench.layers', run_name='__main__')"
    ran = run("-c", f"{none} {bench}")
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr == (
        "alexsim_kernels: Triton is not installed: pip install triton (it is for Linux)\n"
    )
    for module in ("ops", "modules"):
        ran = run("-c", f"{none} import alexsim_kernels.{module}")
        assert ran.returncode == 1
        assert ran.stderr.splitlines()[-1].startswith(
            "ImportError: alexsim_kernels.ops needs Triton, which is not installed: pip install"
        )
    # The CPU's kernels and their bench do without.
    ran = run("-c", f"{none} import alexsim_kernels.bench.cpu, alexsim_kernels.cpu.convolution")
    assert ran.returncode == 0, ran.stderr


def test_what_the_readme_says_of_them_is_what_they_say() -> None:
    source = "".join(
        path.read_text("utf-8") for path in sorted(RECORD.parent.rglob("*.py")) if path.is_file()
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    table = README.split("| what is missing |")[1].split("\n\n")[0]
    told = re.findall(r"`(?:\w+: )?([^`]{20,}?): \.\.\.`", table)
    assert len(told) == 3
    for text in told:
        assert text.removeprefix("alexsim_kernels: ") in joined


def test_every_case_of_the_benches_is_right(cpu_kernels: None) -> None:
    """Of one image each; what they compare is then timed on machines that are not here."""
    torch.manual_seed(0)
    small = {name: ALEXNET[name] for name in ("conv1", "conv5")}
    small["own"] = Convolution(channels=6, extent=(5, 7), filters=9, taps=(2, 3), groups=3)
    layers = [make(1) for make in (
        cpu_layer_cases.norms, cpu_layer_cases.relus, cpu_layer_cases.pools
    )]  # fmt: skip
    for case in sum(layers, cpu_cases.convolutions(1, small)):
        assert case.check() < 1e-5, (case.op, case.pass_)
        case.ours()
        case.other()
    few = dict(list(RESNET50.items())[17:20])
    for case in cpu_cases.convolutions(1, few, biased=False):
        assert case.check() < 1e-5, (case.op, case.pass_)
    for triton_case in layer_cases.pools_and_norms(1, layer_cases.Sizes()) if not CARD else ():
        assert not checked(triton_case).failed, triton_case.op


if __name__ == "__main__":
    path = ROOT / "kernels" / "README.md"
    begin, _, rest = path.read_text("utf-8").partition("<!-- by arch -->\n")
    end = rest.partition("<!-- end -->")[2]
    path.write_text(f"{begin}<!-- by arch -->\n{by_arch()}<!-- end -->{end}", "utf-8")
