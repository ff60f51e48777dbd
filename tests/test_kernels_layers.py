"""Pools, norms, fully connected layers, loss, update and dropout against float64 references."""

import itertools

import pytest
import torch
from kernel_cases import DEVICE, NAN, around, distance, images, poisoned

from alexsim.execute.random import dropout_keep, key_of
from alexsim_kernels import dropout, linear, loss, norm, norm_pool, pool, reference, update
from alexsim_kernels.common import Config

SMALL = Config(16, 16, 16, warps=4, stages=2)


def exact(x: torch.Tensor) -> torch.Tensor:
    return x.detach().cpu().double()


# ------------------------------------------------------------------------------------------- pools
@pytest.mark.parametrize("ties", ["all", "first"])
@pytest.mark.parametrize(
    ("extent", "window", "stride", "size"),
    [
        ((13, 13), 3, 2, (6, 6)),
        ((55, 55), 3, 2, (27, 27)),
        ((6, 9), 2, 2, (3, 4)),  # a column that stands in no window
        ((7, 7), 3, 3, (3, 3)),  # windows that hang over
        ((5, 6), 4, 1, (2, 3)),
        ((9, 5), 2, 3, (3, 2)),  # gaps between windows
        ((9, 8), 3, 4, (3, 2)),  # gaps, and a window that hangs over
        ((2, 2), 3, 2, (1, 1)),
        ((1, 1), 1, 1, (1, 1)),
    ],
)
def test_max_pool(
    extent: tuple[int, int], window: int, stride: int, size: tuple[int, int], ties: str
) -> None:
    torch.manual_seed(0)
    x = images(2, 5, *extent)
    # Whole numbers from a few: windows full of ties, negative maxima among them.
    x = (2 * x).round().clamp(-3, 0 if extent == (13, 13) else 1)
    dy = images(2, 5, *size)
    y, dx = poisoned(dy), poisoned(x)
    pool.forward(x, y, size=window, stride=stride)
    assert torch.equal(
        exact(y), reference.max_pool(exact(x), window=window, stride=stride, size=size)
    )
    pool.backward(x, y, dy, dx, size=window, stride=stride, ties=ties)
    wanted = reference.max_pool_gradient(
        exact(x), exact(dy), window=window, stride=stride, ties=ties
    )
    assert torch.allclose(exact(dx), wanted, atol=1e-5)
    assert around(y).isnan().all()
    assert around(dx).isnan().all()


def test_the_reference_of_ties_is_autograd_where_there_are_none() -> None:
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.max_pool2d(x, 3, 2)
    dy = torch.randn_like(y)
    y.backward(dy)
    for ties in ("all", "first"):
        found = reference.max_pool_gradient(x.detach(), dy, window=3, stride=2, ties=ties)
        assert torch.allclose(found, x.grad)


def test_pools_take_any_strides_and_keep_nan() -> None:
    x = torch.randn(2, 4, 6, 6, device=DEVICE)  # channels first, as fully connected layers read
    x[1, 2, 3, 3] = NAN
    y = torch.empty(2, 4, 3, 3, device=DEVICE)
    pool.forward(x, y, size=2, stride=2)
    wanted = torch.nn.functional.max_pool2d(x, 2)
    assert torch.equal(y.isnan(), wanted.isnan())
    assert torch.equal(y.nan_to_num(), wanted.nan_to_num())
    with pytest.raises(ValueError, match="does not pool to"):
        pool.forward(x, y[:, :3], size=2, stride=2)
    with pytest.raises(ValueError, match="does not pool to"):
        pool.forward(x, torch.empty(2, 4, 3, 4, device=DEVICE), size=1, stride=2)
    with pytest.raises(ValueError, match="ties must be"):
        pool.backward(x, y, y, x, size=2, stride=2, ties="none")


# ------------------------------------------------------------------------------------------- norms
# Large enough for every term to matter: d ranges over decades.
CONSTANTS = {"k": 0.7, "alpha": 0.9, "beta": 0.75}


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.3])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("channels", "size"), [(48, 5), (7, 5), (3, 5), (16, 3), (6, 1), (5, 4)])
def test_norm_across_channels(channels: int, size: int, kept: bool, beta: float) -> None:
    torch.manual_seed(0)
    options = CONSTANTS | {"beta": beta, "size": size}
    x, dy = images(2, channels, 5, 3), images(2, channels, 5, 3)
    wanted = exact(x).requires_grad_()
    y_wanted = reference.norm_across_channels(wanted, **options)
    y_wanted.backward(exact(dy))
    y, d, dx = poisoned(x), poisoned(x), poisoned(x)
    norm.across_channels_forward(x, y, d if kept else None, **options)
    norm.across_channels_backward(x, d if kept else None, dy, dx, **options)
    assert distance(y, y_wanted) < 1e-6
    assert distance(dx, wanted.grad) < 3e-6
    assert around(y).isnan().all()
    assert around(dx).isnan().all()
    if kept:
        assert distance(d, (exact(x) / y_wanted.detach()) ** (1 / beta)) < 1e-5


