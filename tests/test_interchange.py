"""Weights in other people's formats: the same function there, the same bits on the way back."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import util
from inspect import isabstract
from pathlib import Path

import numpy as np
import pytest
import torch
from chains import CHAINS
from drawn import networks
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interchange_cases import EVERY, ONE, SMALL, State, assert_same, drawn, images_for, module_of
from test_cli import run
from torch import nn
from torch.nn import functional as F

import alexsim
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, InterchangeError, NetworkError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.random import dropout_keep
from alexsim.interchange import caffe, onnx
from alexsim.interchange.caffemodel import read_caffemodel
from alexsim.interchange.convert import WRITTEN, Inputs, exported, imported
from alexsim.interchange.layout import (
    dropout_factors,
    from_plain,
    plain_shapes,
    sized,
    to_plain,
)
from alexsim.interchange.module import AlexNet, plain_module
from alexsim.interchange.onnx import largest_difference, onnx_bytes
from alexsim.interchange.state_dict import (
    from_torchvision,
    state_dict_bytes,
    to_torchvision,
)
from alexsim.network import layers as layers_room
from alexsim.network.layers import (
    Add,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    Multiply,
    Operator,
    ReLU,
    SoftmaxCrossEntropy,
    Tanh,
)
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim.train.weights import Weights, load_weights, save_weights

small = pytest.mark.parametrize("network", SMALL.values(), ids=SMALL)


# --- the plain state_dict -------------------------------------------------------------------------


@small
def test_there_and_back_to_the_bit(network: Network) -> None:
    state = drawn(network)
    assert_same(from_plain(network, to_plain(network, state)), state)


@st.composite
def products(draw: st.DrawFn) -> Network:
    """Fully connected layers of any units per column, none of them included."""
    columns = draw(st.integers(1, 3))
    several = st.lists(st.integers(0, 3), min_size=columns, max_size=columns).map(tuple)
    layers: list[Layer] = []
    for index in range(draw(st.integers(1, 3))):
        units, reads = draw(st.integers(1, 4) | several), draw(st.sampled_from(["own", "all"]))
        layers.append(FullyConnected(name=f"fc{index}", units=units, reads=reads))
        if draw(st.booleans()):
            layers.append(Dropout(name=f"dropout{index}", rate=draw(st.sampled_from([0.5, 0.75]))))
    layers += [FullyConnected(name="last", units=3, reads="all"), SoftmaxCrossEntropy(name="cost")]
    return Network(name="drawn", input_shape=(2, 2, 3), columns=columns, layers=tuple(layers))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_network_there_and_back_to_the_bit(data: st.DataObject) -> None:
    try:
        network = data.draw(products() | networks())
        state = drawn(network)
        plain = to_plain(network, state)
    except NetworkError:
        # No network at all, or columns of several sizes that read their own.
        assume(False)
    assert_same(from_plain(network, plain), state)
    if util.find_spec("onnx") and util.find_spec("onnxruntime"):
        found = largest_difference(onnx_bytes(network, plain, {}), network, plain, 1.0)
        assert found is not None
        assert found < 1e-5


@pytest.mark.parametrize(
    "name", [*CHAINS, "alexnet-paper+no-exchange", "alexnet-6conv+no-exchange"]
)
def test_names_and_shapes_are_those_of_the_modules(name: str) -> None:
    network = load_network(name)
    found = plain_module(network, "meta").state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == plain_shapes(network)
    assert list(found)[:2] == [
        f"{network.weighted_layers[0]}.{kind}" for kind in ("weight", "bias")
    ]


def test_halves_stand_behind_dropout_and_nowhere_else() -> None:
    assert dropout_factors(load_network("alexnet-2012")) == {"fc7": 0.5, "fc8": 0.5}
    assert dropout_factors(load_network("alexnet-6conv")) == {"fc7": 0.5, "bottleneck": 0.5}
    assert dropout_factors(ONE) == {"fc3": 0.5}  # past a pool
    twice = (Dropout(name="again", rate=0.75), *ONE.layers[5:])
    assert dropout_factors(replace(ONE, layers=(*ONE.layers[:5], *twice))) == {"fc3": 0.125}
    state = drawn(EVERY)
    plain = to_plain(EVERY, state)
    # Read from the layer's picture: columns one below the other.
    assert torch.equal(plain["fc6.weight"][:3], state["fc6.a.weight"])
    assert torch.equal(plain["fc6.weight"][3:], state["fc6.b.weight"])
    assert torch.equal(plain["fc5.weight"][6:, :, 0], state["fc5.b.weight"] / 2)
    assert torch.equal(plain["fc7.weight"], state["fc7.a.weight"] / 2)
    assert torch.equal(plain["fc7.bias"], state["fc7.a.bias"])


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((Tanh(name="tanh"), FullyConnected(name="fc", units=3)), "cannot pass 'tanh'"),
        ((), "cannot pass 'softmax'"),
    ],
)
def test_a_scale_that_cannot_move_is_refused(layers: tuple[Layer, ...], says: str) -> None:
    head = (Convolution(name="conv", filters=2, size=3), Dropout(name="drop"))
    network = Network(
        name="n",
        input_shape=(1, 5, 5),
        layers=(*head, *layers, SoftmaxCrossEntropy(name="softmax")),
    )
    with pytest.raises(NetworkError, match=says):
        to_plain(network, drawn(network))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            (FullyConnected(name="fc1", units=(3, 4)), FullyConnected(name="fc2", units=2)),
            "'fc2': columns of different sizes",
        ),
        (
            (FullyConnected(name="fc1", units=3), FullyConnected(name="fc2", units=(2, 0))),
            "'fc2': columns of different sizes",
        ),
        (
            (ReLU(name="relu"), Convolution(name="conv", filters=2, size=2)),
            "'relu': columns that begin without weights",
        ),
        ((Convolution(name="conv", filters=2, size=2, groups=2),), "'conv': groups over all"),
    ],
)
def test_columns_without_a_plain_form_are_refused(layers: tuple[Layer, ...], says: str) -> None:
    last = (FullyConnected(name="last", units=2, reads="all"), SoftmaxCrossEntropy(name="softmax"))
    network = Network(name="n", input_shape=(2, 4, 4), columns=2, layers=(*layers, *last))
    for refuses in (lambda: plain_shapes(network), lambda: AlexNet(network)):
        with pytest.raises(NetworkError, match=says):
            refuses()


INPUTS = Inputs(normalisation="channels", mean=None, classes=())
UNKNOWN = {
    name: kind
    for name, kind in vars(layers_room).items()
    if isinstance(kind, type) and issubclass(kind, Layer) and not isabstract(kind)
    and kind not in {Operator, *(type(layer) for layer in EVERY.layers)}
}  # fmt: skip


class Doubled(ReLU):
    """A kind that only its writer knows, made from one that the formats hold."""


@pytest.mark.parametrize("kind", [*UNKNOWN.values(), Doubled], ids=[*UNKNOWN, "Doubled"])
def test_a_kind_of_layer_that_a_format_lacks_takes_one_line(kind: type[Layer]) -> None:
    several = {"inputs": ("conv", "relu")} if kind in (Add, Concat, Multiply) else {}
    layers = (
        Convolution(name="conv", filters=4, size=1),
        ReLU(name="relu"),
        kind(name="odd", **several),  # type: ignore[arg-type]
        FullyConnected(name="last", units=3),
        SoftmaxCrossEntropy(name="softmax"),
    )
    network = Network(name="n", input_shape=(4, 2, 2), layers=layers)
    says = f"^layer 'odd': .* holds no {kind.__name__}, only Convolution, FullyConnected, [^\n]*$"
    refusals = [lambda ending=ending: exported(network, {}, ending, INPUTS) for ending in WRITTEN]
    # The writers themselves, should a kind that has a plain form be new to one of them.
    if util.find_spec("onnx"):
        refusals.append(lambda: onnx._Graph({}).add(network, network.parts[2]))
    if util.find_spec("google") and util.find_spec("google.protobuf"):
        refusals.append(lambda: caffe.described(network))
    for refuses in refusals:
        with pytest.raises(AlexsimError, match=says):
            refuses()


def test_what_does_not_fit_is_named() -> None:
    state, plain = drawn(EVERY), to_plain(EVERY, drawn(EVERY))
    lacking = {name: tensor for name, tensor in plain.items() if name != "conv2.bias"}
    bent = {**plain, "fc4.weight": plain["fc4.weight"][:, :5]}
    for given_, says in (
        (lacking, r"no conv2.bias, of shape \(12,\)"),
        (bent, r"fc4.weight has shape \(16, 5, 1\), must have \(16, 80, 1\)"),
        ({**plain, "fc9.bias": plain["fc6.bias"]}, "every-layer, which has no fc9.bias"),
        ({}, "has: nothing"),
    ):
        with pytest.raises(InterchangeError, match=says):
            from_plain(EVERY, given_)
    with pytest.raises(InterchangeError, match=r"no conv1.a.weight, .* \(has: conv1.bias"):
        to_plain(EVERY, plain)
    with pytest.raises(InterchangeError, match=r"has no conv1\.a\.weight\.momentum"):
        to_plain(EVERY, {**state, "conv1.a.weight.momentum": state["conv1.a.weight"]})
    assert sized(EVERY, state) is EVERY
    assert sized(EVERY, {"fc7.bias": torch.zeros(9)}).classes == 9
    with pytest.raises(InterchangeError, match="no biases of fc7"):
        sized(EVERY, {})


# --- the module -----------------------------------------------------------------------------------


def executor_of(network: Network, state: State, batch_size: int) -> Executor:
    executor = Executor(plan(network, batch_size=batch_size, backend="aten"), dtype=torch.float64)
    executor.initialise()
    for name, tensor in executor.state().items():
        if not name.endswith(".momentum"):
            tensor.copy_(state[name])
    return executor


@small
def test_the_module_evaluates_as_the_plan_does(network: Network) -> None:
    state = drawn(network, torch.float64)
    images = images_for(network, dtype=torch.float64)
    module = module_of(network, to_plain(network, state))
    executor = executor_of(network, state, len(images))
    with torch.no_grad():
        expected = module(images).log_softmax(1)
    assert expected.std() > 0.1
    for label in range(network.classes):
        labels = torch.full((len(images),), label)
        losses = executor.evaluate(images, labels).losses
        torch.testing.assert_close(-losses, expected[:, label], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", [EVERY, ONE], ids=["two columns", "one column"])
def test_the_module_trains_as_the_plan_does(network: Network) -> None:
    """Given the same mask: the loss, and every gradient by dropout's factor squared."""
    state = drawn(network, torch.float64)
    images = images_for(network, 4, torch.float64)
    labels = torch.arange(4)
    executor = executor_of(network, state, len(images))
    module = module_of(network, to_plain(network, state)).train()

    def masked(name: str, rate: float):
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor):
            units = range(inputs[0][0].numel())
            keep = dropout_keep(seed=0, layer=name, step=5, images=range(4), units=units, rate=rate)
            return inputs[0] * torch.from_numpy(keep).view(out.shape) / (1 - rate)

        return hook

    for layer in network.layers:
        if isinstance(layer, Dropout):
            module.get_submodule(layer.name).register_forward_hook(masked(layer.name, layer.rate))
    loss = F.cross_entropy(module(images), labels)
    loss.backward()
    rates = Hyperparameters(weight_rate=1.0, bias_rate=1.0, momentum=0.0, weight_decay=0.0)
    context = executor.step(images, labels, step=5, hyperparameters=rates)
    assert context.losses is not None
    assert context.losses.mean().item() == pytest.approx(loss.item(), rel=1e-12)
    steps = {
        name.removesuffix(".momentum"): -tensor
        for name, tensor in executor.state().items()
        if name.endswith(".momentum")
    }
    factors = dropout_factors(network)
    for name, found in to_plain(network, steps).items():
        layer_name, kind = name.split(".")
        factor = factors.get(layer_name, 1) if kind == "weight" else 1
        gradient = module.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found, gradient * factor**2, rtol=1e-9, atol=1e-12)


