"""Every kernel compiles for cards that are not here, without spills, for the units it promises."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import alexsim_kernels
from alexsim.cli.app import main
from alexsim.errors import AlexsimError
from alexsim.execute import choices
from alexsim.profile.kernels import compile_kernels
from alexsim_kernels.code import KernelCode
from alexsim_kernels.common import PRECISIONS
from alexsim_kernels.recorded import COMPILED, recorded
from alexsim_kernels.tuning import SHARED_BYTES

PACKAGE = Path(alexsim_kernels.__file__ or "").parent


@pytest.fixture(scope="module")
def code() -> dict[int, tuple[KernelCode, ...]]:
    """For both architectures: on record, or compiled where a source, Triton or a target changed."""
    with ThreadPoolExecutor() as pool:
        return dict(
            zip((80, 90), pool.map(lambda a: compile_kernels(a, []), (80, 90)), strict=True)
        )


def lines(*arguments: str, kernels: Path = PACKAGE) -> list[dict[str, Any]]:
    """What the package in a folder says of its kernels, compiled with an empty cache."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with TemporaryDirectory() as cache:
        environment |= {"TRITON_CACHE_DIR": cache, "PYTHONPATH": str(kernels.parent)}
        command = [sys.executable, "-m", "alexsim_kernels.compiled", *arguments]
        out = subprocess.run(
            command, env=environment, cwd=cache, check=True, capture_output=True, text=True
        )
    return [json.loads(line) for line in out.stdout.splitlines()]


@pytest.mark.parametrize("arch", ["80", "90"])
def test_the_record_is_what_the_compiler_makes(arch: str) -> None:
    """All kernels are on it; some, of every kind of product, are compiled to see."""
    ops = {"softmax", "fc8 forward", "conv5 grad_input"}
    anew = lines("--arch", arch, "--precision", "bf16", "--anew", *ops)
    compiled = [c for c in anew if not c["recorded"]]
    assert {c["op"] for c in compiled} == ops, (
        "changed: python -m alexsim_kernels.compiled --arch N --record, for every N on record"
    )
    codes = {KernelCode(**{f.name: c[f.name] for f in fields(KernelCode)}) for c in compiled}
    assert codes <= set(recorded(COMPILED).values())


def test_a_kernel_that_was_changed_is_compiled(tmp_path: Path) -> None:
    copy = tmp_path / "alexsim_kernels"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = (copy / "update.py").read_text(encoding="utf-8")
    assert source.count("index < count") == 1
    (copy / "update.py").write_text(source.replace("index < count", "index < count + 0"))
    made = lines("--arch", "90", "--precision", "bf16", kernels=copy)
    assert {c["op"] for c in made if not c["recorded"]} == {"update", "update, fused"}


def test_the_precisions_are_those_of_the_kernels() -> None:
    assert tuple(PRECISIONS) == choices.PRECISIONS


@pytest.mark.parametrize("arch", [80, 90])
def test_nothing_spills_and_everything_fits(
    code: dict[int, tuple[KernelCode, ...]], arch: int
) -> None:
    ops = {(one.op, one.precision) for one in code[arch]}
    assert len(ops) >= 5 * (5 * 3 - 1 + 2 * 3) + 15
    for one in code[arch]:
        assert one.spills == 0, one
        assert 16 <= one.registers <= 255, one
        assert one.shared_bytes <= SHARED_BYTES[arch], one


@pytest.mark.parametrize("arch", [80, 90])
def test_products_run_on_the_units_that_are_promised(
    code: dict[int, tuple[KernelCode, ...]], arch: int
) -> None:
    products = [
        one
        for one in code[arch]
        if one.op.startswith(("conv", "fc")) and one.kernel not in ("_sum_splits", "_column_sums")
    ]
    for one in products:
        wanted = {"FFMA"} if one.precision == "fp32" else {"HMMA", "HGMMA"}
        assert one.products in wanted, one
        if arch == 80:
            assert one.products != "HGMMA"
        elif one.op.startswith("conv") and one.precision != "fp32":
            assert one.products == "HGMMA", one


def test_the_table_is_printed(
    code: dict[int, tuple[KernelCode, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "kernels", "--arch", "90", "--precision", "bf16"])
    assert not caught.value.code
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    rows = [line for line in out.splitlines() if "conv2 forward" in line]
    (wanted,) = (c for c in code[90] if (c.op, c.precision) == ("conv2 forward", "bf16"))
    assert len(rows) == 1
    for cell in (wanted.block, str(wanted.registers), "HGMMA"):
        assert cell in rows[0]
    assert "0 of them spill" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "70"], "--arch must be one of 75, 80, 86, 89, 90, 100, 120"),
        (["--precision", "fp8"], "--precision must be one of fp32, fp32x3"),
    ],
)
def test_mistakes_get_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "kernels", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_kernel_that_does_not_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(AlexsimError, match="sm_90: a kernel did not compile"):
        compile_kernels(90, ["fp32"])
