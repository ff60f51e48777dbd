"""AlexNet as it was run, as it was written up, its relatives, and LeNet-5.

Sources: *paper* is Krizhevsky, Sutskever, Hinton, NIPS 2012; *as run* is the source that the
Computer History Museum released in 2025 (net #145 and its sisters), facts only.
"""

from __future__ import annotations

from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Network

IMAGENET = (3, 224, 224)


def alexnet_2012() -> Network:
    """Net #145 as it was run: the first norm sees signed values, a spatial norm follows norm2."""
    return Network(
        name="alexnet-2012",
        title="AlexNet as it was run in 2012, two columns",
        input_shape=IMAGENET,
        columns=2,
        layers=(
            *_convolutions_as_run(),
            *_fully_connected(units=2048, classes=(1000, 0)),
        ),
    )


def alexnet_1gpu() -> Network:
    """Net #145-half, the paper's one-GPU comparison (section 3.2)."""
    return Network(
        name="alexnet-1gpu",
        title="AlexNet for one GPU: half of conv1-conv4, whole conv5 and fc layers",
        input_shape=IMAGENET,
        columns=1,
        layers=(
            *_convolutions_as_run(conv5=256),
            *_fully_connected(units=4096, classes=1000),
        ),
    )


def alexnet_6conv() -> Network:
    """Net #146: a sixth convolution after the last pool, 21,843 classes over both GPUs.

    Its last layer reads both columns through a linear bottleneck of 2 x 1024 units.
    """
    return Network(
        name="alexnet-6conv",
        title="AlexNet with six convolutions, for 21,843 classes, two columns",
        input_shape=IMAGENET,
        columns=2,
        layers=(
            *_convolutions_as_run(),
            Convolution(
                name="conv6",
                filters=128,
                size=3,
                padding=1,
                reads="all",
                weight_std=0.03,
                bias_init=1,
            ),
            ReLU(name="relu_conv6"),
            *_fully_connected(
                units=2048,
                classes=(10_921, 10_922),
                bottleneck=(FullyConnected(name="bottleneck", units=1024, reads="all"),),
            ),
        ),
    )


def alexnet_paper() -> Network:
    """The NIPS 2012 text: ReLU before norm, alpha 1e-4, sigma 0.01 everywhere."""
    return Network(
        name="alexnet-paper",
        title="AlexNet as the NIPS 2012 paper describes it, two columns",
        input_shape=IMAGENET,
        columns=2,
        layers=(
            Convolution(name="conv1", filters=48, size=11, stride=4),
            ReLU(name="relu1"),
            LocalResponseNorm(name="norm1"),
            MaxPool(name="pool1", size=3, stride=2),
            Convolution(name="conv2", filters=128, size=5, padding=2, bias_init=1),
            ReLU(name="relu2"),
            LocalResponseNorm(name="norm2"),
            MaxPool(name="pool2", size=3, stride=2),
            Convolution(name="conv3", filters=192, size=3, padding=1, reads="all"),
            ReLU(name="relu3"),
            Convolution(name="conv4", filters=192, size=3, padding=1, bias_init=1),
            ReLU(name="relu4"),
            Convolution(name="conv5", filters=128, size=3, padding=1, bias_init=1),
            ReLU(name="relu5"),
            MaxPool(name="pool5", size=3, stride=2),
            *_fully_connected(units=2048, classes=(1000, 0)),
        ),
    )