def test_first_weights_have_the_editions_deviations() -> None:
    torch.manual_seed(0)
    model = AlexNet("alexnet-2012", classes=10)
    assert sum(p.numel() for p in model.parameters()) == 60_965_224 - 990 * 4097
    found = {name: p.std().item() for name, p in model.named_parameters() if p.ndim > 1}
    expected = dict.fromkeys(found, 0.01)
    expected |= dict.fromkeys(("conv3.weight", "conv4.weight", "conv5.weight"), 0.03)
    expected |= {"fc7.weight": 0.005, "fc8.weight": 0.005}
    assert found == pytest.approx(expected, rel=0.02)
    ones = {name for name, p in model.named_parameters() if p.ndim == 1 and bool((p == 1).all())}
    assert ones == {f"{name}.bias" for name in ("conv2", "conv4", "conv5", "fc6", "fc7")}
    again = AlexNet("lenet-5")
    torch.manual_seed(3)
    again.draw()
    torch.manual_seed(3)
    assert_same(AlexNet("lenet-5").state_dict(), again.state_dict())


def test_the_module_is_a_module_like_others(tmp_path: Path) -> None:
    assert alexsim.AlexNet is AlexNet
    with pytest.raises(AttributeError, match="AlexNext"):
        _ = alexsim.AlexNext
    model = AlexNet(EVERY).eval()
    images = images_for(EVERY)
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(copy(images), model(images))
    code = "import alexsim, sys; assert 'torch' not in sys.modules; alexsim.AlexNet('lenet-5')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_weights_file_becomes_a_module(tmp_path: Path) -> None:
    network = load_network("lenet-5+4-classes")
    state, path = drawn(network), tmp_path / "w.safetensors"
    write_weights(path, "lenet-5+4-classes", state)
    model = AlexNet.from_file(path)
    assert_same(dict(model.state_dict()), to_plain(network, state))
    assert not model.training
    path.write_bytes(b"no")
    with pytest.raises(InterchangeError, match="cannot read"):
        AlexNet.from_file(path)
    from safetensors.torch import save_file

    save_file(state, path)
    with pytest.raises(InterchangeError, match="does not say its network"):
        AlexNet.from_file(path)


