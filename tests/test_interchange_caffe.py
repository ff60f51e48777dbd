"""Caffe's files: the bits on the way back, the words of ``bvlc_alexnet``, and damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interchange_cases import SMALL, State, assert_same, drawn

from alexsim.editions.load import load_network
from alexsim.errors import InterchangeError
from alexsim.interchange.caffemodel import difference, read_caffemodel
from alexsim.interchange.layout import to_plain
from alexsim.interchange.mean import mean_bytes, mean_of
from alexsim.network.layers import (
    Convolution,
    FullyConnected,
    Layer,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network


@pytest.fixture
def caffe():
    pytest.importorskip("google.protobuf")
    from alexsim.interchange import caffe

    return caffe


@pytest.mark.parametrize(
    "network", [*SMALL.values(), load_network("cifar10-quick")], ids=[*SMALL, "cifar10-quick"]
)
def test_caffes_files_there_and_back_to_the_bit(network: Network, caffe) -> None:
    plain = to_plain(network, drawn(network))
    data, text = caffe.caffe_files(network, plain, ("said first",))
    assert text.startswith("# said first\nname:")
    back, net = read_caffemodel(data, network, "it")
    assert_same(back, plain)
    assert difference(net, network) == ""


def test_alexnet_caffe_is_bvlc_alexnet(caffe) -> None:
    """Names, types and numbers as in ``models/bvlc_alexnet/deploy.prototxt``."""
    net = caffe.described(load_network("alexnet-caffe"))
    blocks = (
        "data Input", "conv1 Convolution", "relu1 ReLU", "norm1 LRN", "pool1 Pooling",
        "conv2 Convolution", "relu2 ReLU", "norm2 LRN", "pool2 Pooling", "conv3 Convolution",
        "relu3 ReLU", "conv4 Convolution", "relu4 ReLU", "conv5 Convolution", "relu5 ReLU",
        "pool5 Pooling", "fc6 InnerProduct", "relu6 ReLU", "drop6 Dropout", "fc7 InnerProduct",
        "relu7 ReLU", "drop7 Dropout", "fc8 InnerProduct", "prob Softmax",
    )  # fmt: skip
    assert tuple(f"{layer.name} {layer.type}" for layer in net.layer) == blocks
    layers = {layer.name: layer for layer in net.layer}
    assert tuple(layers["data"].input_param.shape[0].dim) == (1, 3, 227, 227)
    convolutions = {
        name: (p.num_output, p.kernel_size, p.stride, p.pad, p.group)
        for name, p in ((f"conv{i}", layers[f"conv{i}"].convolution_param) for i in range(1, 6))
    }
    assert convolutions == {
        "conv1": (96, 11, 4, 0, 1),
        "conv2": (256, 5, 1, 2, 2),
        "conv3": (384, 3, 1, 1, 1),
        "conv4": (384, 3, 1, 1, 2),
        "conv5": (256, 3, 1, 1, 2),
    }
    for name in ("norm1", "norm2"):
        norm = layers[name].lrn_param
        assert (norm.local_size, norm.beta, norm.k, norm.norm_region) == (5, 0.75, 1, 0)
        assert norm.alpha == pytest.approx(1e-4)
    assert layers["relu1"].bottom == layers["relu1"].top == ["conv1"]
    assert layers["drop6"].dropout_param.dropout_ratio == 0.5
    assert layers["pool5"].pooling_param.kernel_size == 3


def test_norms_and_edges_of_2012_in_caffes_words(caffe) -> None:
    net = caffe.described(load_network("alexnet-2012"))
    layers = {layer.name: layer for layer in net.layer}
    assert tuple(layers["data"].input_param.shape[0].dim) == (1, 3, 227, 227)
    assert layers["norm1_slice"].top == ["norm1_slice_a", "norm1_slice_b"]
    assert layers["norm1"].bottom == ["norm1_a", "norm1_b"]
    # (2 + 2e-5 S)^-b = 2^-b (1 + 1e-5 S)^-b, and Caffe divides by 5.
    for letter in "ab":
        assert layers[f"norm1_{letter}"].lrn_param.alpha == pytest.approx(5e-5)
        assert layers[f"norm1_{letter}"].lrn_param.k == 1
    assert layers["norm1_k"].power_param.scale == pytest.approx(2**-0.75)
    # 4e-5 per square, times the 25 of a window.
    assert layers["spatial_norm2"].lrn_param.alpha == pytest.approx(1e-3)
    assert layers["spatial_norm2"].lrn_param.norm_region == 1
    assert "spatial_norm2_k" not in layers


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def blob(values: np.ndarray, *, old: bool) -> bytes:
    data = field(5, values.astype("<f4").tobytes())
    if not old:
        return field(7, field(1, b"".join(map(varint, values.shape)))) + data
    extents = (1,) * (4 - values.ndim) + values.shape
    return b"".join(varint(i << 3) + varint(e) for i, e in enumerate(extents, 1)) + data


def caffemodel(plain: State, *, old: bool) -> bytes:
    """As Caffe writes it, byte by byte: before 2014 with ``layers``, later with ``layer``."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, tensor in plain.items():
        layers.setdefault(name.split(".")[0], []).append(tensor.numpy())
    out = field(1, b"net")
    for name, arrays in layers.items():
        blobs = b"".join(field(6 if old else 7, blob(values, old=old)) for values in arrays)
        if old:
            kind = 4 if arrays[0].ndim == 4 else 14
            out += field(2, field(4, name.encode()) + varint(5 << 3) + varint(kind) + blobs)
        else:
            kind = "Convolution" if arrays[0].ndim == 4 else "InnerProduct"
            out += field(100, field(1, name.encode()) + field(2, kind.encode()) + blobs)
    return out


