"""Norms, pools and uploads of the CPU kernels."""

import pytest
import torch
from cpu_cases import (
    LIMITS,
    NAN,
    TYPES,
    beside,
    distance,
    pitched,
    poisoned_scratch,
    same_for_threads,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from alexsim_kernels import reference
from alexsim_kernels.cpu import linear, norm, pool, relu, sizes
from alexsim_kernels.cpu.upload import upload
from alexsim_kernels.cpu.windows import Windows, adaptive, sliding

pytestmark = pytest.mark.usefixtures("cpu_kernels")
Tensor = torch.Tensor
INF = float("inf")
REFERENCES = {"across": reference.norm_across_channels, "over": reference.norm_over_pixels}


# ------------------------------------------------------------------------------------------- norms
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("window", ["across", "over"])
@pytest.mark.parametrize(
    ("shape", "size", "k", "alpha", "beta"),
    [
        ((2, 48, 9, 7), 5, 2.0, 0.1, 0.75),
        ((2, 21, 9, 17), 4, 1.0, 0.3, 0.75),  # an even window has an end of its own
        ((1, 3, 5, 4), 3, 1.0, 0.5, 0.6),
        ((3, 130, 3, 3), 7, 2.0, 0.2, 0.75),  # windows larger than the image
        ((1, 1, 1, 1), 1, 1.0, 1.0, 1.0),
    ],
)
def test_norms(
    shape: tuple[int, ...], size: int, k: float, alpha: float, beta: float,
    window: norm.Window, dtype: torch.dtype,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    x, dy = pitched(*shape, dtype=dtype), pitched(*shape, dtype=dtype)
    constants = norm.Constants(size, k, alpha, beta)
    item = x.element_size()

    def run(threads: int) -> list[Tensor]:
        y, d, dx = (pitched(*shape, dtype=dtype, value=NAN) for _ in range(3))
        need = sizes.norm(window, shape[1], shape[3], size, threads=threads).bytes(item)
        scratch = poisoned_scratch(need)
        norm.forward(x, y, d, constants, window=window, scratch=scratch)
        norm.backward(x, d, dy, dx, constants, window=window, scratch=scratch)
        assert (scratch[-192:] == 255).all()
        assert all(beside(t).isnan().all() for t in (y, d, dx))
        return [y, dx]

    exact = x.double().requires_grad_()
    wanted = REFERENCES[window](exact, size=size, k=k, alpha=alpha, beta=beta)
    wanted.backward(dy.double())
    y, dx = same_for_threads(run) if size == 5 else run(1)
    assert distance(y, wanted.detach()) < LIMITS[dtype] / 10
    assert distance(dx, exact.grad) < LIMITS[dtype] / 10


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("size", [4, 5])
def test_norms_over_rows_that_touch_have_the_bits_of_others(size: int, dtype: torch.dtype) -> None:
    """Pixels without gaps between are walked as one."""
    apart = [pitched(2, 48, 9, 7, dtype=dtype) for _ in range(5)]
    dense = [t.contiguous(memory_format=torch.channels_last) for t in apart]
    for x, dy, y, d, dx in (apart, dense):
        constants = norm.Constants(size, 1.0, 0.3, 0.75)
        norm.forward(x, y, d, constants, window="over")
        norm.backward(x, d, dy, dx, constants, window="over")
    assert all(torch.equal(a, b) for a, b in zip(apart, dense, strict=True))


def test_large_results_pass_the_caches() -> None:
    """Streamed stores begin at 16 MiB."""
    x = torch.randn(20, 56, 65, 48).permute(0, 3, 1, 2)
    x = torch.cat([x, x]).contiguous(memory_format=torch.channels_last)
    y, d, dx = (torch.full_like(x, NAN) for _ in range(3))
    constants = norm.Constants(5, 2.0, 1e-4, 0.75)
    norm.forward(x, y, d, constants, window="across")
    norm.backward(x, d, y, dx, constants, window="across")
    wanted = reference.norm_across_channels(x[-1:].double(), size=5, k=2.0, alpha=1e-4, beta=0.75)
    assert distance(y[-1:], wanted) < 1e-6
    assert torch.equal(dx[:20], dx[20:])
    windows = sliding((56, 65), (27, 32), size=(3, 3), stride=(2, 2))
    top = F.max_pool2d(x, 3, 2)
    pool.max_backward(x, top, top, dx, windows, ties="first")
    assert float(dx.sum(dtype=torch.float64)) == pytest.approx(
        float(top.sum(dtype=torch.float64)), rel=1e-6
    )


@pytest.mark.parametrize("window", ["across", "over"])
@pytest.mark.parametrize("value", [NAN, INF, 1e30])
def test_norms_of_what_is_no_number(value: float, window: norm.Window) -> None:
    x = torch.randn(1, 5, 6, 20).permute(0, 3, 1, 2)
    x[0, 7, 2, 2] = value
    y, d = torch.zeros_like(x), torch.zeros_like(x)
    norm.forward(x, y, d, norm.Constants(5, 1.0, 0.1, 0.75), window=window)
    wanted = REFERENCES[window](x, size=5, k=1.0, alpha=0.1, beta=0.75)
    assert torch.allclose(y, wanted, equal_nan=True, atol=1e-6)


# ------------------------------------------------------------------------------------------- ReLU
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "gaps", "in_place"),
    [
        ((2, 21, 5, 7), True, False),
        ((2, 21, 5, 7), False, False),
        ((3, 48, 9, 7), False, True),
        ((5, 96, 99, 99), False, False),  # streamed in both types, and over a block's end
    ],
)
def test_relu_has_pytorch_s_bits(
    shape: tuple[int, ...], gaps: bool, in_place: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, dy, y, dx = (pitched(*shape, dtype=dtype) for _ in range(4))
    # Gradients meet NaN and zeros of both signs as well, and are NaN.
    for index, value in enumerate((NAN, INF, -INF, 0.0, -0.0)):
        x[:, index, ::2], dy[:, index + 1, 1::2] = value, value
    if not gaps:
        x, dy, y, dx = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy, y, dx))
    wanted = torch.clamp_min(x, 0)
    wanted_dx = torch.ops.aten.threshold_backward(dy, wanted, 0)
    assert torch.allclose(wanted.double(), x.double().relu(), equal_nan=True)

    def run(threads: int) -> list[Tensor]:
        relu.forward(x, y)
        relu.backward(y, dy, dx)
        assert not gaps or all(beside(t).isnan().all() for t in (y, dx))
        return [y.clone(), dx.clone()]

    results = same_for_threads(run)
    if in_place:
        relu.forward(x, x)
        relu.backward(x, dy, dy)
        results += [x, dy]
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    for computed, exact in zip(results, 2 * [wanted, wanted_dx], strict=False):
        assert torch.equal(computed.contiguous().view(bits), exact.contiguous().view(bits))


