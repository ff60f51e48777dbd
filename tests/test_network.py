"""Networks against the published integers."""

from __future__ import annotations

import pytest
from chains import CHAINS

from alexsim.editions.load import load_network
from alexsim.errors import NetworkError
from alexsim.ledger.tables import flop_table
from alexsim.network import counts
from alexsim.network.diagram import diagram, rows, svg
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network

# Weights and biases per column, and multiply-adds per image and column (net #145).
PER_GPU = {
    "conv1": (17_424, 48, 52_707_600, (48, 55, 55)),
    "conv2": (153_600, 128, 111_974_400, (128, 27, 27)),
    "conv3": (442_368, 192, 74_760_192, (192, 13, 13)),
    "conv4": (331_776, 192, 56_070_144, (192, 13, 13)),
    "conv5": (221_184, 128, 37_380_096, (128, 13, 13)),
    "fc6": (18_874_368, 2048, 18_874_368, (2048,)),
    "fc7": (8_388_608, 2048, 8_388_608, (2048,)),
    "fc8": (4_096_000, 1000, 4_096_000, (1000,)),
}


@pytest.mark.parametrize("name", ["alexnet-2012", "alexnet-paper"])
def test_two_column_net_has_the_published_parts(name: str) -> None:
    network = load_network(name)
    for parts in network.parts:
        for part in parts:
            if part.layer.name in PER_GPU:
                weights, biases, macs, shape = PER_GPU[part.layer.name]
                assert part.weight_count == weights
                assert part.parameters == weights + biases
                assert counts.macs(part) == macs
                assert part.output_shape == shape
    assert [p.column for p in network.parts[-2]] == [0]
    assert network.neurons == 659_272


@pytest.mark.parametrize(
    ("name", "parameters", "mac", "training_flop"),
    [
        ("alexnet-2012", 60_965_224, 724_406_816, 4_135_610_496),
        ("alexnet-paper", 60_965_224, 724_406_816, 4_135_610_496),
        ("alexnet-1gpu", 59_798_312, 391_514_384, 2_243_671_104),
        # conv6 adds 148,... weights; the bottleneck replaces 4096 x 21,843 by 2048 x 21,843.
        ("alexnet-6conv", 110_605_267, 794_667_552, None),
        ("alexnet-owt", 61_100_840, 714_188_480, None),
        # LeCun et al. 1998 with full connections: 156 + 2,416 + 48,120 + 10,164 + 850.
        ("lenet-5", 61_706, 416_520, None),
    ],
)
def test_totals(name: str, parameters: int, mac: int, training_flop: int | None) -> None:
    table = flop_table(load_network(name))
    assert table.network.parameters == parameters
    assert table.mac == mac
    assert table.flop == 2 * mac
    first = table.layers[0].flop
    # Every pass costs the same, but the image needs no gradient.
    assert table.training_flop == (training_flop or 6 * mac - first)


def test_the_layers_of_a_table_add_up() -> None:
    table = flop_table(load_network("alexnet-2012"))
    assert sum(layer.parameters for layer in table.layers) == 60_965_224
    conv1 = table.layers[0]
    assert (conv1.grad_input_flop, conv1.grad_weight_flop) == (0, 210_830_400)


def test_flops_do_not_depend_on_the_batch() -> None:
    network = load_network("alexnet-2012")
    small, large = flop_table(network, 1), flop_table(network, 96)
    for a, b in zip(small.layers, large.layers, strict=True):
        assert (a.mac, a.grad_weight_flop, a.elementwise_flop) == (
            b.mac,
            b.grad_weight_flop,
            b.elementwise_flop,
        )


def test_elementwise_counts_follow_the_documented_formulas() -> None:
    layers = {layer.name: layer for layer in flop_table(load_network("alexnet-2012")).layers}
    assert layers["conv1"].elementwise_flop == 2 * 290_400
    assert layers["norm1"].elementwise_flop == 290_400 * (5 + 4 + 5 + 7)
    assert layers["spatial_norm2"].elementwise_flop == 186_624 * (25 + 4 + 25 + 7)
    assert layers["pool1"].elementwise_flop == 69_984 * (8 + 18)
    assert layers["fc6"].elementwise_flop == 2 * 4096
    assert layers["softmax"].elementwise_flop == 7 * 1000


def test_a_unit_of_rounding_decides_between_54_and_55() -> None:
    for rounding, expected in (("ceil", 55), ("floor", 54)):
        layer = Convolution(name="c", filters=1, size=11, stride=4, rounding=rounding)
        assert layer.output_shape((3, 224, 224)) == (1, expected, expected)
    assert Convolution(name="c", filters=1, size=11, stride=4).end_paddings((3, 224, 224)) == (3, 3)


def chain(*layers: object, **fields: object) -> Network:
    ends = (FullyConnected(name="fc", units=4), SoftmaxCrossEntropy(name="softmax"))
    arguments = {"name": "mine", "input_shape": (3, 9, 9)} | fields
    return Network(layers=(*layers, *ends), **arguments)


def test_a_user_s_chain_resolves() -> None:
    network = chain(Convolution(name="c", filters=5, size=3), ReLU(name="r"))
    assert network.parameters == 5 * 27 + 5 + 4 * 5 * 49 + 4
    assert network.classes == 4
    assert "mine" in diagram(network)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((ReLU(name="fc"),), "'fc' is taken"),
        ((Convolution(name="c", filters=2, size=12),), "larger than its input"),
        ((MaxPool(name="p", size=2, stride=2),), "do not tile 9 pixels"),
        ((FullyConnected(name="f", units=3), MaxPool(name="p", size=2, stride=2)), "reads images"),
        ((SoftmaxCrossEntropy(name="s"),), "reads the cost 's'"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers: tuple, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        chain(*layers)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Convolution(name="c", filters=0, size=3),
        lambda: Convolution(name="c", filters=1, size=3, padding=-1),
        lambda: LocalResponseNorm(name="c", size=4),
        lambda: Dropout(name="c", rate=1.0),
        lambda: FullyConnected(name="c", units=0),
        lambda: MaxPool(name="c", size=3, stride=0),
    ],
)
def test_numbers_out_of_range_name_the_layer(make: object) -> None:
    with pytest.raises(NetworkError, match="layer 'c'"):
        make()


def test_a_column_without_input_is_an_error() -> None:
    layers = (
        FullyConnected(name="only_a", units=(3, 0)),
        FullyConnected(name="both", units=3),
    )
    with pytest.raises(NetworkError, match="column 1 has no 'only_a'"):
        chain(*layers, columns=2)


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(NetworkError, match="did you mean alexnet-2012"):
        load_network("alexnet-2021")


@pytest.mark.parametrize("name", CHAINS)
def test_drawings_show_every_weighted_layer_and_fit_a_terminal(name: str) -> None:
    network = load_network(name)
    text, picture = diagram(network), svg((load_network("lenet-5"), network))
    for layer in network.weighted_layers:
        assert layer in text
        assert layer in picture
    assert max(len(line) for line in text.splitlines()) <= 80
    crossings = sum(row.crosses for row in rows(network))
    assert text.count("exchange") == crossings
