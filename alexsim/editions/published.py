"""The networks behind published timings: AlexNet's one-GPU descendants, and VGG and OverFeat.

Sources: Caffe's model files (CaffeNet, bvlc_alexnet, cifar10_quick), the scripts of MXNet,
tf_cnn_benchmarks and convnet-benchmarks, the example of fbcunn, deep-learning-benchmarks of 2016
(FCN-5, FCN-8), Simonyan & Zisserman 2014 (VGG-A), Chatfield et al. 2014 (VGG-F, -M, -S), Sermanet
et al. 2013 (OverFeat-fast). Shapes are theirs; weights start at He's deviation (He et al. 2015),
and before a sigmoid, whose slope at 0 is 1/4, as in ``alexnet.lenet_5``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Reads,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network

_Rounding = Literal["exact", "floor", "ceil"]


def caffenet() -> Network:
    """Caffe's bvlc_reference_caffenet: pools stand before norms."""
    return _grouped("caffenet", "CaffeNet: AlexNet with pools before norms", norm_first=False)


def alexnet_caffe() -> Network:
    """Caffe's bvlc_alexnet: the NIPS 2012 text in one column with groups."""
    return _grouped("alexnet-caffe", "Caffe's bvlc_alexnet: one column with two groups")


def alexnet_ungrouped() -> Network:
    """bvlc_alexnet with ``group: 1``, as PaddlePaddle's benchmark ran it."""
    return _grouped("alexnet-ungrouped", "bvlc_alexnet without groups", groups=1)


def alexnet_mxnet() -> Network:
    """MXNet's image-classification example: ungrouped, 54 x 54 after conv1, fc6 of 6400."""
    return Network(
        name="alexnet-mxnet",
        title="MXNet's AlexNet: 96-256-384-384-256, ungrouped",
        input_shape=(3, 224, 224),
        layers=(
            *_conv("1", 3, 96, 11, stride=4),
            _lrn("1"),
            _pool("1", rounding="floor"),
            *_conv("2", 96, 256, 5, padding=2),
            _lrn("2"),
            _pool("2", rounding="floor"),
            *_conv("3", 256, 384, 3, padding=1),
            *_conv("4", 384, 384, 3, padding=1),
            *_conv("5", 384, 256, 3, padding=1),
            _pool("5", rounding="floor"),
            *_head(6400, 4096),
        ),
    )


def alexnet_tf() -> Network:
    """tf_cnn_benchmarks: 64-192-384-384-256, ungrouped, no norm, 227 pixels."""
    return Network(
        name="alexnet-tf",
        title="tf_cnn_benchmarks' AlexNet: 64-192-384-384-256, no norm",
        input_shape=(3, 227, 227),
        layers=(
            *_conv("1", 3, 64, 11, stride=4),
            _pool("1"),
            *_conv("2", 64, 192, 5, padding=2),
            _pool("2"),
            *_conv("3", 192, 384, 3, padding=1),
            *_conv("4", 384, 384, 3, padding=1),
            *_conv("5", 384, 256, 3, padding=1),
            _pool("5"),
            *_head(9216, 4096),
        ),
    )


def alexnet_fbcunn() -> Network:
    """The example of Facebook's Torch libraries: columns that never meet before fc6, no norm."""
    return Network(
        name="alexnet-fbcunn",
        title="fbcunn's AlexNet: two columns that meet in fc6, no norm",
        input_shape=(3, 224, 224),
        columns=2,
        layers=(
            *_conv("1", 3, 48, 11, stride=4, padding=2),
            _pool("1"),
            *_conv("2", 48, 128, 5, padding=2),
            _pool("2"),
            *_conv("3", 128, 192, 3, padding=1),
            *_conv("4", 192, 192, 3, padding=1),
            *_conv("5", 192, 128, 3, padding=1),
            _pool("5"),
            *_head(9216, 4096, columns=2),
        ),
    )


