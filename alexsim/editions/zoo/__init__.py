"""The networks that came after AlexNet, as torchvision defines them.

Layers are named after torchvision's modules, with ``_`` for its ``.``, which separates a layer
from its column and its parameter here. Weighted layers stand in the order of its ``state_dict``.
"""

from alexsim.editions.zoo.densenet import densenet121
from alexsim.editions.zoo.inception import googlenet, googlenet_heads, inception_v3
from alexsim.editions.zoo.inverted import efficientnet_b0, mobilenet_v2
from alexsim.editions.zoo.plain import squeezenet1_1, vgg16
from alexsim.editions.zoo.resnet import resnet18, resnet50

__all__ = [
    "densenet121", "efficientnet_b0", "googlenet", "googlenet_heads", "inception_v3",
    "mobilenet_v2", "resnet18", "resnet50", "squeezenet1_1", "vgg16",
]  # fmt: skip
