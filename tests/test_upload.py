"""Bytes become what a network reads, in the device's buffer, with numpy's bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batches import normalised
from torch import Tensor

from alexsim.data.normalising import Normalising
from alexsim.execute.choices import Backend
from alexsim.execute.context import STILL, StepContext
from alexsim.execute.executor import Executor
from alexsim.execute.upload import normalise, operands, upload
from alexsim.network.layers import Convolution, FullyConnected, ReLU, SoftmaxCrossEntropy
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim_kernels.cpu import upload as native


def drawn(
    shape: tuple[int, int, int, int], *, mirrored: str = "some", deviation: bool = False
) -> tuple[np.ndarray, Normalising]:
    """Bytes, ``[N, H, W, C]``, and all that can be done to them."""
    n, h, w, c = shape
    rng = np.random.default_rng(n + w)
    turned = {"none": np.zeros(n, bool), "all": np.ones(n, bool), "some": np.arange(n) % 3 == 1}
    return rng.integers(0, 256, shape, np.uint8), Normalising(
        mean=rng.uniform(0, 255, (h, w, c)).astype(np.float32),
        deviation=rng.uniform(40, 70, c).astype(np.float32) if deviation else None,
        noise=rng.normal(0, 9, (n, c)).astype(np.float32),
        factor=np.where(np.arange(n) % 2, 1, 1 / 1.1).astype(np.float32),
        mirrored=turned[mirrored],
    )


@pytest.mark.parametrize("mirrored", ["none", "some", "all"])
@pytest.mark.parametrize("deviation", [False, True])
@pytest.mark.parametrize("shape", [(5, 7, 9, 3), (3, 28, 28, 1), (9, 224, 224, 3)], ids=str)
@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
def test_normalising_has_the_bits_of_numpy(
    shape: tuple[int, int, int, int], mirrored: str, deviation: bool, layout: str
) -> None:
    pixels, todo = drawn(shape, mirrored=mirrored, deviation=deviation)
    landed = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    out = torch.full(shape, torch.nan).permute(0, 3, 1, 2)
    if layout == "channels-first":
        out = out.contiguous()
    normalise(landed, out, operands(todo))
    expected = normalised(pixels, todo)
    np.testing.assert_array_equal(out.permute(0, 2, 3, 1).numpy(), expected)


def test_a_step_that_changes_nothing_may_be_left_out() -> None:
    pixels, todo = drawn((3, 5, 6, 3))
    plain = Normalising(
        mean=todo.mean, deviation=None, noise=np.zeros_like(todo.noise),
        factor=np.ones_like(todo.factor), mirrored=todo.mirrored,
    )  # fmt: skip
    out = torch.empty(3, 3, 5, 6)
    normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), out, operands(plain))
    expected = normalised(pixels, plain)
    np.testing.assert_array_equal(out.permute(0, 2, 3, 1).numpy(), expected)


def test_a_turn_takes_its_own_images() -> None:
    pixels, todo = drawn((6, 5, 6, 3))
    out, labels = torch.empty(2, 3, 5, 6), torch.empty(6, dtype=torch.int64)
    context = StepContext(
        images=torch.from_numpy(pixels).permute(0, 3, 1, 2), normalising=todo,
        labels=torch.arange(6), step=0, seed=0, training=True, hyperparameters=STILL,
    )  # fmt: skip
    upload(out, labels, 2)(context)
    expected = normalised(pixels, todo)[2:4]
    np.testing.assert_array_equal(out.permute(0, 2, 3, 1).numpy(), expected)
    assert labels.tolist() == list(range(6))


def test_threads_are_as_many_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    pixels, todo = drawn((1, 4, 4, 3))
    broken = torch.empty(1, 2, 4, 4)  # two channels
    with pytest.raises(RuntimeError):
        normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), broken, operands(todo))
    assert counts == [1, 3]


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("backend", ["aten", "native"])
def test_training_on_bytes_is_training_on_their_floats(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Tensor] = []
    kernel = native.upload

    def upload_(pixels: Tensor, *others: Tensor) -> None:
        written.append(pixels)
        kernel(pixels, *others)

    monkeypatch.setattr(native, "upload", upload_)
    layers = (
        Convolution(name="conv1", filters=4, size=3),
        ReLU(name="relu1"),
        FullyConnected(name="fc2", units=5),
        SoftmaxCrossEntropy(name="softmax"),
    )
    network = Network(name="small", input_shape=(3, 9, 9), columns=1, layers=layers)
    pixels, todo = drawn((4, 9, 9, 3))
    labels = torch.arange(4)
    results = []
    for images, given in ((pixels, todo), (normalised(pixels, todo), None)):
        executor = Executor(plan(network, batch_size=4, backend=backend), seed=1)
        executor.initialise()
        shown = torch.from_numpy(images).permute(0, 3, 1, 2)
        step = executor.step(shown, labels, step=0, hyperparameters=STILL, normalising=given)
        test = executor.evaluate(shown, labels, normalising=given)
        results.append((step.losses, test.losses))
    assert len(written) == (2 if backend == "native" else 0)
    for bytes_, floats in zip(*results, strict=True):
        assert bytes_ is not None
        assert floats is not None
        assert bytes_.std() > 0
        assert torch.equal(bytes_, floats)
