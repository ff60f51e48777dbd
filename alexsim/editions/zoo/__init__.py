"""The networks that came after AlexNet, as torchvision defines them.

Layers are named after torchvision's modules, with ``_`` for its ``.``, which separates a layer
from its column and its parameter here. Weighted layers stand in the order of its ``state_dict``.
"""

from collections.abc import Callable, Mapping

from alexsim.editions.zoo.densenet import DENSENETS
from alexsim.editions.zoo.inception import INCEPTIONS
from alexsim.editions.zoo.inverted import INVERTED
from alexsim.editions.zoo.plain import SQUEEZENETS, VGGS
from alexsim.editions.zoo.resnet import RESNETS
from alexsim.editions.zoo.shufflenet import SHUFFLENETS
from alexsim.network.network import Network

EDITIONS: Mapping[str, Callable[[], Network]] = {
    **VGGS, **INCEPTIONS, **RESNETS, **DENSENETS, **SQUEEZENETS, **INVERTED, **SHUFFLENETS,
}  # fmt: skip
"""By name, family by family."""