COLOURS = Network(
    name="colours",
    input_shape=(3, 6, 6),
    layers=(
        Convolution(name="conv1", filters=2, size=3),
        FullyConnected(name="fc2", units=4),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)


@pytest.mark.parametrize("old", [True, False], ids=["V1", "2014 on"])
def test_files_as_caffe_writes_them(old: bool, caffe) -> None:
    plain = to_plain(COLOURS, drawn(COLOURS))
    bgr = {**plain, "conv1.weight": plain["conv1.weight"][:, [2, 1, 0]]}
    back, net = read_caffemodel(caffemodel(bgr, old=old), COLOURS, "it")
    assert_same(dict(back), plain)
    assert difference(net, COLOURS) == ""
    relu = replace(COLOURS, layers=(COLOURS.layers[0], ReLU(name="relu1"), *COLOURS.layers[1:]))
    assert difference(net, relu) == "it has InnerProduct where colours has ReLU"


def test_another_function_of_the_same_shapes_is_told(caffe) -> None:
    """bvlc_alexnet's weights fit the network of 2012, whose norms do not cross columns."""
    net = caffe.described(load_network("alexnet-caffe"))
    assert difference(net, load_network("alexnet-caffe")) == ""
    assert (
        difference(net, load_network("alexnet-paper"))
        == "it has LRN of 5 (0.0001, 0.75, 1) where alexnet-paper has Slice"
    )
    assert "it has ReLU where alexnet-2012 has" in difference(net, load_network("alexnet-2012"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: {**p, "conv1.weight": p["conv1.weight"][:, :, 1:]}, r"has shape \(2, 3, 2, 3\)"),
        (lambda p: {k: v for k, v in p.items() if "fc2" not in k}, "fc2 must have weights and"),
        (lambda p: {k: v for k, v in p.items() if k != "fc2.bias"}, "biases, has 1 blobs"),
        (lambda p: {**p, "fc3.weight": p["fc2.weight"]}, "has layers that colours has not: fc3"),
        (lambda p: {}, "it holds no weights"),
    ],
)
def test_a_caffemodel_that_does_not_fit(change, says: str, caffe) -> None:
    data = caffemodel(change(to_plain(COLOURS, drawn(COLOURS))), old=False)
    with pytest.raises(InterchangeError, match=says):
        read_caffemodel(data, COLOURS, "it")


NUMBERS = {
    "double": lambda v: field(8, v.astype("<f8").tobytes()),
    "NVCaffe's half": lambda v: b"\x50\x02" + field(12, v.astype("<f2").tobytes()),
    "NVCaffe's float": lambda v: b"\x50\x01" + field(12, v.astype("<f4").tobytes()),
    "NVCaffe's double": lambda v: field(12, v.astype("<f8").tobytes()),  # 0 need not be written
    "one by one": lambda v: b"".join(b"\x2d" + x.tobytes() for x in v.astype("<f4").flat),
    "doubles one by one": lambda v: b"".join(b"\x41" + x.tobytes() for x in v.astype("<f8").flat),
}


