"""The kernels as PyTorch operators and modules: what autograd, compile and export see."""

import copy
from typing import Any

import pytest
import torch
from kernel_cases import DEVICE, distance
from torch import nn

from alexsim_kernels import modules, ops

CONV = (1, 1, 2, True, "fp32")


def cases() -> dict[str, tuple[object, tuple[object, ...]]]:
    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=DEVICE, requires_grad=True)

    return {
        "conv2d": (ops.conv2d, (values(2, 4, 5, 6), values(6, 2, 3, 3), values(6), *CONV)),
        "conv2d, no bias": (
            ops.conv2d,
            (values(1, 3, 9, 9), values(4, 3, 3, 3), None, 2, 0, 1, False, "fp32"),
        ),
        "max_pool2d": (ops.max_pool2d, (values(2, 3, 7, 7), 3, 2, "first")),
        "local_response_norm": (
            ops.local_response_norm,
            (values(2, 7, 3, 4), 5, 2.0, 0.3, 0.75),
        ),
        "norm_max_pool2d": (
            ops.norm_max_pool2d,
            (values(2, 7, 5, 5), 5, 2.0, 0.3, 0.75, 3, 2, "all"),
        ),
        "linear": (ops.linear, (values(3, 5), values(4, 5), values(4), True, "fp32")),
    }


@pytest.mark.parametrize("name", cases())
def test_opcheck_passes(name: str) -> None:
    torch.manual_seed(0)
    op, arguments = cases()[name]
    torch.library.opcheck(op, arguments)