def overfeat_fast() -> Network:
    """OverFeat's fast model as convnet-benchmarks runs it: 231 pixels, no norm, no dropout."""
    return Network(
        name="overfeat-fast",
        title="OverFeat, fast model",
        input_shape=(3, 231, 231),
        layers=(
            *_conv("1", 3, 96, 11, stride=4),
            _pool("1", 2),
            *_conv("2", 96, 256, 5),
            _pool("2", 2),
            *_conv("3", 256, 512, 3, padding=1),
            *_conv("4", 512, 1024, 3, padding=1),
            *_conv("5", 1024, 1024, 3, padding=1),
            _pool("5", 2),
            *_head(36_864, 3072, second=4096, dropout=False),
        ),
    )


def vgg_a() -> Network:
    """VGG-A of eleven layers, as convnet-benchmarks runs it: no dropout."""
    layers: list[Layer] = []
    inputs = 3
    for block, filters in enumerate(((64,), (128,), (256, 256), (512, 512), (512, 512)), start=1):
        for index, count in enumerate(filters, start=1):
            layers += _conv(f"{block}_{index}", inputs, count, 3, padding=1)
            inputs = count
        layers.append(_pool(str(block), 2))
    return Network(
        name="vgg-a",
        title="VGG-A, eleven layers",
        input_shape=(3, 224, 224),
        layers=(*layers, *_head(25_088, 4096, dropout=False)),
    )


def vgg_f() -> Network:
    """VGG-F ("fast")."""
    return _chatfield("vgg-f", "VGG-F, the fast one", (64, 11, 4, 0), (256, 5, 1, 2), 256)


def vgg_m() -> Network:
    """VGG-M ("medium")."""
    return _chatfield("vgg-m", "VGG-M, the medium one", (96, 7, 2, 0), (256, 5, 2, 1), 512)


def vgg_s() -> Network:
    """VGG-S ("slow")."""
    return Network(
        name="vgg-s",
        title="VGG-S, the slow one",
        input_shape=(3, 224, 224),
        layers=(
            *_conv("1", 3, 96, 7, stride=2),
            _lrn("1"),
            _pool("1", 3, 3, rounding="ceil"),
            *_conv("2", 96, 256, 5),
            _pool("2", 2, rounding="ceil"),
            *_conv("3", 256, 512, 3, padding=1),
            *_conv("4", 512, 512, 3, padding=1),
            *_conv("5", 512, 512, 3, padding=1),
            _pool("5", 3, 3, rounding="ceil"),
            *_head(18_432, 4096),
        ),
    )


