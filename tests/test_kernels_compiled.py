"""Every kernel compiles for cards that are not here, without spills, for the units it promises."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from alexsim.cli.app import main
from alexsim.errors import AlexsimError
from alexsim.execute import choices
from alexsim.profile.kernels import compile_kernels
from alexsim_kernels.code import KernelCode
from alexsim_kernels.common import PRECISIONS
from alexsim_kernels.tuning import SHARED_BYTES


@pytest.fixture(scope="module")
def code() -> dict[int, tuple[KernelCode, ...]]:
    """For both architectures, compiled side by side: about two minutes, then Triton's cache."""
    with ThreadPoolExecutor() as pool:
        return dict(
            zip((80, 90), pool.map(lambda a: compile_kernels(a, []), (80, 90)), strict=True)
        )


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
        (["--arch", "75"], "--arch must be one of 80, 90"),
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