@pytest.mark.parametrize(("channels", "size"), [(48, 5), (5, 3), (3, 1), (4, 4)])
def test_norm_over_pixels(channels: int, size: int) -> None:
    torch.manual_seed(0)
    options = CONSTANTS | {"size": size}
    x, dy = images(2, channels, 7, 5), images(2, channels, 7, 5)
    wanted = exact(x).requires_grad_()
    y_wanted = reference.norm_over_pixels(wanted, **options)
    y_wanted.backward(exact(dy))
    y, d, dx = poisoned(x), poisoned(x), poisoned(x)
    norm.over_pixels_forward(x, y, d, **options)
    del options["k"]
    norm.over_pixels_backward(x, d, dy, dx, **options)
    assert distance(y, y_wanted) < 1e-6
    assert distance(dx, wanted.grad) < 3e-6
    assert around(y).isnan().all()
    assert around(dx).isnan().all()


def test_the_papers_norm_is_torchs() -> None:
    """Section 3.3: n = 5, k = 2, alpha = 1e-4, beta = 0.75; torch divides alpha by n."""
    x = images(1, 96, 4, 4, scale=30)
    y = images(1, 96, 4, 4)
    norm.across_channels_forward(x, y, None, size=5, k=2.0, alpha=1e-4, beta=0.75)
    wanted = torch.nn.functional.local_response_norm(exact(x), 5, 5e-4, 0.75, 2.0)
    assert distance(y, wanted) < 1e-6


@pytest.mark.parametrize("ties", ["all", "first"])
@pytest.mark.parametrize(
    ("extent", "window", "stride"), [((9, 7), 3, 2), ((6, 9), 2, 2), ((5, 5), 4, 1)]
)
def test_norm_and_pool_in_one(extent: tuple[int, int], window: int, stride: int, ties: str) -> None:
    torch.manual_seed(0)
    options = CONSTANTS | {"size": 5}
    size = tuple((e - window) // stride + 1 for e in extent)
    x, dy = images(2, 7, *extent), images(2, 7, *size)
    x[:, :, 1:4, 1:4] = x[:, :, 1:2, 1:2]  # windows full of ties
    y, dx = poisoned(dy), poisoned(x)
    winners = norm_pool.winners_like(dy, window)
    pooling = {"window": window, "stride": stride}
    norm_pool.forward(x, y, winners, ties=ties, **options, **pooling)
    norm_pool.backward(x, winners, dy, dx, **options, **pooling)
    # The separate kernels round alike, so that they see the same ties.
    normed, wanted_y, dnorm, wanted = (torch.empty_like(t) for t in (x, dy, x, x))
    norm.across_channels_forward(x, normed, None, **options)
    pool.forward(normed, wanted_y, size=window, stride=stride)
    pool.backward(normed, wanted_y, dy, dnorm, size=window, stride=stride, ties=ties)
    norm.across_channels_backward(x, None, dnorm, wanted, **options)
    assert torch.equal(y, wanted_y)
    assert distance(dx, exact(wanted)) < 1e-6
    assert around(y).isnan().all()
    assert around(dx).isnan().all()


# --------------------------------------------------------------------------- fully connected layers
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    ("rows", "inputs", "units", "config"),
    [(2, 300, 130, None), (5, 33, 17, SMALL), (1, 16, 1, SMALL), (17, 40, 50, SMALL)],
)
def test_linear(rows: int, inputs: int, units: int, config: Config | None, relu: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, device=DEVICE) for shape in ((rows, inputs), (units, inputs), (units,))
    )
    dy = torch.randn(rows, units, device=DEVICE)
    y = torch.full((rows, units), NAN, device=DEVICE)
    linear.forward(x, weight, bias, y, relu=relu, config=config)
    wanted = [exact(t).requires_grad_() for t in (x, weight, bias)]
    assert distance(y, reference.linear(*wanted, relu=relu)) < 1e-6
    passed = (exact(y) > 0).double() if relu else 1.0
    reference.linear(*wanted).backward(exact(dy) * passed)
    mask = {"relu_output": y} if relu else {}
    dx, before = torch.full_like(x, NAN), torch.randn_like(x)
    linear.grad_input(dy, weight, dx, config=config, **mask)
    assert distance(dx, wanted[0].grad) < 1e-6
    added = before.clone()
    linear.grad_input(dy, weight, added, accumulate=True, config=config, **mask)
    assert distance(added, wanted[0].grad + exact(before)) < 1e-6
    dweight, dbias = torch.full_like(weight, NAN), torch.full_like(bias, NAN)
    linear.grad_weight(x, dy, dweight, dbias, config=config, **mask)
    assert distance(dweight, wanted[1].grad) < 1e-6
    assert distance(dbias, wanted[2].grad) < 1e-6
    speed = torch.randn_like(weight)
    fused = speed.clone()
    constants = torch.tensor([0.7, 0.3, 0.2], device=DEVICE)
    linear.grad_weight(x, dy, fused, dbias, momentum_of=(weight, constants), config=config, **mask)
    assert (
        distance(fused, 0.7 * exact(speed) - 0.2 * (0.3 * exact(weight) + wanted[1].grad.detach()))
        < 1e-6
    )


