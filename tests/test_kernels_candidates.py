"""Ways to run a convolution: each right on every edge, none that spills, found by elimination."""

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import kernel_convolutions as convolutions
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import NAN
from kernel_convolutions import CASES, SMALL, Case

from alexsim_kernels import candidates as candidates_module
from alexsim_kernels import (
    convolution_descriptors,
    convolution_pointers,
    convolution_weight,
    tuning,
)
from alexsim_kernels.bench import tiles
from alexsim_kernels.bench.convolution_cases import Passes
from alexsim_kernels.candidates import (
    candidates,
    kind_of,
    launch_of,
    offered,
    recorded_code,
    tile_of,
)
from alexsim_kernels.code import KernelCode
from alexsim_kernels.common import Config
from alexsim_kernels.machine_code import parsed
from alexsim_kernels.model import Launch, Sheet, predict, resident
from alexsim_kernels.recorded import CANDIDATES, code_of, rows
from alexsim_kernels.shapes import ALEXNET, CONV1_PADDED, square
from alexsim_kernels.tuning import SHARED_BYTES, Card, Key

KINDS = {
    "persistent": {"persistent": 1},
    "persistent, parts": {"persistent": 2, "splits": 3},
    "wide loads": {"loads": "rows"},
}
OF_KINDS = [
    ("small", "persistent"), ("small", "persistent, parts"), ("groups", "persistent, parts"),
    ("uneven border", "persistent, parts"), ("colours", "wide loads"),
    ("colours", "persistent, parts"),
]  # fmt: skip
# Strides and addresses that a copy engine reaches: channels of 16 bytes, and stride 1.
ALIGNED = {
    "rows hang over": Case(3, 20, (9, 7), 24, 3, 1, (1, 1), (9, 7), relu=True),
    "uneven": Case(2, 8, (5, 6), 12, 4, 1, (1, 2), (6, 4)),
    "one by one": Case(9, 36, (4, 5), 20, 1, 1, (0, 0), (4, 5), relu=True),
    "deep border": Case(2, 8, (3, 3), 8, 3, 1, (2, 2), (5, 5)),
}
DESCRIPTORS = {
    "plain": {},
    "persistent": {"persistent": 1},
    "specialised, parts": {"specialised": True, "splits": 2},
}
BY_DESCRIPTORS = [
    *((name, "plain") for name in ALIGNED),
    ("rows hang over", "persistent"), ("uneven", "specialised, parts"),
]  # fmt: skip
RECORDED = (80, 86, 89, 90, 100, 120)


@pytest.mark.parametrize(("name", "kind"), OF_KINDS)
def test_each_kind_is_right_on_every_edge(name: str, kind: str) -> None:
    case = replace(CASES[name], config=replace(SMALL, **KINDS[kind]), splits=None)
    for what, error in convolutions.run(case).items():
        assert error < 3e-6, what


@pytest.mark.parametrize(("name", "kind"), BY_DESCRIPTORS)
def test_descriptors_fetch_what_pointers_gather(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(like: torch.Tensor) -> torch.Tensor:
        n, c, *extents = like.shape
        block = torch.full((n, *extents, c + 8), NAN, device=like.device)
        return block[..., 4 : 4 + c].permute(0, 3, 1, 2)

    def around(part: torch.Tensor) -> torch.Tensor:
        n, c, *extents = part.shape
        whole = torch.as_strided(
            part, (n, c + 8, *extents), part.stride(), part.storage_offset() - 4
        )
        return whole[:, [0, 1, 2, 3, -4, -3, -2, -1]]

    fits: list[bool] = []
    fit = convolution_descriptors.fit

    def noted(*tensors: torch.Tensor, **options: Any) -> bool:
        fits.append(fit(*tensors, **options))
        return fits[-1]

    monkeypatch.setattr(convolutions, "poisoned", poisoned)
    monkeypatch.setattr(convolutions, "around", around)
    monkeypatch.setattr(convolution_descriptors, "fit", noted)
    tile = Config(32, 16, 16, 4, 2, loads="descriptors", **DESCRIPTORS[kind])
    for what, error in convolutions.run(replace(ALIGNED[name], config=tile)).items():
        assert error < 3e-6, what
    assert len(fits) >= 4
    assert all(fits), "a pass was not run by descriptors"


def test_what_a_copy_engine_does_not_reach_is_gathered() -> None:
    x, y = torch.zeros(2, 8, 5, 5), torch.zeros(2, 12, 5, 5)
    x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))
    weight = torch.zeros(12, 8, 3, 3)
    fit = convolution_descriptors.fit
    assert fit(x, y, weight=weight, stride=1, groups=1)
    assert not fit(x, y, weight=weight, stride=2, groups=1)
    assert not fit(x, y, weight=weight, stride=1, groups=2)
    assert not fit(x[:, 1:], y, weight=weight, stride=1, groups=1)
    assert not fit(x, y, weight=torch.zeros(12, 6, 3, 3), stride=1, groups=1)
    assert not fit(x.contiguous(), y, weight=weight, stride=1, groups=1)