def cifar10_quick() -> Network:
    """Caffe's cifar10_quick ("SmallNet" in PaddlePaddle's benchmark)."""
    return Network(
        name="cifar10-quick",
        title="Caffe's cifar10_quick",
        input_shape=(3, 32, 32),
        layers=(
            Convolution(name="conv1", filters=32, size=5, padding=2, weight_std=_he(75)),
            MaxPool(name="pool1", size=3, stride=2, rounding="ceil"),
            ReLU(name="relu1"),
            *_conv("2", 32, 32, 5, padding=2),
            AveragePool(name="pool2", size=3, stride=2, rounding="ceil"),
            *_conv("3", 32, 64, 5, padding=2),
            AveragePool(name="pool3", size=3, stride=2, rounding="ceil"),
            FullyConnected(name="fc4", units=64, weight_std=_he(1024)),
            FullyConnected(name="fc5", units=10, weight_std=_he(64)),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )


def fcn_5() -> Network:
    """Three hidden layers of 2048 sigmoids, between 512 values and 1000 classes."""
    return _sigmoids("fcn-5", 3)


def fcn_8() -> Network:
    """The same with six hidden layers."""
    return _sigmoids("fcn-8", 6)


def _sigmoids(name: str, hidden: int) -> Network:
    layers: list[Layer] = []
    inputs, units = 512, 2048
    for index in range(1, hidden + 1):
        layers += [
            FullyConnected(name=f"fc{index}", units=units, weight_std=4 * inputs**-0.5),
            Sigmoid(name=f"sigmoid{index}"),
        ]
        inputs = units
    last = FullyConnected(name=f"fc{hidden + 1}", units=1000, weight_std=inputs**-0.5)
    return Network(
        name=name,
        title=f"{name.upper()}: {hidden} hidden layers of sigmoids on 512 values, no images",
        input_shape=(512,),
        layers=(*layers, last, SoftmaxCrossEntropy(name="softmax")),
    )


def _grouped(name: str, title: str, *, norm_first: bool = True, groups: int = 2) -> Network:
    def shrink(index: str) -> tuple[Layer, ...]:
        pair = (_lrn(index), _pool(index))
        return pair if norm_first else pair[::-1]

    return Network(
        name=name,
        title=title,
        input_shape=(3, 227, 227),
        layers=(
            *_conv("1", 3, 96, 11, stride=4),
            *shrink("1"),
            *_conv("2", 96, 256, 5, padding=2, groups=groups),
            *shrink("2"),
            *_conv("3", 256, 384, 3, padding=1),
            *_conv("4", 384, 384, 3, padding=1, groups=groups),
            *_conv("5", 384, 256, 3, padding=1, groups=groups),
            _pool("5"),
            *_head(9216, 4096),
        ),
    )


def _chatfield(
    name: str,
    title: str,
    first: tuple[int, int, int, int],
    second: tuple[int, int, int, int],
    filters: int,
) -> Network:
    """VGG-F and -M: five convolutions; ``first`` and ``second`` are filters, size, stride, pad."""
    f1, size1, stride1, pad1 = first
    f2, size2, stride2, pad2 = second
    return Network(
        name=name,
        title=title,
        input_shape=(3, 224, 224),
        layers=(
            *_conv("1", 3, f1, size1, stride=stride1, padding=pad1),
            _lrn("1"),
            _pool("1", rounding="ceil"),
            *_conv("2", f1, f2, size2, stride=stride2, padding=pad2),
            _lrn("2"),
            _pool("2", rounding="ceil"),
            *_conv("3", f2, filters, 3, padding=1),
            *_conv("4", filters, filters, 3, padding=1),
            *_conv("5", filters, filters, 3, padding=1),
            _pool("5", rounding="ceil"),
            *_head(36 * filters, 4096),
        ),
    )


def _conv(
    index: str,
    inputs: int,
    filters: int,
    size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Iterator[Layer]:
    yield Convolution(
        name=f"conv{index}",
        filters=filters,
        size=size,
        stride=stride,
        padding=padding,
        groups=groups,
        rounding="floor",
        weight_std=_he(inputs // groups * size * size),
    )
    yield ReLU(name=f"relu{index}")


def _head(
    inputs: int, units: int, *, second: int | None = None, dropout: bool = True, columns: int = 1
) -> Iterator[Layer]:
    """Three fully connected layers; they read every column, and stand in the first."""

    def fc(index: int, count: int, std: float) -> FullyConnected:
        standing = count if columns == 1 else (count, *[0] * (columns - 1))
        reads: Reads = "own" if columns == 1 else "all"
        return FullyConnected(name=f"fc{index}", units=standing, reads=reads, weight_std=std)

    second = second or units
    for index, (fan_in, count) in ((6, (inputs, units)), (7, (units, second))):
        yield fc(index, count, _he(fan_in))
        yield ReLU(name=f"relu{index}")
        if dropout:
            yield Dropout(name=f"dropout{index}")
    yield fc(8, 1000, 0.01)
    yield SoftmaxCrossEntropy(name="softmax")


def _lrn(index: str) -> LocalResponseNorm:
    return LocalResponseNorm(name=f"norm{index}", alpha=1e-4 / 5, k=1.0)


def _pool(index: str, size: int = 3, stride: int = 2, *, rounding: _Rounding = "exact") -> MaxPool:
    return MaxPool(name=f"pool{index}", size=size, stride=stride, rounding=rounding)


def _he(fan_in: int) -> float:
    return float((2 / fan_in) ** 0.5)