def test_linear_names_what_does_not_match() -> None:
    x, weight = torch.randn(2, 5, device=DEVICE), torch.randn(3, 4, device=DEVICE)
    with pytest.raises(ValueError, match="does not lead from"):
        linear.forward(x, weight, None, torch.empty(2, 3, device=DEVICE))


# -------------------------------------------------------------------------------------------- loss
@pytest.mark.parametrize("classes", [1000, 10, 3])
def test_softmax_and_cross_entropy(classes: int) -> None:
    torch.manual_seed(0)
    x = 5 * torch.randn(7, classes, device=DEVICE)
    x[3] += 1000  # no overflow
    x[4] = 1.0  # all alike: ties share the credit
    labels = torch.randint(classes, (7,), device=DEVICE)
    p, dx = torch.full_like(x, NAN), torch.full_like(x, NAN)
    losses, top1, top5 = (torch.full((7,), NAN, device=DEVICE) for _ in range(3))
    loss.softmax(x, p)
    loss.cross_entropy(p, labels, losses, top1, top5)
    loss.backward(p, labels, dx)
    wanted = exact(x).requires_grad_()
    each = torch.nn.functional.cross_entropy(wanted, labels.cpu(), reduction="none")
    each.mean().backward()
    assert distance(p, wanted.softmax(1)) < 1e-6
    assert torch.allclose(exact(losses), each.detach().clamp(max=87.3), atol=1e-5)
    assert distance(dx, wanted.grad) < 1e-6
    for best, found in ((1, top1), (5, top5)):
        wanted_errors = reference.errors(exact(p), labels.cpu(), best).double()
        assert torch.allclose(exact(found), wanted_errors)
    assert top1[4].item() == pytest.approx(1 - 1 / classes)


def test_no_guess_is_right_among_nan() -> None:
    p = torch.tensor([[NAN, NAN, NAN], [0.2, 0.5, 0.3]], device=DEVICE)
    losses, top1, top5 = (torch.empty(2, device=DEVICE) for _ in range(3))
    loss.cross_entropy(p, torch.tensor([1, 1], device=DEVICE), losses, top1, top5)
    assert losses[0].isnan()
    assert losses[1].item() == pytest.approx(0.6931472)
    assert (top1.tolist(), top5.tolist()) == ([1.0, 0.0], [1.0, 0.0])


# ------------------------------------------------------------------------------ update and dropout
@pytest.mark.parametrize("shape", [(37,), (5, 7), (6, 4, 3, 3)])
def test_the_update_rule(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, speed, gradient = (torch.randn(shape, device=DEVICE) for _ in range(3))
    if len(shape) == 4:
        weight, speed, gradient = (
            t.contiguous(memory_format=torch.channels_last) for t in (weight, speed, gradient)
        )
    constants = torch.tensor([0.7, 0.3, 0.2], device=DEVICE)
    wanted_speed = 0.7 * exact(speed) - 0.2 * (0.3 * exact(weight) + exact(gradient))
    wanted = exact(weight) + wanted_speed
    update.sgd(weight, speed, gradient, constants)
    assert distance(speed, wanted_speed) < 1e-6
    assert distance(weight, wanted) < 1e-6
    update.sgd(weight, speed, None, constants)
    assert distance(weight, wanted + wanted_speed) < 1e-6
    with pytest.raises(ValueError, match="lie alike"):
        update.sgd(weight, speed[..., :1], gradient, constants)
    with pytest.raises(ValueError, match="gaps in memory"):
        update.sgd(*(torch.randn(8, device=DEVICE)[::2] for _ in range(3)), constants)


def test_dropout_keeps_what_the_plan_says() -> None:
    """The same bits as on the CPU, for a column that begins in the middle of a block."""
    for first, units, step, rate in ((0, 64, 3, 0.5), (2046, 37, 70_000, 0.3), (5, 3, 1, 0.9)):
        mask = torch.full((5, units), NAN, device=DEVICE)
        dropout.keep(
            mask, torch.tensor([step], device=DEVICE), key_of(7, "dropout", "dropout6"),
            first_unit=first, rate=rate,
        )  # fmt: skip
        wanted = dropout_keep(
            seed=7, layer="dropout6", step=step, images=range(5),
            units=range(first, first + units), rate=rate,
        )  # fmt: skip
        assert torch.equal(mask.cpu(), torch.from_numpy(wanted).float())


def test_every_word_of_a_block_is_used() -> None:
    mask = torch.empty(64, 64, device=DEVICE)
    dropout.keep(mask, torch.tensor([0], device=DEVICE), (1, 2), first_unit=0, rate=0.5)
    columns = mask.reshape(64, 16, 4).permute(2, 0, 1).reshape(4, -1)
    for a, b in itertools.combinations(columns, 2):
        assert 0.4 < (a == b).float().mean() < 0.6