def test_a_pixel_beside_a_window_does_not_reach_it() -> None:
    """Wide loads of few channels read the next pixel's first values: NaN there is nobody's."""
    x = torch.ones(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    x[0, :, :, 5:] = NAN
    weight = torch.ones(4, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    y = torch.empty(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    convolutions.convolution.forward(
        x, weight, None, y, stride=1, padding=(0, 0), config=replace(SMALL, loads="rows")
    )
    assert y[..., :3].isfinite().all()
    assert y[..., 3:].isnan().all()


def test_padded_colours_give_what_colours_give() -> None:
    torch.manual_seed(0)
    passes = Passes(shape=square(3, 19, 8, 7, 4, 0, 4), precision="fp32", batch=2)
    wide = Passes(
        shape=replace(square(4, 19, 8, 7, 4, 0, 4), first=True), precision="fp32", batch=2
    )
    wide.x[:, :3], wide.x[:, 3] = passes.x, 0
    wide.weight[:, :3] = passes.weight
    wide.bias.copy_(passes.bias)
    assert wide.names == passes.names == ("forward", "grad_weight")
    passes.run("forward")
    wide.run("forward")
    torch.testing.assert_close(wide.results[0], passes.results[0])
    assert CONV1_PADDED.channels == 4
    assert CONV1_PADDED.out == ALEXNET["conv1"].out


# ---------------------------------------------------------------------------------- on record
def test_the_record_is_what_the_compiler_makes(tmp_path: Path) -> None:
    """Some of the candidates, compiled anew."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "alexsim_kernels.candidates_record", "--arch", "90"]
    ran = subprocess.run(
        [*command, "--check", "4"], env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr


def _products(arch: int) -> dict[str, list[tuple[Config, KernelCode]]]:
    products: dict[str, list[tuple[Config, KernelCode]]] = {}
    for row in rows(CANDIDATES):
        if row["arch"] == str(arch) and row["triton"] == "3.7.1":
            config = Config(**json.loads(row["tile"]))
            code = code_of(row)
            products.setdefault(f"{code.op} {code.precision}", []).append((config, code))
    return products


@pytest.mark.parametrize("arch", RECORDED)
def test_what_is_offered_does_not_spill_and_fits(arch: int) -> None:
    products = _products(arch)
    assert len(products) == 4 * (5 * 3 - 1 + 2)
    for name, made in products.items():
        good = [(config, code) for config, code in made if code.registers and not code.spills]
        assert good, name
        for _, code in good:
            assert code.shared_bytes <= SHARED_BYTES[arch], name
            assert 16 <= code.registers <= 255, name
            assert code.turn_products > 0, name


@pytest.mark.parametrize("arch", RECORDED)
def test_every_kind_is_offered_where_it_is_possible(arch: int) -> None:
    """Pointers always; of every pass of every layer the other kinds in some precision, on cards
    that Triton's spills were looked after for; descriptors in each, on cards that have them."""
    kinds: dict[str, set[str]] = {}
    for name, made in _products(arch).items():
        op, precision = name.rsplit(" ", 1)
        good = {kind_of(config) for config, code in made if code.registers and not code.spills}
        kinds.setdefault(op, set()).update(good)
        assert any(kind.startswith("pointers") for kind in good), name
        if arch >= 90 and "conv1" not in op and (precision != "fp32"):
            assert "descriptors" in good, name
    for op, offered_kinds in kinds.items():
        wanted = {"pointers"}
        if "grad_weight" in op:
            wanted |= {"pointers, in parts"}
        elif "conv1" not in op:
            wanted |= {"pointers, persistent"}
        if "conv1" in op:
            wanted |= {"rows"}
        elif arch >= 90:
            wanted |= {"descriptors"}
            if "grad_weight" not in op:
                wanted |= {"descriptors, persistent"}
                wanted |= {"descriptors, specialised"} if arch == 90 else set()
        assert wanted <= offered_kinds, op


def test_what_is_on_record_as_spilling_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Key("forward", 93_312, 128, 1200, 48, False, "bf16")
    card = Card("x", 90)
    made = candidates(key, 90, card.multiprocessors, stride=1, groups=1)
    assert len(made) == len(set(made)) >= 6
    bad = made[1]
    code = replace(_code(), spills=3)
    monkeypatch.setattr(
        candidates_module, "_known",
        lambda _: {(key.name(), candidates_module.text_of(bad)): code},
    )  # fmt: skip
    assert offered(key, card, stride=1, groups=1) == [c for c in made if c != bad]
    assert recorded_code(key, bad, 90) == code
    # One that is not on record is offered: whoever runs it sees whether it does.
    assert recorded_code(key, made[0], 90) is None
    # A copy engine knows no strides and no groups.
    for options in ({"stride": 2, "groups": 1}, {"stride": 1, "groups": 2}):
        others = candidates(key, 90, 132, **options)
        assert {config.loads for config in others} == {"pointers"}


# --------------------------------------------------------------------------------- the model
class _Grid:
    """In place of a kernel: keeps how many programs a launch has."""

    def __init__(self) -> None:
        self.programs: list[int] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.programs.append(math.prod(grid))
        return lambda *_, **__: None


@pytest.mark.parametrize(
    ("layer", "precision"), [("conv1", "fp32"), ("conv2", "bf16"), ("conv3", "tf32")]
)
def test_the_model_counts_the_programs_that_are_launched(
    layer: str, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every candidate of every pass, at a size whose last tiles are ragged."""
    grid, card = _Grid(), Card("x", 90)
    for module, names in (
        (convolution_pointers, ("forward", "grad_input")),
        (convolution_descriptors, ("_forward", "_grad_input", "_grad_weight")),
        (convolution_weight, ("_grad_weight",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, grid)
    for name in ("sum_splits", "interpreted"):
        monkeypatch.setattr(convolution_weight, name, lambda *_: False)
    monkeypatch.setattr(convolutions.convolution, "finish", lambda *_, **__: None)
    monkeypatch.setattr(tuning, "interpreted", lambda: False)
    monkeypatch.setattr(tuning, "card_of", lambda _: card)
    shape = ALEXNET[layer]
    passes = Passes(shape=shape, precision=precision, batch=5, place="meta")
    for pass_ in passes.names:
        key = tiles.key_of(passes, pass_)
        images = 5, *(shape.extent if pass_ == "grad_input" else shape.out)
        for config in candidates(key, 90, 132, stride=shape.stride, groups=1):
            if config.persistent:
                continue  # as many as the card holds
            grid.programs.clear()
            passes.run(pass_, config)
            launch = launch_of(key, config, moved_bytes=0, images=images, taps=shape.taps)
            assert grid.programs == [launch.programs], (pass_, config)
            covered = launch.programs * launch.turns * launch.flop
            assert covered >= 2 * shape.multiply_adds(5), (pass_, config)


SHEET = Sheet(
    name="x", multiprocessors=132, clock_hz=1.7e9, bytes_per_s=4e12,
    flop_per_s={"bf16": 8e14, "fp32": 5e13}, shared_bytes=228 << 10, registers=65_536,
    threads=2048,
)  # fmt: skip


def _code(**changes: Any) -> KernelCode:
    usual = {
        "op": "x", "kernel": "x", "precision": "bf16", "arch": 90, "warps": 4, "stages": 3,
        "block": "", "registers": 100, "shared_bytes": 50_000, "spills": 0, "products": "HGMMA",
        "instructions": 1000, "turn_instructions": 200, "turn_products": 8,
    }  # fmt: skip
    return KernelCode(**(usual | changes))


@given(
    programs=st.integers(1, 5000),
    turns=st.integers(0, 300),
    moved=st.integers(0, 10**9),
    registers=st.integers(16, 255),
    shared=st.integers(0, 200_000),
    warps=st.sampled_from([1, 4, 8]),
)
def test_more_work_never_takes_less_time(
    programs: int, turns: int, moved: int, registers: int, shared: int, warps: int
) -> None:
    code = _code(registers=registers, shared_bytes=shared, warps=warps)
    launch = Launch(
        programs=programs, turns=turns, flop=2 * 128 * 128 * 64, fetched_bytes=32_768,
        moved_bytes=moved,
    )  # fmt: skip
    usual = predict(code, launch, SHEET)
    assert usual.seconds >= moved / SHEET.bytes_per_s
    assert usual.bound in ("instructions", "products", "cache", "latency", "memory")
    for more in (
        replace(launch, turns=turns + 1), replace(launch, moved_bytes=2 * moved),
        replace(launch, programs=programs + SHEET.multiprocessors * resident(code, SHEET)),
    ):  # fmt: skip
        assert predict(code, more, SHEET).seconds >= usual.seconds
    for slower in (
        replace(SHEET, clock_hz=SHEET.clock_hz / 2), replace(SHEET, bytes_per_s=1e12),
        replace(SHEET, flop_per_s={"bf16": 1e14}),
    ):  # fmt: skip
        assert predict(code, launch, slower).seconds >= usual.seconds
    longer = replace(code, instructions=2000, turn_instructions=400)
    assert predict(longer, launch, SHEET).seconds >= usual.seconds


def test_the_bound_is_what_takes_longest() -> None:
    launch = Launch(
        programs=1320, turns=100, flop=2 * 128 * 128 * 64, fetched_bytes=1000, moved_bytes=1000
    )
    assert predict(_code(turn_instructions=1), launch, SHEET).bound == "products"
    assert predict(_code(turn_instructions=9000), launch, SHEET).bound == "instructions"
    assert predict(_code(), replace(launch, fetched_bytes=10**6), SHEET).bound == "cache"
    assert predict(_code(), replace(launch, moved_bytes=10**12), SHEET).bound == "memory"
    idle = replace(launch, programs=1, flop=1)
    assert predict(_code(turn_instructions=1), idle, SHEET).bound == "latency"
    # The hardware's limits: registers, shared memory, threads.
    assert resident(_code(registers=255), SHEET) == 2
    assert resident(_code(registers=16, shared_bytes=100_000), SHEET) == 2
    assert resident(_code(registers=16, shared_bytes=0, warps=32), SHEET) == 2


def test_the_loop_that_multiplies_is_read_from_machine_code() -> None:
    text = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;     /* 0x00 */
                                                              /* 0x01 */
        /*0010*/                   HMMA.16816.F32 R4, R8 ;    /* 0x02 */
        /*0020*/              @!P0 BRA 0x20 ;                 /* 0x03 */
        /*0030*/                   LDSM.16.M88.4 R8, [R2] ;   /* 0x04 */
        /*0040*/                   HMMA.16816.F32 R4, R8 ;    /* 0x05 */
        /*0050*/              @UP1 HMMA.16816.F32 R4, R8 ;    /* 0x06 */
        /*0060*/                   STL [R1], R4 ;             /* 0x07 */
        /*0070*/               @P0 BRA `(.L_x_1) ;            /* 0x08 */
        /*0080*/               @P0 BRA 0x30 ;                 /* 0x09 */
        /*0090*/               @P1 BRA 0x0 ;                  /* 0x0a */
        /*00a0*/                   EXIT ;                     /* 0x0b */
    """
    code = parsed(text, 40)
    assert (code.registers, code.spills, code.products) == (40, 1, "HMMA")
    # The loop around it has a product more, outside the one that multiplies.
    assert (code.instructions, code.turn_products, code.turn_instructions) == (11, 2, 6)
    alone = parsed(text.replace("BRA 0x30", "BRA 0x0"), 40)
    assert (alone.turn_products, alone.turn_instructions) == (3, 9)
    nothing = parsed("/*0000*/ EXIT ;", 8)
    assert (nothing.products, nothing.turn_instructions) == ("", 0)


# ------------------------------------------------------------------------------ elimination
class _Clock:
    """Times of candidates that are made up, and how often each was asked for."""

    def __init__(self, ms: dict[Config, float]) -> None:
        self.ms, self.asked, self.running = ms, [], Config(0, 0, 0)

    def milliseconds(self, run: Any, rep_ms: float) -> tuple[float, float, float]:
        run()
        self.asked.append((self.running, rep_ms))
        return (self.ms[self.running],) * 3


class _Passes:
    precision = "fp32"

    def __init__(self, clock: _Clock, errors: dict[Config, float]) -> None:
        self._clock, self._errors = clock, errors

    def run(self, _pass: str, config: Config) -> None:
        self._clock.running = config

    def error(self, _pass: str, config: Config) -> float:
        if self._errors.get(config) == math.inf:
            raise RuntimeError("out of resource: shared memory")
        return self._errors.get(config, 1e-7)


@given(
    times=st.lists(st.floats(0.01, 10), min_size=1, max_size=12),
    wrong=st.sets(st.integers(0, 11), max_size=4),
    broken=st.sets(st.integers(0, 11), max_size=3),
)
def test_elimination_finds_the_fastest_of_those_that_are_right(
    times: list[float], wrong: set[int], broken: set[int]
) -> None:
    configs = [Config(16 * (index + 1), 16, 16) for index in range(len(times))]
    clock = _Clock(dict(zip(configs, times, strict=True)))
    bad = {configs[i]: math.inf for i in broken if i < len(configs)}
    bad |= {configs[i]: math.nan for i in wrong if i < len(configs)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "milliseconds", clock.milliseconds)
        tried = tiles.eliminate(_Passes(clock, bad), "forward", configs)  # type: ignore[arg-type]
    assert {each.config for each in tried} == set(configs)
    good = [config for config in configs if config not in bad]
    assert {each.config for each in tried if each.ms is not None} == set(good)
    assert all(each.why for each in tried if each.ms is None)
    if good:
        assert tried[0].ms == min(clock.ms[config] for config in good)
        # Whoever is slow is not timed long.
        longest = [config for config, rep_ms in clock.asked if rep_ms == 40.0]
        assert len(longest) <= max(1, math.ceil(len(good) / 4))


def test_where_time_ends_the_first_is_timed_all_the_same() -> None:
    configs = [Config(16 * (index + 1), 16, 16) for index in range(4)]
    clock = _Clock(dict.fromkeys(configs, 1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "milliseconds", clock.milliseconds)
        tried = tiles.eliminate(
            _Passes(clock, {}),
            "forward",
            configs,
            over=lambda: True,  # type: ignore[arg-type]
        )
    assert (tried[0].config, tried[0].ms) == (configs[0], 1.0)
    assert [each.why for each in tried[1:]] == ["left out: no time"] * 3


def test_a_tile_is_kept_as_the_table_wants_it() -> None:
    config = Config(64, 32, 16, 8, 2, loads="descriptors", specialised=True)
    kept = tile_of(config)
    assert Config(**kept) == config  # type: ignore[arg-type]
    assert kept.keys() < asdict(config).keys()
    assert tile_of(Config(64, 32, 16)) == {"block_m": 64, "block_n": 32, "block_k": 16}
