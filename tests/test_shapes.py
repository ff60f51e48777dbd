"""Sizes of windows' outputs are PyTorch's, and every reader of a layer takes the same ones."""

from __future__ import annotations

from importlib import util

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from interchange_cases import drawn, images_for, module_of
from torch.nn import functional as F

from alexsim.errors import NetworkError
from alexsim.execute.executor import Executor
from alexsim.interchange.layout import to_plain
from alexsim.interchange.onnx import largest_difference, onnx_bytes
from alexsim.ledger.tables import without_formula
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    FullyConnected,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan.planner import plan

POOLS = {MaxPool: F.max_pool2d, AveragePool: F.avg_pool2d}
ROUNDINGS = ["floor", "ceil"]
extents = st.integers(1, 24)
sizes, strides, paddings = st.integers(1, 9), st.integers(1, 7), st.integers(0, 5)


@given(st.sampled_from([*POOLS]), extents, sizes, strides, st.sampled_from(ROUNDINGS))
@example(MaxPool, 32, 1, 2, "ceil")
@example(AveragePool, 8, 3, 4, "ceil")
@example(MaxPool, 8, 2, 5, "ceil")
@example(MaxPool, 2, 3, 2, "ceil")  # one window that hangs over, and one that is too large
@example(MaxPool, 2, 4, 2, "ceil")
@settings(max_examples=300, deadline=None)
def test_a_pool_has_pytorch_s_outputs_or_is_refused_where_it_refuses(
    kind: type, extent: int, size: int, stride: int, rounding: str
) -> None:
    layer = kind(name="pool", size=size, stride=stride, rounding=rounding)
    images = torch.empty(1, 2, extent, 24, device="meta")
    try:
        theirs = POOLS[kind](images, size, stride, ceil_mode=rounding == "ceil").shape[1:]
    except RuntimeError:
        with pytest.raises(NetworkError, match=f"'pool': a {size}x{size} window is larger"):
            layer.output_shape((2, extent, 24))
        return
    assert layer.output_shape((2, extent, 24)) == tuple(theirs)
    last = (theirs[1] - 1) * stride
    over, _ = layer.overhangs((2, extent, 24))
    assert last + size - over <= extent
    assert over < size


@given(extents, sizes, strides, paddings, st.sampled_from(ROUNDINGS))
@example(32, 1, 2, 0, "ceil")
@example(5, 2, 3, 2, "ceil")
@settings(max_examples=300, deadline=None)
def test_a_convolution_has_the_windows_that_fit_and_one_more_with_a_pixel_in_it(
    extent: int, size: int, stride: int, padding: int, rounding: str
) -> None:
    layer = Convolution(
        name="conv", filters=3, size=size, stride=stride, padding=padding, rounding=rounding
    )
    images = torch.empty(1, 2, extent, 24, device="meta")
    weight = torch.empty(3, 2, size, size, device="meta")
    try:
        _, fit, _ = F.conv2d(images, weight, None, stride, padding).shape[1:]
    except RuntimeError:
        with pytest.raises(NetworkError, match=f"'conv': a {size}x{size} window is larger"):
            layer.output_shape((2, extent, 24))
        return
    behind = (fit - 1) * stride - padding + size  # the pixel after the last window that fits
    begins = fit * stride - padding
    hangs = rounding == "ceil" and behind < extent + padding and begins < extent
    _, rows, columns = layer.output_shape((2, extent, 24))
    assert rows == fit + hangs
    # Zeros that the module and ONNX put around give the same windows to a plain convolution.
    bottom, right = layer.end_paddings((2, extent, 24))
    pads = (padding, right, padding, bottom)
    assert F.conv2d(F.pad(images, pads), weight, None, stride).shape[2:] == (rows, columns)


@pytest.mark.parametrize("rounding", ["exact", *ROUNDINGS])
def test_a_window_past_its_input_is_one_line(rounding: str) -> None:
    for layer in (
        MaxPool(name="p", size=9, stride=1, rounding=rounding),
        AveragePool(name="p", size=9, stride=1, rounding=rounding),
        Convolution(name="p", filters=1, size=9, rounding="floor"),
    ):
        with pytest.raises(NetworkError) as caught:
            layer.output_shape((1, 8, 8))
        assert "'p'" in str(caught.value)
        assert "9x9" in str(caught.value)
        assert "8 pixels" in str(caught.value)
        assert "\n" not in str(caught.value)


@st.composite
def chains(draw: st.DrawFn) -> Network:
    """A convolution and a pool whose windows may hang over the edges, and may leave gaps."""
    rounding = st.sampled_from(ROUNDINGS)
    pool = draw(st.sampled_from([*POOLS]))
    layers = (
        Convolution(
            name="conv1",
            filters=3,
            size=draw(st.integers(1, 4)),
            stride=draw(st.integers(1, 3)),
            padding=draw(st.integers(0, 2)),
            rounding=draw(rounding),
        ),
        ReLU(name="relu1"),
        pool(name="pool1", size=draw(st.integers(1, 4)), stride=draw(st.integers(1, 5)),
             rounding=draw(rounding)),
        FullyConnected(name="fc2", units=4),
        SoftmaxCrossEntropy(name="softmax"),
    )  # fmt: skip
    return Network(name="drawn", input_shape=(2, 13, draw(st.integers(12, 14))), layers=layers)


@given(chains())
@settings(max_examples=12, deadline=None)
def test_the_module_onnx_and_the_plan_compute_the_same(network: Network) -> None:
    state = drawn(network)
    plain = to_plain(network, state)
    images = images_for(network)
    with torch.no_grad():
        probabilities = module_of(network, plain)(images).softmax(1)
    assert probabilities.isfinite().all()
    if util.find_spec("onnx") and util.find_spec("onnxruntime"):
        found = largest_difference(onnx_bytes(network, plain, {}), network, plain, 1.0)
        assert found is not None
        assert found < 1e-5
    made = plan(network, batch_size=3, backend="aten")
    executor = Executor(made)
    executor.initialise()
    for name, tensor in executor.state().items():
        if not name.endswith(".momentum"):
            tensor.copy_(state[name])
    losses = executor.evaluate(images, torch.arange(3)).losses
    torch.testing.assert_close(losses, -probabilities.log()[range(3), range(3)])
    assert without_formula(network) == ()
