"""Convolution kernels against float64, values and gradients, on shapes that hit every edge."""

import pytest
import torch
from kernel_cases import DEVICE, distance, images, poisoned
from kernel_convolutions import CASES, run

from alexsim_kernels import convolution, convolution_weight, reference
from alexsim_kernels.common import PRECISIONS


@pytest.mark.parametrize("name", [n for n in CASES if n != "conv1"])
def test_values_and_gradients(name: str) -> None:
    for what, error in run(CASES[name]).items():
        assert error < 3e-6, what


def test_conv1_with_its_three_colours() -> None:
    torch.manual_seed(1)
    case = CASES["conv1"]
    x, weight = images(1, 3, 224, 224), images(48, 3, 11, 11)
    bias = torch.randn(48, device=DEVICE)
    wanted = [t.cpu().double().requires_grad_() for t in (x, weight, bias)]
    options = {"stride": 4, "padding": (0, 0)}
    y_wanted = reference.convolution(*wanted, size=case.size, relu=True, **options)
    y, dy = poisoned(images(1, 48, 55, 55)), images(1, 48, 55, 55)
    convolution.forward(x, weight, bias, y, relu=True, **options)
    reference.convolution(*wanted, size=case.size, **options).backward(
        dy.cpu().double() * (y > 0).cpu()
    )
    dweight, dbias = torch.full_like(weight, float("nan")), torch.full_like(bias, float("nan"))
    convolution_weight.grad_weight(x, dy, dweight, dbias, relu_output=y, **options)
    assert distance(y, y_wanted) < 3e-6
    assert distance(dweight, wanted[1].grad) < 3e-6
    assert distance(dbias, wanted[2].grad) < 3e-6


# The interpreter takes bfloat16 values for whole numbers: bf16 is tested on a GPU.
TESTABLE = [p for p in PRECISIONS if p != "bf16" or DEVICE == "cuda"]


@pytest.mark.parametrize("precision", TESTABLE)
def test_every_precision_is_as_exact_as_it_says(precision: str) -> None:
    # The interpreter computes TF32 exactly: its rounding shows on a GPU only.
    limit = {"fp32": 3e-6, "fp32x3": 3e-6, "tf32": 1e-3, "bf16": 1e-2, "fp16": 1e-3}[precision]
    for what, error in run(CASES["few taps"], precision).items():
        assert error < limit, what


def test_half_precision_tensors() -> None:
    torch.manual_seed(2)
    x, weight = images(2, 16, 6, 6), images(8, 16, 3, 3)
    bias = torch.randn(8, device=DEVICE)
    halves = [t.half() for t in (x, weight)]
    y = poisoned(images(2, 8, 6, 6)).half()
    convolution.forward(*halves, bias, y, stride=1, padding=(1, 1), precision="fp16")
    wanted = reference.convolution(
        *(t.cpu().double() for t in (*halves, bias)), stride=1, padding=(1, 1), size=(6, 6)
    )
    assert distance(y, wanted) < 1e-3


def test_nan_comes_through_relu() -> None:
    x = images(1, 16, 4, 4)
    x[0, 3, 2, 2] = float("nan")
    y = images(1, 8, 4, 4)
    convolution.forward(x, images(8, 16, 1, 1), None, y, stride=1, padding=(0, 0), relu=True)
    assert y[:, :, 2, 2].isnan().all()
    assert y.isnan().sum() == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": lambda: torch.randn(1, 16, 4, 4, device=DEVICE)}, "x must be channels-last"),
        ({"x": lambda: images(1, 15, 4, 4)}, "does not lead from"),
        ({"x": lambda: images(2, 16, 4, 4)}, "2 and 1 images"),
        ({"weight": lambda: torch.randn(8, 16, 3, 3, device=DEVICE)}, "weight must be"),
        ({"precision": lambda: "fp8"}, "precision must be one of"),
    ],
)
def test_mistakes_are_named(change: dict, message: str) -> None:
    given = {"x": images(1, 16, 4, 4), "weight": images(8, 16, 3, 3), "precision": "fp32"}
    given |= {name: make() for name, make in change.items()}
    with pytest.raises(ValueError, match=message):
        convolution.forward(
            given["x"], given["weight"], None, images(1, 8, 4, 4), stride=1, padding=(1, 1),
            precision=given["precision"],
        )  # fmt: skip
