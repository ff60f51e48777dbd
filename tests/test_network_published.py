"""The networks behind published timings: their sizes, and what they add to the layers."""

import pytest
import torch
from torch.nn import functional as F

from alexsim.editions.load import load_network
from alexsim.errors import NetworkError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.layers import (
    Convolution,
    FullyConnected,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan.planner import plan

# Parameters and multiply-adds of a forward pass, in millions, as the models' authors give them.
SIZES = {
    "caffenet": (60.965, 724),
    "alexnet-caffe": (60.965, 724),
    "alexnet-ungrouped": (62.378, 1135),
    "overfeat-fast": (145.92, 2834),
    "vgg-a": (132.86, 7609),
    "vgg-f": (60.8, 721),
    "vgg-m": (102.9, 1674),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_authors(name: str) -> None:
    parameters, mac = SIZES[name]
    network = load_network(name)
    assert network.parameters / 1e6 == pytest.approx(parameters, rel=0.002)
    ops = [op for op in plan(network, batch_size=1).ops() if op.kind == "forward"]
    assert sum(op.count.mac for op in ops) / 1e6 == pytest.approx(mac, rel=0.02)


def test_mxnet_has_203_megabytes_of_parameters_and_6400_inputs_to_fc6() -> None:
    network = load_network("alexnet-mxnet")
    assert network.parameters * 4 / 1e6 == pytest.approx(203, abs=0.5)
    assert next(p[0] for p in network.parts if p[0].layer.name == "fc6").weight_shape[1] == 6400


def small(*, rounding: str) -> Network:
    return Network(
        name="small",
        input_shape=(3, 20, 20),
        layers=(
            Convolution(name="conv1", filters=8, size=3, rounding="floor", weight_std=0.3),
            ReLU(name="relu1"),
            MaxPool(name="pool1", size=3, stride=2, rounding=rounding),
            Convolution(
                name="conv2", filters=12, size=3, padding=1, groups=2, weight_std=0.3, bias_init=0.1
            ),
            ReLU(name="relu2"),
            FullyConnected(name="fc", units=5, weight_std=0.1),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )


def test_groups_and_left_over_pixels_against_autograd() -> None:
    network = small(rounding="floor")
    executor = Executor(plan(network, batch_size=7, backend="aten"), dtype=torch.float64, seed=3)
    executor.initialise()
    first = {name: value.clone() for name, value in executor.state().items()}
    generator = torch.Generator().manual_seed(1)
    images = torch.randn((7, 20, 20, 3), generator=generator, dtype=torch.float64)
    images, labels = images.permute(0, 3, 1, 2), torch.arange(7) % 5
    rates = Hyperparameters(weight_rate=0.1, bias_rate=0.2, momentum=0.9, weight_decay=0.0)
    executor.step(images, labels, step=0, hyperparameters=rates)

    values = {n: v.clone().requires_grad_() for n, v in first.items() if "momentum" not in n}
    x = F.relu(F.conv2d(images, values["conv1.a.weight"], values["conv1.a.bias"]))
    x = F.max_pool2d(x, 3, 2)  # 18 pixels: the last is left out
    assert x.shape[2] == 8
    x = F.conv2d(x, values["conv2.a.weight"], values["conv2.a.bias"], padding=1, groups=2)
    x = F.linear(F.relu(x).flatten(1), values["fc.a.weight"], values["fc.a.bias"])
    F.cross_entropy(x, labels).backward()
    for name, value in values.items():
        rate = 0.2 if name.endswith("bias") else 0.1
        change = executor.state()[name] - first[name]
        assert value.grad is not None
        assert torch.allclose(change, -rate * value.grad, rtol=1e-9, atol=1e-13), name


def test_windows_that_hang_over_the_edge_are_trained() -> None:
    network = small(rounding="ceil")
    assert network.parts[2][0].output_shape == (8, 9, 9)
    for backend in ("", "aten"):
        assert plan(network, batch_size=2, backend=backend).devices[0].total_bytes > 0
    with pytest.raises(NetworkError, match="do not tile 18 pixels exactly"):
        small(rounding="exact")


def test_groups_must_divide_channels_and_filters() -> None:
    with pytest.raises(NetworkError, match="3 groups do not divide 4 channels and 6 filters"):
        Convolution(name="c", filters=6, size=3, groups=3).parameters((4, 9, 9))
