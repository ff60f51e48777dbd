"""Modules as their users write them: the architectures of ``test_from_torch``."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 10


class Residual(nn.Module):
    """Basic blocks with and without projections, ReLUs in place, the sum in place."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride > 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            out += x if self.downsample is None else self.downsample(x)
            return self.relu(out)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(self.Block(8, 8, 1), self.Block(8, 8, 1))
        self.layer2 = nn.Sequential(self.Block(8, 12, 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


class Dense(nn.Module):
    """Each layer reads all before it; mean pool by hand, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.transition = nn.Conv2d(18, 8, 1)
        self.pool = nn.AvgPool2d(2)
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        x = self.pool(self.transition(torch.cat(features, 1)))
        x = x.mean([2, 3])
        return self.classifier(x.view(x.size(0), -1))


class Inception(nn.Module):
    """Branches of several windows side by side, one rectangular, pools that round up."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1 = nn.Conv2d(3, 4, 1)
        self.branch3 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1))
        self.branch7 = nn.Sequential(
            nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), nn.Conv2d(4, 4, (7, 1), padding=(3, 0))
        )
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.project = nn.Conv2d(3, 3, 1)
        self.down = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.head = nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = [self.branch1(x), self.branch3(x), self.branch7(x), self.project(self.pool(x))]
        return self.head(self.down(F.relu(torch.cat(both, dim=1))))


class Depthwise(nn.Module):
    """Inverted residuals: depthwise convolutions, ReLU6, a sum not in place."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(True)
        )
        self.depth = nn.Sequential(
            nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6()
        )
        self.project = nn.Sequential(nn.Conv2d(12, 3, 1, bias=False), nn.BatchNorm2d(3))
        self.dilated = nn.Conv2d(3, 6, 3, padding=2, dilation=2)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.project(self.depth(self.expand(x)))
        x = F.adaptive_avg_pool2d(F.hardtanh(self.dilated(x), 0.0, 6.0), 1)
        return self.fc(x.flatten(1))


class SqueezeExcite(nn.Module):
    """Excitations by linear layers and by convolutions, SiLU, hard sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.act = nn.SiLU(inplace=True)
        self.fc1, self.fc2 = nn.Linear(8, 2), nn.Linear(2, 8, bias=False)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.hard = nn.Hardswish()
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x))
        n, c = x.shape[:2]
        s = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3)))))).view(n, c, 1, 1)
        x = x * s
        s = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        x = self.hard(s * x)
        return self.fc(x.mean((2, 3)))


class PreActivation(nn.Module):
    """Norm and ReLU before convolutions; the shortcut is read by two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(8, momentum=0.3) for _ in range(3))
        self.conv1 = nn.Conv2d(8, 8, 3, padding="same", bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.fc = nn.Linear(8 * 16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        x = F.avg_pool2d(F.relu(self.norm3(x)), x.shape[-1] // 4)
        return self.fc(x.reshape(x.shape[0], -1))


class Shared(nn.Module):
    """A convolution and a linear layer that are called twice each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.mix = nn.Linear(24, 24)
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.again(torch.tanh(self.again(self.stem(x)))))
        x = self.pool(x).flatten(1)
        x = F.elu(self.mix(x)) + x
        return self.fc(F.leaky_relu(self.mix(x), 0.2))