class Small(nn.Module):
    """Every layer that has a drop-in, and one that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=0.3, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 9, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


def test_a_model_with_our_layers_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    theirs = Small().to(DEVICE)
    ours = modules.replace_layers(copy.deepcopy(theirs))
    kinds = {type(module).__module__ for module in ours.modules() if not list(module.children())}
    assert "alexsim_kernels.modules" in kinds
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 3, 16, 16, device=DEVICE)
    labels = torch.tensor([3, 7], device=DEVICE)
    wanted, found = theirs.double()(x.double()), ours(x)
    assert distance(found, wanted) < 1e-5
    for output in (wanted, found):
        nn.functional.cross_entropy(output, labels).backward()
    for name, parameter in theirs.named_parameters():
        assert distance(ours.get_parameter(name).grad, parameter.grad) < 1e-4, name


def test_compile_and_export_see_through() -> None:
    torch.manual_seed(0)
    model = modules.replace_layers(Small().to(DEVICE))
    x = torch.randn(2, 3, 16, 16, device=DEVICE)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), model(x), atol=1e-5)
    compiled(x).sum().backward()
    exported = torch.export.export(model, (x,))
    names = {str(node.target) for node in exported.graph.nodes}
    assert {"alexsim.conv2d.default", "alexsim.local_response_norm.default"} <= names
    assert torch.allclose(exported.module()(x), model(x), atol=1e-5)


def test_a_relu_can_be_fused() -> None:
    torch.manual_seed(0)
    for ours, x in (
        (modules.Conv2d(3, 4, 3, relu=True, device=DEVICE), torch.randn(1, 3, 5, 5)),
        (modules.Linear(6, 4, relu=True, device=DEVICE), torch.randn(3, 6)),
    ):
        x = x.to(DEVICE)
        y = ours(x)
        y.sum().backward()
        parent = type(ours).__mro__[1]
        found = ours.weight.grad.clone()
        ours.weight.grad = None
        wanted = parent.forward(ours, x).relu()
        wanted.sum().backward()
        assert torch.allclose(y, wanted, atol=1e-5)
        assert torch.allclose(found, ours.weight.grad, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"stride": (1, 2)}, {"dilation": 2}, {"padding_mode": "reflect", "padding": 1}]
)
def test_what_the_kernels_do_not_have_is_refused_or_left(options: dict) -> None:
    with pytest.raises(ValueError, match="must be equal both ways"):
        modules.Conv2d(3, 4, 3, **options)
    kept = modules.replace_layers(nn.Sequential(nn.Conv2d(3, 4, 3, **options)))
    assert type(kept[0]) is nn.Conv2d


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_layers_that_do_more_than_theirs_stay() -> None:
    hooked, before = nn.Linear(3, 4), nn.Conv2d(3, 4, 3)
    hooked.register_forward_hook(lambda _, __, y: -y)
    before.register_forward_pre_hook(lambda _, x: (2 * x[0],))
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    for layer in (hooked, before, normed, Doubled(3, 4), nn.LazyConv2d(4, 3), nn.LazyLinear(4)):
        kind = type(layer)
        model = modules.replace_layers(nn.Sequential(nn.Sequential(layer), nn.Linear(4, 2)))
        assert model[0][0] is layer
        assert type(layer) is kind
        assert type(model[1]) is modules.Linear


X, FILTERS, UNITS = torch.ones(1, 4, 6, 6), torch.ones(4, 4, 3, 3), torch.ones(4, 3)
SHORT = torch.ones(8)[::2]
"""Four values with gaps between them."""
MISTAKES: dict[str, tuple[str, tuple[Any, ...], str]] = {
    "bias of a product": (
        "linear",
        (torch.ones(2, 3), UNITS, torch.ones(2), False, "fp32"),
        r"bias must be \[4\]",
    ),
    "bias of filters": (
        "conv2d",
        (X, FILTERS, torch.ones(5), 1, 1, 1, False, "fp32"),
        r"bias must be \[4\]",
    ),
    "bias with gaps": ("conv2d", (X, FILTERS, SHORT, 1, 1, 1, False, "fp32"), "without gaps"),
    "one image": (
        "conv2d",
        (X[0], FILTERS, None, 1, 1, 1, False, "fp32"),
        r"images must be \[N, C, H, W\]",
    ),
    "stride": ("conv2d", (X, FILTERS, None, 0, 1, 1, False, "fp32"), "must be at least 1"),
    "large taps": (
        "conv2d",
        (X, torch.ones(4, 4, 9, 9), None, 1, 1, 1, False, "fp32"),
        "has no place in 8 x 8",
    ),
    "float64": (
        "conv2d",
        (X.double(), FILTERS.double(), None, 1, 1, 1, False, "fp32"),
        "got float64",
    ),
    "norm": ("local_response_norm", (X[0], 5, 2.0, 1e-4, 0.75), r"images must be \[N, C, H, W\]"),
    "ties": ("max_pool2d", (X, 2, 2, "last"), "ties must be"),
    "large window": ("max_pool2d", (X, 9, 2, "all"), "has no place in 6 x 6"),
    "large fused window": (
        "norm_max_pool2d",
        (X, 5, 2.0, 1e-4, 0.75, 5, 0, "all"),
        "must be at least 1",
    ),
    "gradient of filters": (
        "conv2d_backward",
        (X[..., :3], X, FILTERS, None, 1, 1, 1, True, "fp32"),
        r"dy must be \[1, 4, 6, 6\]",
    ),
    "ReLU of filters": (
        "conv2d_backward",
        (X, X, FILTERS, X[:, :2], 1, 1, 1, True, "fp32"),
        "relu_output must be",
    ),
    "gradient of units": (
        "linear_backward",
        (torch.ones(1, 4), torch.ones(2, 3), UNITS, None, "fp32"),
        r"dy must be \[2, 4\]",
    ),
    "ReLU of units": (
        "linear_backward",
        (torch.ones(2, 4), torch.ones(2, 3), UNITS, torch.ones(1, 2), "fp32"),
        "relu_output must be",
    ),
    "gradient of windows": (
        "max_pool2d_backward",
        (X[..., :2, :2], X, X[..., :3, :3], 2, 2, "all"),
        r"dy must be \[1, 4, 3, 3\]",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_nothing_outside_of_a_tensor_is_read(name: str) -> None:
    """A tensor that is too short, lies otherwise or is of no image is refused, in a line."""
    operator, arguments, says = MISTAKES[name]
    with pytest.raises(ValueError, match=says) as caught:
        getattr(torch.ops.alexsim, operator)(*arguments)
    assert "\n" not in str(caught.value)
