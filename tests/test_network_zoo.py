"""The networks after AlexNet against torchvision's integers, and how graphs are drawn."""

from __future__ import annotations

import math
import re
import time
from html import unescape

import pytest
from chains import ZOO
from test_graph import GRAPHS

from alexsim.documents.networks import network_document
from alexsim.editions import zoo
from alexsim.editions.load import load_network
from alexsim.errors import NetworkError
from alexsim.network import counts
from alexsim.network.branches import Fork, Tangle, blocks, layers_of, shown_reads
from alexsim.network.diagram import diagram, repeats, svg
from alexsim.network.layers import BatchNorm, Dropout, MaxPool, ReLU
from alexsim.network.network import Network

PUBLISHED = {
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "googlenet": (6_624_904, 1_498_376_192),
    "googlenet-heads": (13_004_888, None),
    "googlenet-caffe": (6_998_552, None),
    "googlenet-caffe-heads": (13_378_280, None),
    "inception_v3": (23_834_568, 5_713_216_096),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "resnext101_32x8d": (88_791_336, 16_414_015_488),
    "wide_resnet50_2": (68_883_240, 11_398_021_120),
    "wide_resnet101_2": (126_886_696, 22_753_050_624),
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet161": (28_681_000, 7_727_907_072),
    "densenet169": (14_149_480, 3_359_843_328),
    "densenet201": (20_013_928, 4_291_365_888),
    "squeezenet1_0": (1_248_424, 818_924_576),
    "squeezenet1_1": (1_235_496, 349_151_936),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mnasnet0_5": (2_218_512, 104_455_968),
    "mnasnet0_75": (3_170_208, 215_493_104),
    "mnasnet1_0": (4_383_312, 314_415_872),
    "mnasnet1_3": (6_282_256, 526_362_432),
    "efficientnet_b0": (5_288_548, 385_814_752),
    "shufflenet_v2_x0_5": (1_366_792, 40_476_448),
    "shufflenet_v2_x1_0": (2_278_604, 144_907_992),
    "shufflenet_v2_x1_5": (3_503_624, 295_759_392),
    "shufflenet_v2_x2_0": (7_393_996, 583_253_464),
}
"""Parameters and multiply-adds of a forward pass of one image.

Parameters are ``num_params`` of torchvision 0.29.1's weights, those of GoogLeNet and Inception v3
less their heads'. Multiply-adds are half of what PyTorch's ``FlopCounterMode`` counts in
torchvision's modules: rounded, the ``_ops`` of the same weights (``tests/torchvision_zoo.py``
counts them anew). Of Caffe's GoogLeNets these are our own sums; what they are made of is checked
below.
"""
SZEGEDY = {
    "3a": 128, "3b": 304, "4a": 73, "4b": 88, "4c": 100, "4d": 119, "4e": 170, "5b": 71,
}  # fmt: skip
"""Million multiply-adds of GoogLeNet's modules (Szegedy et al. 2015, table 1, "ops"); those of 5a
do not fit the filters of the same table."""
CAFFE_BYTES = 6_648_061_952
"""Of 128 images in convnet-benchmarks' GoogLeNet, as Caffe's log of 2016-02-28 has them ("Memory
required for data")."""
LANDMARKS = {
    "vgg16": {"pool5": (512, 7, 7), "avgpool": (512, 7, 7), "fc6": (4096,)},
    "googlenet": {
        "maxpool1": (64, 56, 56), "inception3a_concat": (256, 28, 28),
        "inception4a_concat": (512, 14, 14), "inception5b_concat": (1024, 7, 7),
    },
    "googlenet-heads": {"aux1_avgpool": (512, 4, 4), "aux2_avgpool": (528, 4, 4)},
    "inception_v3": {
        "Mixed_5b_concat": (256, 35, 35), "Mixed_6a_concat": (768, 17, 17),
        "Mixed_7a_concat": (1280, 8, 8), "Mixed_7c_concat": (2048, 8, 8),
    },
    "resnet18": {"layer1_1_relu": (64, 56, 56), "layer4_1_relu": (512, 7, 7)},
    "resnet50": {"layer1_0_add": (256, 56, 56), "layer4_2_relu": (2048, 7, 7)},
    "densenet121": {
        "denseblock1_denselayer6_concat": (256, 56, 56), "transition1_pool": (128, 28, 28),
        "denseblock4_denselayer16_concat": (1024, 7, 7),
    },
    "googlenet-caffe": {
        "maxpool1": (64, 56, 56), "inception3a_concat": (256, 28, 28), "maxpool4": (832, 7, 7),
    },
    "mnasnet1_0": {"layers_0_relu": (32, 112, 112), "layers_5_1_add": (96, 14, 14)},
    "shufflenet_v2_x1_0": {"stage2_1_left": (58, 28, 28), "stage4_shuffle": (464, 7, 7)},
    "squeezenet1_1": {"features_2": (64, 55, 55), "features_12_concat": (512, 13, 13)},
    "mobilenet_v2": {"features_1_project_bn": (16, 112, 112), "features_18_relu6": (1280, 7, 7)},
    "efficientnet_b0": {"features_5_2_add": (112, 14, 14), "features_8_silu": (1280, 7, 7)},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_multiply_adds_and_shapes_are_torchvisions(name: str) -> None:
    network = load_network(name)
    parameters, mac = PUBLISHED[name]
    assert network.parameters == parameters
    if mac:
        assert sum(counts.macs(part) for parts in network.parts for part in parts) == mac
    for layer, shape in LANDMARKS.get(name, {}).items():
        assert network.parts_of(layer)[0].output_shape == shape
    assert network.classes == 1000


def test_every_network_of_the_zoo_is_published_and_has_plain_names() -> None:
    assert set(zoo.EDITIONS) == set(PUBLISHED)
    assert set(ZOO) == set(LANDMARKS)
    for name in PUBLISHED:
        assert load_network(name).name == name
        names = [layer.name for layer in load_network(name).layers]
        assert len(set(names)) == len(names)
        # A dot separates a layer from its column and its parameter.
        assert all(re.fullmatch(r"\w+", one) for one in names)


def test_modules_of_caffe_s_googlenet_do_the_paper_s_work() -> None:
    network = load_network("googlenet-caffe")
    for module, millions in SZEGEDY.items():
        mac = sum(
            counts.macs(part)
            for (part,) in network.parts
            if part.layer.name.startswith(f"inception{module}_")
        )
        assert mac == pytest.approx(1e6 * millions, abs=1e6)


def test_outputs_of_googlenet_fill_what_caffe_reserves() -> None:
    """Caffe counts every layer's output, those in place again, and one copy for each reader of what
    several read; convnet-benchmarks' classifier has a ReLU."""
    network = load_network("googlenet-caffe+no-lrn+no-dropout")
    values = math.prod(network.input_shape) + network.classes
    for (part,) in network.parts[:-1]:
        readers = len(network.readers[part.layer.name])
        values += math.prod(part.output_shape) * (1 + readers * (readers > 1))
    assert 4 * 128 * values == CAFFE_BYTES


def test_concatenations_are_views() -> None:
    for name in ZOO:
        network = load_network(name)
        assert all(p[0].view for p in network.parts if type(p[0].layer).__name__ == "Concat")


def test_the_largest_is_built_in_a_moment() -> None:
    def seconds() -> float:
        began = time.process_time()
        zoo.EDITIONS["densenet201"]()
        return time.process_time() - began

    assert min(seconds() for _ in range(5)) < 0.05


def test_normalisation_dropout_and_pools_are_as_there() -> None:
    def of(name: str, kind: type) -> list:
        return [layer for layer in load_network(name).layers if isinstance(layer, kind)]

    assert {one.epsilon for one in of("googlenet", BatchNorm)} == {1e-3}
    assert {one.epsilon for one in of("inception_v3", BatchNorm)} == {1e-3}
    assert {one.epsilon for one in of("resnet50", BatchNorm)} == {1e-5}
    assert {one.rounding for one in of("googlenet", MaxPool)} == {"ceil"}
    assert {one.rounding for one in of("squeezenet1_1", MaxPool)} == {"ceil"}
    depths = [one.rate for one in of("efficientnet_b0", Dropout) if one.whole_images]
    # Blocks without a shortcut are never left out: the first of each stage.
    assert depths == [0.2 * block / 16 for block in (2, 4, 6, 7, 9, 10, 12, 13, 14)]
    assert all(one.rescaled for name in ZOO for one in of(name, Dropout))
    heads = load_network("googlenet-heads").heads
    assert [head.weight for head in heads] == [0.3, 0.3, 1.0]


@pytest.mark.parametrize("network", [*map(load_network, ZOO), *GRAPHS.values()])
def test_a_drawing_has_every_layer_that_is_shown_once_and_fits_a_terminal(network: Network) -> None:
    drawn = [
        name
        for block in blocks(network)
        for row in (block.row, *block.heads)
        for name in layers_of(row)
    ]
    assert sorted(drawn) == sorted(shown_reads(network))
    lines = diagram(network).splitlines()
    assert max(map(len, lines)) <= 80
    picture = unescape(svg((network,)))
    assert all(line.strip() in picture for line in lines if network.name in line)
    assert network.is_chain or all(f">{line}</text>" in picture for line in lines)


def test_blocks_that_are_alike_are_drawn_once() -> None:
    text = diagram(load_network("resnet50"))
    assert "layer3_1 to layer3_5, 5 blocks alike\n" in text
    assert text.count("alike") == 4
    assert len(text.splitlines()) < 45
    assert [len(group) for group in repeats(load_network("densenet121")) if len(group) > 1] == [
        6, 12, 24, 16,
    ]  # fmt: skip


def test_branches_are_told_from_tangles() -> None:
    row = blocks(load_network("inception_v3"))[-4].row
    fork = row[0]
    assert isinstance(fork, Fork)
    assert [len(branch) for branch in fork.branches] == [1, 3, 4, 2]
    assert isinstance(fork.branches[1][1], Fork)
    found = [one for b in blocks(GRAPHS["copied concatenations"]) for one in b.row]
    assert any(isinstance(one, Tangle) for one in found)
    assert "+--> cat2 concat of c1, c2, c0 " in diagram(GRAPHS["copied concatenations"])


def test_heads_stand_where_they_begin() -> None:
    lines = diagram(load_network("googlenet-heads")).splitlines()
    at = lines.index("|  aux1, with a cost of its own")
    assert lines[at - 1].startswith("o  concat 512x14x14 <")
    assert lines[at + 2].endswith("> softmax x 0.3")


def test_the_document_tells_what_every_layer_reads() -> None:
    layers = {
        la["name"]: la for la in network_document(load_network("resnet18")).document()["layers"]
    }
    assert layers["conv1"]["inputs"] == ["input"]
    assert layers["layer2_0_add"]["inputs"] == ["layer2_0_bn2", "layer2_0_downsample_1"]


@pytest.mark.parametrize("name", ZOO)
def test_variants_keep_the_graph(name: str) -> None:
    network = load_network(name)
    assert load_network(f"{name}+10-classes").classes == 10
    shapes = {parts[0].layer.name: parts[0].output_shape for parts in network.parts}
    for variant, gone in (("no-dropout", Dropout), ("tanh", ReLU), ("pool2", None)):
        try:
            other = load_network(f"{name}+{variant}")
        except NetworkError as error:
            assert "changes nothing" in str(error)  # noqa: PT017
            continue
        assert other.parameters == network.parameters
        for parts in other.parts:
            layer = parts[0].layer
            assert gone is None or not isinstance(layer, gone)
            assert parts[0].output_shape == shapes[layer.name.replace("tanh", "relu")]