# --- torchvision's --------------------------------------------------------------------------------


class Torchvision(nn.Module):
    """``torchvision.models.alexnet`` once more, narrow: where its dropouts stand, and its names."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def test_torchvisions_alexnet_is_the_one_of_2014() -> None:
    network = load_network("alexnet-owt").with_head(10)
    theirs = Torchvision().eval()
    given_ = dict(theirs.state_dict())
    plain = from_torchvision(given_)
    ours = module_of(network, plain)
    images = images_for(network, 2)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
    state = from_plain(network, plain)
    assert torch.equal(state["fc7.a.weight"], 2 * given_["classifier.4.weight"])
    assert_same(to_torchvision(network, to_plain(network, state)), given_)
    with pytest.raises(InterchangeError, match="torchvision's AlexNet is alexnet-owt, not one-col"):
        to_torchvision(ONE, to_plain(ONE, drawn(ONE)))


# --- ONNX -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network", [*SMALL.values(), load_network("cifar10-quick")], ids=[*SMALL, "cifar10-quick"]
)
def test_onnxruntime_computes_the_same(network: Network) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    plain = to_plain(network, drawn(network))
    data = onnx_bytes(network, plain, {"network": network.name})
    model = onnx.load_from_string(data)
    assert {one.key: one.value for one in model.metadata_props} == {"network": network.name}
    assert not {node.op_type for node in model.graph.node} & {"Dropout", "Pad", "Identity"}
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    module = module_of(network, plain)
    for count in (1, 3):
        images = images_for(network, count)
        logits, probabilities = session.run(["logits", "probabilities"], {"images": images.numpy()})
        with torch.no_grad():
            expected = module(images)
        assert logits.shape == (count, network.classes)
        assert np.abs(logits - expected.numpy()).max() < 1e-5 * expected.abs().max()
        assert np.abs(probabilities - expected.softmax(1).numpy()).max() < 1e-5


def test_a_missing_package_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from alexsim.interchange import caffe_messages, onnx

    plain = to_plain(ONE, drawn(ONE))
    monkeypatch.setattr(onnx.util, "find_spec", lambda _: None)
    with pytest.raises(InterchangeError, match=r'pip install "alexsim\[onnx\]"'):
        onnx.onnx_bytes(ONE, plain, {})
    assert onnx.largest_difference(b"", ONE, plain, 1.0) is None
    caffe_messages._classes.cache_clear()
    # As where nothing of Google's is installed: None in sys.modules stops the import.
    for name in ("google", "google.protobuf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InterchangeError, match=r'pip install "alexsim\[caffe\]"'):
        caffe_messages.new_message("NetParameter")


# --- the network itself, and the commands ---------------------------------------------------------


def test_the_whole_network_through_every_format(tmp_path: Path) -> None:
    """60,965,224 parameters of alexnet-2012: back to the bit, and ONNX within 1e-5."""
    network = load_network("alexnet-2012")
    state = drawn(network)
    plain = to_plain(network, state)
    assert sum(tensor.numel() for tensor in plain.values()) == 60_965_224
    path = tmp_path / "alexnet.pt"
    path.write_bytes(state_dict_bytes(plain))
    assert_same(dict(imported(path, network).state), state)
    if pytest.importorskip("onnx") and pytest.importorskip("onnxruntime"):
        from alexsim.interchange.caffe import caffe_files

        data = onnx_bytes(network, plain, {})
        found = largest_difference(data, network, plain, 1.0)
        assert found is not None
        assert found < 1e-5
        back, _ = read_caffemodel(caffe_files(network, plain)[0], network, "it")
        assert_same(dict(back), plain)


def write_weights(path: Path, name: str, state: State, *, mean: bool = False) -> None:
    image = np.random.default_rng(1).random((32, 32, 1), np.float32) if mean else None
    save_weights(
        path,
        Weights(
            network=name,
            state=state,
            classes=tuple("abcd"),
            normalisation="mean-image" if mean else "channels",
            mean=image,
        ),
    )


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "onnx", "caffemodel"])
def test_the_commands_lead_there_and_back(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip({"onnx": "onnx", "caffemodel": "google.protobuf"}.get(ending, "torch"))
    network = load_network("lenet-5+4-classes")
    state, source = drawn(network), tmp_path / "w.safetensors"
    write_weights(source, "lenet-5+4-classes", state, mean=True)
    out = tmp_path / f"out.{ending}"
    assert run("model", "export", str(source), str(out)) == 0
    text = capsys.readouterr().out
    assert text.startswith("lenet-5+4-classes: 61,196 parameters, 4 classes\n")
    assert run("model", "export", str(source), str(out), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    written = {Path(one["path"]).suffix[1:]: one["bytes"] for one in document["files"]}
    beside = {"prototxt", "binaryproto"} if ending == "caffemodel" else set()
    assert written.keys() == {ending} | beside
    assert all((tmp_path / f"out.{end}").stat().st_size == size for end, size in written.items())
    if ending in ("safetensors", "onnx"):
        if ending == "onnx":
            if util.find_spec("onnxruntime"):
                assert document["largest_difference"] < 1e-5
        else:
            assert_same(dict(load_weights(out).state), dict(load_weights(source).state))
        return
    (tmp_path / "names.txt").write_text("one\ntwo\n\nthree\nfour\n")
    back = tmp_path / "back.safetensors"
    given_ = ["--net", "lenet-5", "--classes", str(tmp_path / "names.txt"), "--json"]
    if beside:
        given_ += ["--mean", str(tmp_path / "out.binaryproto")]
    assert run("model", "import", str(out), str(back), *given_) == 0
    document = json.loads(capsys.readouterr().out)
    found = load_weights(back)
    assert all(torch.equal(found.state[name], state[name]) for name in state)
    assert found.classes == ("one", "two", "three", "four")
    assert found.normalisation == document["normalisation"]
    if beside:
        mean = load_weights(source).mean
        assert mean is not None
        assert found.mean is not None
        assert np.array_equal(found.mean, mean)
    else:
        assert found.normalisation == "channels"


def mistakes(folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    weights, plain, to = (str(folder / n) for n in ("w.safetensors", "w.pt", "to.safetensors"))
    lenet = ("--net", "lenet-5")
    yield (
        ("model", "export", weights, "x.tflite"),
        "OUT must end in .safetensors, .pt, .pth, .onnx or",
    )
    yield ("model", "export", str(folder / "gone"), "x.pt"), "gone"
    yield (
        ("model", "export", weights, "x.pt", "--names", "keras"),
        "--names must be one of alexsim, torch",
    )
    yield ("model", "export", weights, "x.onnx", "--names", "torchvision"), "is for .pt and .pth"
    yield (
        ("model", "export", weights, "x.pt", "--names", "torchvision"),
        "is alexnet-owt, not lenet-5",
    )
    yield ("model", "export", weights, str(folder / "no" / "x.pt")), "cannot write"
    yield ("model", "import", plain, "x.pt"), "OUT must end in .safetensors"
    yield (
        ("model", "import", str(folder / "one.txt"), to),
        "no file of torch.save, safetensors or Caffe",
    )
    yield (
        ("model", "import", plain, to, *lenet, "--key", "ema"),
        "no weights of lenet-5 under 'ema', but at the top",
    )
    yield ("model", "import", str(folder / "gone.pt"), to), "cannot read"
    yield ("model", "import", str(folder / "gone.caffemodel"), to), "cannot read"
    yield (
        ("model", "import", plain, to),
        "alexnet-2012: it has conv1.weight at the top, but no conv3",
    )
    yield ("model", "import", plain, to, *lenet, "--classes", weights), "cannot read"
    yield (
        ("model", "import", plain, to, *lenet, "--classes", str(folder / "one.txt")),
        "names 1 classes",
    )
    yield ("model", "import", plain, to, *lenet, "--mean", "1,2"), "--mean must be"
    yield (
        ("model", "import", plain, to, *lenet, "--mean", "1", "--normalise", "channels"),
        "--mean is for",
    )
    yield (
        ("model", "import", plain, to, *lenet, "--normalise", "none"),
        "--normalise must be one of",
    )
    yield (
        ("model", "import", str(folder / "nan.pt"), to, *lenet),
        "fc5.bias is not finite; --allow-nan",
    )


def test_mistakes_take_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = load_network("lenet-5")
    state = drawn(network)
    write_weights(tmp_path / "w.safetensors", "lenet-5", state)
    plain = to_plain(network, state)
    (tmp_path / "w.pt").write_bytes(state_dict_bytes(plain))
    broken = {**plain, "fc5.bias": plain["fc5.bias"] / 0}
    (tmp_path / "nan.pt").write_bytes(state_dict_bytes(broken))
    (tmp_path / "one.txt").write_text("one\n")
    for arguments, says in mistakes(tmp_path):
        assert run(*arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert not out
        assert err.startswith("alexsim: ")
        assert err.count("\n") == 1
        assert says in err
    assert not (tmp_path / "to.safetensors").exists()
    to = str(tmp_path / "to.safetensors")
    assert (
        run("model", "import", str(tmp_path / "nan.pt"), to, "--net", "lenet-5", "--allow-nan") == 0
    )
    assert max(map(len, capsys.readouterr().out.replace(str(tmp_path), "").splitlines())) <= 80