class TwoHeads(nn.Module):
    """Logits, and those of a second classifier that leaves the trunk early."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(2))
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES))
        self.rest = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU())
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(x)
        return self.fc(self.rest(x).mean((2, 3))), self.aux(x)


class Plain(nn.Module):
    """AlexNet's kinds: response norm, sigmoid, dropout that drops nothing, grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.LocalResponseNorm(5, k=2.0),
            nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Sigmoid(),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(0.0), nn.Linear(8 * 36, 16), nn.ReLU(), nn.Linear(16, CLASSES)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class Frozen(nn.Module):
    """A trunk that does not learn, and a classifier that ends in a log-softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, CLASSES)
        for parameter in self.trunk.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.head(self.trunk(x).mean((2, 3))), dim=1)


class Rows(nn.Module):
    """Images as rows, batch normalisation of units."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(32), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Linear(32, 24, bias=False), nn.Tanh(), nn.Linear(24, CLASSES),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Siblings(nn.Module):
    """Sums of sums, products of branches, one input read by many, softmax over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = self.a(x), self.b(x), self.c(x)
        x = (a + b) + c
        x = x * torch.softmax(self.norm(b), dim=1)
        return self.fc(F.relu(x).mean((2, 3)))


MODELS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        Residual, Dense, Inception, Depthwise, SqueezeExcite, PreActivation, Shared, TwoHeads,
        Plain, Frozen, Rows, Siblings,
    )
}  # fmt: skip


class Attention(nn.Module):
    """A vision transformer's block: what there are no kernels for."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, 16))
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.fc((x + self.mlp(x)).mean(1))


class Windows(nn.Module):
    """Rows of pixels attend to each other but for masked pairs, by their angles; biases are
    computed of parameters alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.bias = nn.Parameter(torch.randn(7, 2))
        self.scale = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        scores = self.scores(F.normalize(x, dim=-1))
        mask = x.new_zeros(7)
        mask[3:] = 1
        mask = mask[:, None] - mask[None]
        scores = scores + mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        return self.fc((x + scores.softmax(-1) @ x).mean((1, 2)))

    def scores(self, y: torch.Tensor) -> torch.Tensor:
        return y @ y.transpose(-2, -1) * self.scale.exp() * 0.5 + self.bias.prod(1)


class Shuffle(nn.Module):
    """Channels shuffled by reshapes and a permutation, halves that go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, dim=1)
        x = torch.cat((left, self.branch(right)), dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(x.mean((2, 3)))


class Volumes(nn.Module):
    """3-D convolutions of clips ``[3, T, H, W]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).mean((2, 3, 4)))


class Signals(nn.Module):
    """1-D convolutions of signals ``[2, T]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 5, 2)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.conv(x)).amax(2))


class Latents(nn.Module):
    """A Perceiver's: learned latents, repeated for every image, look at each other and at patches;
    their values are computed with before anything of the images is."""

    class Attention(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

        def forward(self, x: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                t.unflatten(-1, (2, -1)).transpose(1, 2)
                for t in (self.q(x), self.k(read), self.v(read))
            )
            return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, 6, 16))
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.first, self.cross, self.last = (self.Attention(16) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.latents.expand(x.shape[0], -1, -1)
        z = z + self.first(z, z)
        z = z + self.cross(self.norm(z), self.patch(x).flatten(2).transpose(1, 2))
        return self.fc((z + self.last(z, z)).mean(1))


class Queries(nn.Module):
    """A DETR's decoder: learned queries behind the axis of the sequence, read twice; cross
    attention has one tensor for the weights of queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.queries = nn.Embedding(5, 16)
        layer = nn.TransformerDecoderLayer(16, 2, 24)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory = self.patch(x).flatten(2).permute(2, 0, 1)
        queries = self.queries.weight.unsqueeze(1).repeat(1, len(x), 1)
        answers = self.decoder(torch.zeros_like(queries) + queries, memory)
        return self.fc((answers + queries).mean(0))


class Seeds(nn.Module):
    """A Set Transformer's pooling: seeds look at the patches, once with weights of their own and
    once as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.seeds = nn.Parameter(torch.randn(1, 3, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(48, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        seeds = self.seeds.expand(len(x), -1, -1)
        pooled = self.attention(seeds, patches, patches, need_weights=False)[0] + seeds
        again = self.seeds.repeat(len(x), 1, 1) @ patches.transpose(1, 2)
        return self.fc(self.norm(pooled + again.softmax(-1) @ patches).flatten(1))


class Token(nn.Module):
    """A class token beside the patches, and positions that are repeated for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(17, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        x = x + self.position.expand_as(x)
        return self.fc(self.attention(x, x, x, need_weights=False)[0][:, 0])
