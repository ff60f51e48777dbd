"""The networks after AlexNet, written with plain ``torch.nn`` modules: the judge of our editions.

Nothing here reads alexsim's layer records. Modules, their names and the order of their parameters
are torchvision's. A forward pass returns the logits of every head, the network's answer last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor
Masks = dict[str, Tensor]


class Drop(nn.Module):
    """Dropout, or stochastic depth, by a mask that is given; without one it changes nothing.

    The mask has one value per value of an image, or one per image.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return x
        per_image = (len(x), *[1] * (x.ndim - 1))
        mask = self.mask.view(x.shape if self.mask.numel() == x.numel() else per_image)
        return x * mask / (1 - self.rate)


def give_masks(model: nn.Module, masks: Masks) -> None:
    """Each ``Drop`` takes the mask of its name; without ``masks`` they change nothing."""
    for name, module in model.named_modules():
        if isinstance(module, Drop):
            module.mask = masks[name] if masks else None


def drops(model: nn.Module) -> dict[str, float]:
    """Rates of all ``Drop`` modules by name."""
    return {name: m.rate for name, m in model.named_modules() if isinstance(m, Drop)}


class BasicConv2d(nn.Module):
    """What GoogLeNet and Inception v3 are made of; their batch norms have an epsilon of 0.001."""

    def __init__(self, inputs: int, outputs: int, size: int | tuple[int, int], **fields) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, bias=False, **fields)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def conv_norm(
    inputs: int,
    outputs: int,
    size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """torchvision's ``Conv2dNormActivation``: the padding keeps the extent, there is no bias."""
    layers = [
        nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class VGG(nn.Module):
    """VGG-16 (configuration D), without batch norm."""

    def __init__(self, units: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, units), nn.ReLU(), Drop(0.5),
            nn.Linear(units, units), nn.ReLU(), Drop(0.5),
            nn.Linear(units, 1000),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.classifier(self.avgpool(self.features(x)).flatten(1)),)


class GoogLeNetBlock(nn.Module):
    """Four branches; the third has 3x3 windows where the paper has 5x5, as torchvision does."""

    def __init__(self, inputs: int, *widths: int) -> None:
        super().__init__()
        one, before_three, three, before_five, five, pooled = widths
        self.branch1 = BasicConv2d(inputs, one, 1)
        self.branch2 = nn.Sequential(
            BasicConv2d(inputs, before_three, 1), BasicConv2d(before_three, three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(inputs, before_five, 1), BasicConv2d(before_five, five, 3, padding=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), BasicConv2d(inputs, pooled, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNetHead(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = BasicConv2d(inputs, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, 1000)
        self.dropout = Drop(0.7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, 4))
        return self.fc2(self.dropout(F.relu(self.fc1(x.flatten(1)))))


class GoogLeNet(nn.Module):
    def __init__(self, *, heads: bool) -> None:
        super().__init__()
        pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        block = GoogLeNetBlock
        self.conv1 = BasicConv2d(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = pool()
        self.conv2 = BasicConv2d(64, 64, 1)
        self.conv3 = BasicConv2d(64, 192, 3, padding=1)
        self.maxpool2 = pool()
        self.inception3a = block(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = block(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = pool()
        self.inception4a = block(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = block(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = block(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = block(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = block(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = block(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = block(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = GoogLeNetHead(512) if heads else None
        self.aux2 = GoogLeNetHead(528) if heads else None
        self.dropout = Drop(0.2)
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        a = self.inception4a(x)
        d = self.inception4d(self.inception4c(self.inception4b(a)))
        x = self.maxpool4(self.inception4e(d))
        x = self.inception5b(self.inception5a(x))
        answer = self.fc(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return (self.aux1(a), self.aux2(d), answer) if self.aux1 else (answer,)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class Bottleneck(nn.Module):
    """The stride is that of the 3x3 convolution ("v1.5"), not of the first one."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A convolution where the block changes the shape."""
    return conv_norm(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None


class ResNet(nn.Module):
    def __init__(self, block: type[BasicBlock | Bottleneck], *counts: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(counts):
            blocks = []
            for index in range(count):
                blocks.append(block(inputs, 64 << stage, 2 if stage and not index else 1))
                inputs = block.expansion * 64 << stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return (self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1)),)


class Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1, whose last layer of weights is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
            Fire(64, 16, 64), Fire(128, 16, 64), pool(),
            Fire(128, 32, 128), Fire(256, 32, 128), pool(),
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            Drop(0.5), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.classifier(self.features(x)).flatten(1),)


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        conv = partial(conv_norm, activation=nn.ReLU6)
        self.conv = nn.Sequential(
            *([conv(inputs, width, 1)] if expansion > 1 else []),
            conv(width, width, 3, stride, groups=width),
            *conv_norm(width, outputs, 1),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    STAGES = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip
    """Expansion, outputs, blocks, stride of the first of them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, 2, activation=nn.ReLU6)]
        inputs = 32
        for expansion, outputs, count, stride in self.STAGES:
            for index in range(count):
                step = 1 if index else stride
                layers.append(InvertedResidual(inputs, outputs, step, expansion))
                inputs = outputs
        layers.append(conv_norm(inputs, 1280, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(Drop(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return (self.classifier(x.flatten(1)),)


class DenseLayer(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * 32, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * 32)
        self.conv2 = nn.Conv2d(4 * 32, 32, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, y], 1)


class DenseNet(nn.Module):
    """DenseNet-121: every layer adds 32 maps to all that stand before it in its block."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(64)
        self.features.relu0 = nn.ReLU()
        self.features.pool0 = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for block, count in enumerate((6, 12, 24, 16), 1):
            layers = nn.Sequential()
            for index in range(1, count + 1):
                layers.add_module(f"denselayer{index}", DenseLayer(inputs))
                inputs += 32
            self.features.add_module(f"denseblock{block}", layers)
            if block < 4:
                between = nn.Sequential()
                between.norm = nn.BatchNorm2d(inputs)
                between.relu = nn.ReLU()
                between.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
                between.pool = nn.AvgPool2d(2, 2)
                self.features.add_module(f"transition{block}", between)
                inputs //= 2
        self.features.norm5 = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), 1)
        return (self.classifier(x.flatten(1)),)


class InceptionA(nn.Module):
    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        conv = BasicConv2d
        self.branch1x1 = conv(inputs, 64, 1)
        self.branch5x5_1 = conv(inputs, 48, 1)
        self.branch5x5_2 = conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = conv(inputs, 64, 1)
        self.branch3x3dbl_2 = conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = conv(96, 96, 3, padding=1)
        self.branch_pool = conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.branch1x1(x), five, three, pool], 1)


class InceptionB(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        conv = BasicConv2d
        row, column = {"padding": (0, 3)}, {"padding": (3, 0)}
        self.branch1x1 = conv(inputs, 192, 1)
        self.branch7x7_1 = conv(inputs, width, 1)
        self.branch7x7_2 = conv(width, width, (1, 7), **row)
        self.branch7x7_3 = conv(width, 192, (7, 1), **column)
        self.branch7x7dbl_1 = conv(inputs, width, 1)
        self.branch7x7dbl_2 = conv(width, width, (7, 1), **column)
        self.branch7x7dbl_3 = conv(width, width, (1, 7), **row)
        self.branch7x7dbl_4 = conv(width, width, (7, 1), **column)
        self.branch7x7dbl_5 = conv(width, 192, (1, 7), **row)
        self.branch_pool = conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.branch1x1(x), seven, double, pool], 1)


class InceptionD(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        row, column = {"padding": (0, 1)}, {"padding": (1, 0)}
        self.branch1x1 = BasicConv2d(inputs, 320, 1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, 1)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3), **row)
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1), **column)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, 1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3), **row)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1), **column)
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pool = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                pool,
            ],
            1,
        )


class InceptionHead(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv0 = BasicConv2d(inputs, 128, 1)
        self.conv1 = BasicConv2d(128, 768, 5)
        self.fc = nn.Linear(768, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InceptionV3(nn.Module):
    def __init__(self, *, heads: bool) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = InceptionHead(768) if heads else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.dropout = Drop(0.5)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        e = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(e)))
        answer = self.fc(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return (self.AuxLogits(e), answer) if self.AuxLogits else (answer,)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return torch.sigmoid(scale) * x


class MBConv(nn.Module):
    """Blocks with a shortcut have stochastic depth, of the probability ``drop``."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int, expansion: int, drop: float
    ) -> None:
        super().__init__()
        width = inputs * expansion
        conv = partial(conv_norm, activation=nn.SiLU)
        self.block = nn.Sequential(
            *([conv(inputs, width, 1)] if expansion > 1 else []),
            conv(width, width, size, stride, groups=width),
            SqueezeExcitation(width, inputs // 4),
            conv_norm(width, outputs, 1),
        )
        self.stochastic_depth = Drop(drop) if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return self.stochastic_depth(y) + x if self.stochastic_depth else y


class EfficientNet(nn.Module):
    """EfficientNet-B0."""

    STAGES = (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
    )  # fmt: skip
    """Expansion, window, stride of the first block, outputs, blocks."""

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = [conv_norm(3, 32, 3, 2, activation=nn.SiLU)]
        inputs, before = 32, 0
        total = sum(stage[-1] for stage in self.STAGES)
        for expansion, size, stride, outputs, count in self.STAGES:
            blocks = []
            for index in range(count):
                step = 1 if index else stride
                drop = 0.2 * before / total
                blocks.append(MBConv(inputs, outputs, size, step, expansion, drop))
                inputs, before = outputs, before + 1
            stages.append(nn.Sequential(*blocks))
        stages.append(conv_norm(inputs, 1280, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*stages)
        self.classifier = nn.Sequential(Drop(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return (self.classifier(x.flatten(1)),)


ZOO: dict[str, Callable[[], nn.Module]] = {
    "vgg16": VGG,
    "googlenet": partial(GoogLeNet, heads=False),
    "googlenet-heads": partial(GoogLeNet, heads=True),
    "resnet18": partial(ResNet, BasicBlock, 2, 2, 2, 2),
    "resnet50": partial(ResNet, Bottleneck, 3, 4, 6, 3),
    "squeezenet1_1": SqueezeNet,
    "mobilenet_v2": MobileNetV2,
    "densenet121": DenseNet,
    "inception_v3": partial(InceptionV3, heads=False),
    "efficientnet_b0": EfficientNet,
}