def stored(numbers: Callable[[np.ndarray], bytes], plain: State) -> bytes:
    """A file whose numbers stand in another field than ``data``."""
    layers: dict[str, bytes] = {}
    for name, tensor in plain.items():
        shape = field(7, field(1, b"".join(map(varint, tensor.shape))))
        layer = name.split(".")[0]
        layers[layer] = layers.get(layer, field(1, layer.encode())) + field(
            7, shape + numbers(tensor.numpy())
        )
    return b"".join(field(100, layer) for layer in layers.values())


@pytest.mark.parametrize("where", NUMBERS)
def test_numbers_are_read_wherever_they_stand(where: str, caffe) -> None:
    plain = to_plain(COLOURS, drawn(COLOURS))
    back, _ = read_caffemodel(stored(NUMBERS[where], plain), COLOURS, "it")
    wanted = {k: v.half().float() if "half" in where else v for k, v in plain.items()}
    wanted["conv1.weight"] = wanted["conv1.weight"].flip(1)
    assert_same(dict(back), wanted)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (lambda _: b"", r"it: fc2\.bias has a shape, but no numbers"),
        (lambda v: b"\x50\x03" + field(12, v.astype("<i4").tobytes()), "raw_data is of type 3"),
        (lambda v: b"\x50\x02" + field(12, v.tobytes()), r"it: fc2\.bias has 16 bytes, not those"),
    ],
)
def test_numbers_that_cannot_be_read_are_named(numbers, says: str, caffe) -> None:
    with pytest.raises(InterchangeError, match=says):
        read_caffemodel(stored(numbers, to_plain(COLOURS, drawn(COLOURS))), COLOURS, "it")


def test_a_blob_without_a_shape_is_named(caffe) -> None:
    layer = field(1, b"fc2") + field(7, field(5, b"\0" * 8)) * 2
    with pytest.raises(InterchangeError, match=r"it: fc2\.bias has no shape"):
        read_caffemodel(field(100, layer), COLOURS, "it")


def test_a_shape_that_lies_about_its_numbers(caffe) -> None:
    huge = field(7, field(1, varint(1 << 40) + varint(1 << 40))) + field(5, b"\0" * 8)
    layer = field(1, b"conv1") + field(7, huge) * 2
    with pytest.raises(InterchangeError, match="has 8 bytes, not those of shape"):
        read_caffemodel(field(100, layer), COLOURS, "it")


@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_damaged_caffemodel_takes_one_line(cut: int, junk: bytes) -> None:
    pytest.importorskip("google.protobuf")
    whole = caffemodel(to_plain(COLOURS, drawn(COLOURS)), old=False)
    data = whole[: cut % len(whole)]
    # Other bytes in the last number's place are another number: no damage that can be seen.
    assume(len(data + junk) != len(whole))
    with pytest.raises(InterchangeError) as caught:
        read_caffemodel(data + junk, COLOURS, "it")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (
            MaxPool(name="pool", size=2, stride=2, rounding="floor"),
            "'pool': leaves out what is left",
        ),
        (Convolution(name="conv", filters=2, size=2, stride=2), "'conv': its windows hang over"),
    ],
)
def test_what_caffe_cannot_express_is_refused(layer: Layer, says: str, caffe) -> None:
    layers = (
        COLOURS.layers[0],
        MaxPool(name="shrink", size=2, stride=1),
        layer,
        *COLOURS.layers[1:],
    )
    with pytest.raises(InterchangeError, match=says):
        caffe.described(replace(COLOURS, layers=layers))


def test_a_mean_image_there_and_back(tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf")
    mean = np.random.default_rng(0).random((8, 8, 3), np.float32)
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(mean_bytes(mean))
    assert path.read_bytes().endswith(mean[:, :, 0].tobytes())  # red last
    assert np.array_equal(mean_of(str(path), COLOURS, 8), mean)
    # A square of another size: the centre that is subtracted stays.
    for side in (7, 9, 12):
        start = (side - 6) // 2
        found = mean_of(str(path), COLOURS, side)
        assert found.shape == (side, side, 3)
        assert np.array_equal(found[start : start + 6, start : start + 6], mean[1:7, 1:7])
    assert mean_of("1,2,3.5", COLOURS, 4)[0, 0].tolist() == [1, 2, 3.5]
    for given_ in ("1,2", "x,y,z", "nan,1,2"):
        with pytest.raises(InterchangeError, match=r"--mean must be a \.binaryproto file, or 3"):
            mean_of(given_, COLOURS, 4)
    path.write_bytes(mean_bytes(mean[:4, :4]))
    with pytest.raises(InterchangeError, match="needs 3 channels of at least 6 x 6"):
        mean_of(str(path), COLOURS, 8)
