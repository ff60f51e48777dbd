"""A graph of layers as it is written: every method adds to its end, and names what it added.

First weights are normal here. Where a library draws them from a uniform distribution, they have
its standard deviation; torchvision's truncation of normal distributions lies twenty deviations and
more out. Biases start at 0, also where ``torch.nn`` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from alexsim.network.layers import (
    BatchNorm,
    Concat,
    Convolution,
    FullyConnected,
    Layer,
    Pair,
    ReLU,
    ReLU6,
    Shape,
    SiLU,
    SoftmaxCrossEntropy,
    pair,
)
from alexsim.network.network import Network
from alexsim.network.part import INPUT

IMAGENET = (3, 224, 224)
CLASSES = 1000

Deviation = Callable[[int, int], float]
"""Standard deviation of first weights, of the fan-in and the fan-out."""
Activation = type[ReLU] | type[ReLU6] | type[SiLU]


def he_fan_in(fan_in: int, fan_out: int) -> float:
    """He et al. 2015, equation 10: signals keep their variance."""
    del fan_out
    return float((2 / fan_in) ** 0.5)


def he_fan_out(fan_in: int, fan_out: int) -> float:
    """He et al. 2015, equation 14: gradients keep their variance."""
    del fan_in
    return float((2 / fan_out) ** 0.5)


def torch_default(fan_in: int, fan_out: int) -> float:
    """Of ``torch.nn.Conv2d`` and ``Linear`` as they are built: uniform within fan-in ** -0.5."""
    del fan_out
    return float((3 * fan_in) ** -0.5)


def always(std: float) -> Deviation:
    """The same deviation in every layer."""
    return lambda *_: std


class Graph:
    """Layers in the order in which they are added.

    Args:
        first_weights: of convolutions.
        epsilon, momentum: of batch normalisations.
        normalised: whether units have them; else their convolutions have biases.
    """

    def __init__(
        self,
        input_shape: Shape,
        first_weights: Deviation,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        normalised: bool = True,
    ) -> None:
        self._input_shape, self._first_weights = input_shape, first_weights
        self._epsilon, self._momentum, self._normalised = epsilon, momentum, normalised
        self._layers: list[Layer] = []
        self._shapes: dict[str, Shape] = {INPUT: input_shape}

    @property
    def last(self) -> str:
        """The layer added last; the images, before there is one."""
        return self._layers[-1].name if self._layers else INPUT

    def channels(self, name: str = "") -> int:
        """Channels of a layer's output; of the last layer's, if none is named."""
        return self._shapes[name or self.last][0]

    def add(self, *layers: Layer) -> str:
        """Append layers; each reads the layer before it, unless it names its inputs."""
        for layer in layers:
            shapes = [self._shapes[name] for name in layer.inputs or (self.last,)]
            self._shapes[layer.name] = layer.output_shape(layer.input_shape(shapes))
            self._layers.append(layer)
        return self.last

    def conv(
        self,
        name: str,
        filters: int,
        size: Pair,
        *,
        after: str = "",
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> str:
        """A convolution; most have no bias, as a batch normalisation follows."""
        taps = math.prod(pair(size))
        fans = self.channels(after) // groups * taps, filters * taps
        layer = Convolution(
            name=name,
            inputs=self._reads(after),
            filters=filters,
            size=size,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=bias,
            rounding="floor",
            weight_std=self._first_weights(*fans),
        )
        return self.add(layer)

    def batch_norm(self, name: str, after: str = "") -> str:
        """A batch normalisation."""
        return self.add(
            BatchNorm(
                name=name,
                inputs=self._reads(after),
                epsilon=self._epsilon,
                momentum=self._momentum,
            )
        )

    def unit(
        self,
        name: str,
        filters: int,
        size: Pair,
        *,
        activation: Activation | None = ReLU,
        after: str = "",
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
    ) -> str:
        """A convolution, its batch normalisation and a non-linearity, named after their kinds."""
        self.conv(
            f"{name}_conv", filters, size,
            after=after, stride=stride, padding=padding, groups=groups, bias=not self._normalised,
        )  # fmt: skip
        if self._normalised:
            self.batch_norm(f"{name}_bn")
        if activation:
            self.add(activation(name=f"{name}_{activation.__name__.lower()}"))
        return self.last

    def concat(self, name: str, *inputs: str) -> str:
        """Outputs, channels behind channels."""
        return self.add(Concat(name=name, inputs=inputs))

    def fully_connected(
        self, name: str, units: int, first_weights: Deviation = torch_default
    ) -> str:
        """A fully connected layer."""
        fan_in = math.prod(self._shapes[self.last])
        return self.add(
            FullyConnected(name=name, units=units, weight_std=first_weights(fan_in, units))
        )

    def network(self, name: str, title: str) -> Network:
        """The network, with a softmax at its end."""
        self.add(SoftmaxCrossEntropy(name="softmax"))
        return Network(
            name=name, title=title, input_shape=self._input_shape, layers=tuple(self._layers)
        )

    def _reads(self, after: str) -> tuple[str, ...]:
        return (after,) if after and after != self.last else ()