# ------------------------------------------------------------------------------------------- pools
@pytest.mark.parametrize("ties", ["all", "first"])
@pytest.mark.parametrize(
    ("extent", "size", "stride", "out"),
    [
        ((13, 13), 3, 2, (6, 6)),
        ((6, 9), 2, 2, (3, 4)),  # a column that stands in no window
        ((7, 7), 3, 3, (3, 3)),  # windows that hang over
        ((5, 6), 4, 1, (2, 3)),
        ((9, 5), 2, 3, (3, 2)),  # gaps between windows
        ((1, 1), 1, 1, (1, 1)),
    ],
)
def test_max_pool(
    extent: tuple[int, int], size: int, stride: int, out: tuple[int, int], ties: pool.Ties
) -> None:
    torch.manual_seed(0)
    x = pitched(3, 21, *extent, dtype=torch.float32)
    # Whole numbers from a few: windows full of ties, negative maxima among them.
    x.mul_(2).round_().clamp_(-3, 0 if extent == (13, 13) else 1)
    dy = pitched(3, 21, *out, dtype=torch.float32)
    windows = sliding(extent, out, size=(size, size), stride=(stride, stride))

    def run(threads: int) -> list[Tensor]:
        y = pitched(*dy.shape, dtype=x.dtype, value=NAN)
        dx = pitched(*x.shape, dtype=x.dtype, value=NAN)
        scratch = poisoned_scratch(sizes.pool(windows, 21, extent[1], threads=threads).bytes(4))
        pool.max_forward(x, y, windows)
        pool.max_backward(x, y, dy, dx, windows, ties=ties, scratch=scratch)
        assert beside(y).isnan().all()
        assert beside(dx).isnan().all()
        once = dx.clone()
        pool.max_backward(x, y, dy, dx, windows, ties=ties, add=True)
        assert torch.equal(dx, 2 * once)
        return [y, once]

    y, dx = same_for_threads(run) if extent == (13, 13) else run(1)
    assert torch.equal(y, reference.max_pool(x, window=size, stride=stride, size=out))
    wanted = reference.max_pool_gradient(
        x.double(), dy.double(), window=size, stride=stride, ties=ties
    )
    assert torch.allclose(dx.double(), wanted, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.booleans(),
    st.booleans(),
)
def test_pools_are_torch_s(
    extent: tuple[int, int], size: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int], ceil: bool, counted: bool,
) -> None:  # fmt: skip
    padding = (min(padding[0], size[0] // 2), min(padding[1], size[1] // 2))
    if any(e + 2 * p < s for e, p, s in zip(extent, padding, size, strict=True)):
        return
    torch.manual_seed(0)
    x = torch.randn(2, 17, *extent, dtype=torch.float64, requires_grad=True)
    given_x = x.detach().contiguous(memory_format=torch.channels_last)
    for kind in ("max", "average"):
        y = (
            F.max_pool2d(x, size, stride, padding, ceil_mode=ceil)
            if kind == "max"
            else F.avg_pool2d(x, size, stride, padding, ceil, counted)
        )
        dy = torch.randn_like(y).contiguous(memory_format=torch.channels_last)
        (wanted,) = torch.autograd.grad(y, x, dy)
        out = (y.shape[2], y.shape[3])
        windows = sliding(
            extent, out, size=size, stride=stride, padding=padding, count_padding=counted
        )
        ours, dx = torch.empty_like(dy), torch.empty_like(given_x)
        if kind == "max":
            pool.max_forward(given_x, ours, windows)
            pool.max_backward(given_x, ours, dy, dx, windows, ties="first")
        else:
            pool.average_forward(given_x, ours, windows)
            pool.average_backward(dy, dx, windows)
        assert torch.allclose(ours, y.detach(), atol=1e-12)
        assert torch.allclose(dx, wanted, atol=1e-12)


@pytest.mark.parametrize("out", [(1, 1), (3, 2), (6, 6)])
def test_adaptive_average_pool(out: tuple[int, int]) -> None:
    x = torch.randn(2, 19, 5, 9, dtype=torch.float64, requires_grad=True)
    y = F.adaptive_avg_pool2d(x, out)
    dy = torch.randn_like(y).contiguous(memory_format=torch.channels_last)
    y.backward(dy)
    windows = adaptive((5, 9), out)
    given_x = x.detach().contiguous(memory_format=torch.channels_last)
    ours, dx = torch.empty_like(dy), torch.empty_like(given_x)
    pool.average_forward(given_x, ours, windows)
    pool.average_backward(dy, dx, windows)
    assert torch.allclose(ours, y.detach(), atol=1e-12)
    assert torch.allclose(dx, x.grad, atol=1e-12)


def test_a_window_s_maximum_is_nan_if_one_value_is() -> None:
    x = torch.randn(2, 9, 9, 20).permute(0, 3, 1, 2)
    x[0, 3, 4, 4], x[1, 5, 2, 3], x[1, 6, 0, 0] = NAN, INF, -INF
    y = torch.zeros(2, 4, 4, 20).permute(0, 3, 1, 2)
    windows = sliding((9, 9), (4, 4), size=(3, 3), stride=(2, 2))
    pool.max_forward(x, y, windows)
    assert torch.allclose(y, F.max_pool2d(x, 3, 2), equal_nan=True)
    dx = torch.full_like(x, NAN)
    pool.max_backward(x, y, torch.ones_like(y), dx, windows, ties="all")
    assert dx[0, 3, 4, 4] == 4  # it stands in four windows
    assert dx.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pool.max_forward(x, x, adaptive((4, 4), (2, 2))), "does not pool to"),
        (lambda x: adaptive((4, 4), (0, 2)), "a pool has no output"),
        (
            lambda x: sliding((4, 4), (9, 2), size=(2, 2), stride=(2, 2)),
            "sees none of",
        ),
        (
            lambda x: pool.max_forward(x, x, Windows(((0, 5),) * 4, ((0, 4),) * 4)),
            "windows reach to",
        ),
        (
            lambda x: pool.max_backward(x, x, x, x, adaptive((4, 4), (4, 4)), ties="none"),
            "ties must be",
        ),
        (
            lambda x: norm.forward(x, x, x, norm.Constants(5, 1, 1, 1), window="between"),
            "window must be",
        ),
        (
            lambda x: norm.forward(x, x[:, :1], x, norm.Constants(5, 1, 1, 1), window="over"),
            "out must be",
        ),
        (
            lambda x: norm.forward(x, x, x, norm.Constants(0, 1, 1, 1), window="over"),
            "must be positive",
        ),
        (lambda x: relu.forward(x, x[:, :1]), "y must be"),
        (lambda x: relu.forward(x[0], x[0]), "must be .N, C, H, W."),
        (lambda x: relu.backward(x, x, x.contiguous()), "dx must be channels-last"),
        (lambda x: linear.forward(x, x, None, x), "must have 2 axes"),
        (
            lambda x: linear.forward(x[0, 0], x[0, 0].t(), None, x[0, 0]),
            "rows of x must be contiguous",
        ),
        (lambda x: upload(x, x, x[0]), "pixels must be uint8"),
        (lambda x: upload(x.byte(), x, x[0]), "mean must be"),
        (lambda x: upload(x.byte().contiguous(), x, x[0].permute(1, 2, 0)), "pixels must be chan"),
    ],
)  # fmt: skip
def test_what_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 4, 4, 3).permute(0, 3, 1, 2))  # type: ignore[operator]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (2, 1, 4, 33), (4, 3, 2, 48), (40, 3, 224, 224)])
def test_upload_has_the_bits_of_single_operations(
    shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    n, c, h, w = shape
    pixels = torch.randint(0, 256, (n, h, w, c), dtype=torch.uint8).permute(0, 3, 1, 2)
    mean = 255 * torch.rand(h, w, c, dtype=dtype)
    deviation, noise = 1 + torch.rand(c, dtype=dtype), torch.randn(n, c, dtype=dtype)
    factor, mirrored = torch.rand(n, dtype=dtype), torch.arange(n) % 3 == 1

    def run(threads: int) -> list[Tensor]:
        outs = torch.full((4, n, h, w, c), NAN, dtype=dtype).permute(0, 1, 4, 2, 3).unbind()
        upload(pixels, outs[0], mean, deviation, noise, factor, mirrored)
        upload(pixels, outs[1], mean, None, noise, factor, None)
        upload(pixels, outs[2], mean, deviation, mirrored=mirrored)
        upload(pixels, outs[3], mean)
        return list(outs)

    plain, turned = (
        pixels.to(dtype),
        torch.stack(
            [image.flip(2) if flip else image for image, flip in zip(pixels, mirrored, strict=True)]
        ).to(dtype),
    )
    less, per_channel = mean.permute(2, 0, 1), deviation.view(-1, 1, 1)
    moved, scale = noise.view(n, c, 1, 1), factor.view(n, 1, 1, 1)
    wanted = [
        (turned + moved - less) / per_channel * scale,
        (plain + moved - less) * scale,
        (turned - less) / per_channel,
        plain - less,
    ]
    for computed, exact in zip(same_for_threads(run), wanted, strict=True):
        assert torch.equal(computed, exact)