def alexnet_owt() -> Network:
    """The one-column net of 2014 ("One weird trick", Krizhevsky 2014): 64-192-384-256-256.

    This is the net behind the articles' "about 1.43 GFLOPs". Weights start at He's deviation
    (He et al. 2015): the text gives none.
    """

    def conv(
        name: str, inputs: int, filters: int, size: int, *, padding: int, stride: int = 1
    ) -> Convolution:
        return Convolution(
            name=name,
            filters=filters,
            size=size,
            rounding="floor",
            weight_std=_he(inputs * size * size),
            stride=stride,
            padding=padding,
        )

    def fc(name: str, inputs: int, units: int) -> FullyConnected:
        return FullyConnected(name=name, units=units, weight_std=_he(inputs))

    return Network(
        name="alexnet-owt",
        title="AlexNet in one column, 2014 (64-192-384-256-256)",
        input_shape=IMAGENET,
        columns=1,
        layers=(
            conv("conv1", 3, 64, 11, stride=4, padding=2),
            ReLU(name="relu1"),
            MaxPool(name="pool1", size=3, stride=2),
            conv("conv2", 64, 192, 5, padding=2),
            ReLU(name="relu2"),
            MaxPool(name="pool2", size=3, stride=2),
            conv("conv3", 192, 384, 3, padding=1),
            ReLU(name="relu3"),
            conv("conv4", 384, 256, 3, padding=1),
            ReLU(name="relu4"),
            conv("conv5", 256, 256, 3, padding=1),
            ReLU(name="relu5"),
            MaxPool(name="pool5", size=3, stride=2),
            fc("fc6", 9216, 4096),
            ReLU(name="relu6"),
            Dropout(name="dropout6"),
            fc("fc7", 4096, 4096),
            ReLU(name="relu7"),
            Dropout(name="dropout7"),
            FullyConnected(name="fc8", units=1000),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )


def lenet_5() -> Network:
    """LeNet-5 as the articles draw it beside AlexNet: 28 x 28 grey images, sigmoid, mean pools.

    LeCun et al. 1998 ("Efficient BackProp") start weights at deviation ``fan_in ** -0.5``, for a
    tanh whose slope at 0 is about 1. A sigmoid's is 1/4: with weights four times as large (after
    Glorot & Bengio 2010) signals and gradients keep their size through the layers. Otherwise the
    output is the same for every image, and nothing is learnt.
    """

    def std(fan_in: int) -> float:
        return float(4 * fan_in**-0.5)

    return Network(
        name="lenet-5",
        title="LeNet-5, one column",
        input_shape=(1, 28, 28),
        columns=1,
        layers=(
            Convolution(name="conv1", filters=6, size=5, padding=2, weight_std=std(25)),
            Sigmoid(name="sigmoid1"),
            AveragePool(name="pool1", size=2, stride=2),
            Convolution(name="conv2", filters=16, size=5, weight_std=std(150)),
            Sigmoid(name="sigmoid2"),
            AveragePool(name="pool2", size=2, stride=2),
            FullyConnected(name="fc3", units=120, weight_std=std(400)),
            Sigmoid(name="sigmoid3"),
            FullyConnected(name="fc4", units=84, weight_std=std(120)),
            Sigmoid(name="sigmoid4"),
            FullyConnected(name="fc5", units=10, weight_std=84**-0.5),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )


def _convolutions_as_run(*, conv5: int = 128) -> tuple[Layer, ...]:
    """Layers up to the last pool, as run: deviation 0.03 in conv3-conv5, ReLU after pools."""
    # The file's LRN scale 1e-4 is divided by the window: alpha is 1e-4 / 5 per summed square;
    # the spatial norm's 1e-3 by its 25 pixels.
    return (
        Convolution(name="conv1", filters=48, size=11, stride=4),
        LocalResponseNorm(name="norm1", alpha=1e-4 / 5),
        _pool("pool1"),
        ReLU(name="relu1"),
        Convolution(name="conv2", filters=128, size=5, padding=2, bias_init=1),
        ReLU(name="relu2"),
        LocalResponseNorm(name="norm2", alpha=1e-4 / 5),
        SpatialResponseNorm(name="spatial_norm2", alpha=1e-3 / 25),
        _pool("pool2"),
        Convolution(name="conv3", filters=192, size=3, padding=1, reads="all", weight_std=0.03),
        ReLU(name="relu3"),
        Convolution(name="conv4", filters=192, size=3, padding=1, weight_std=0.03, bias_init=1),
        ReLU(name="relu4"),
        Convolution(name="conv5", filters=conv5, size=3, padding=1, weight_std=0.03, bias_init=1),
        _pool("pool5"),
        ReLU(name="relu5"),
    )


def _fully_connected(
    *, units: int, classes: int | tuple[int, ...], bottleneck: tuple[Layer, ...] = ()
) -> tuple[Layer, ...]:
    return (
        FullyConnected(name="fc6", units=units, reads="all", bias_init=1),
        ReLU(name="relu6"),
        Dropout(name="dropout6"),
        FullyConnected(name="fc7", units=units, reads="all", bias_init=1),
        ReLU(name="relu7"),
        Dropout(name="dropout7"),
        *bottleneck,
        FullyConnected(name="fc8", units=classes, reads="all"),
        SoftmaxCrossEntropy(name="softmax"),
    )


def _pool(name: str) -> MaxPool:
    return MaxPool(name=name, size=3, stride=2, ties="all")


def _he(fan_in: int) -> float:
    return float((2 / fan_in) ** 0.5)
