"""Convolutions to check and time: AlexNet's, or one's own from a command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

ORDER = "N,C,H,W,K,R,S,STRIDE,PAD,GROUPS"


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One shape: ``[N, C, H, W]`` by ``[K, C / groups, R, S]`` to ``[N, K, P, Q]``.

    Raises:
        ValueError: there is no such convolution.
    """

    channels: int
    extent: tuple[int, int]
    filters: int
    taps: tuple[int, int]
    stride: int = 1
    padding: int = 0
    groups: int = 1
    out: tuple[int, int] = (0, 0)
    """If not given, as many windows as stand on the padded image."""
    first: bool = False
    """The input is images, also if it has more channels than three."""

    def __post_init__(self) -> None:
        if self.channels % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide {self.channels} channels and"
                f" {self.filters} filters"
            )
        if self.out == (0, 0):
            down, across = (
                (extent + 2 * self.padding - taps) // self.stride + 1
                for extent, taps in zip(self.extent, self.taps, strict=True)
            )
            object.__setattr__(self, "out", (down, across))
        if min(self.out) < 1:
            raise ValueError(
                f"taps {self.taps} do not fit {self.extent} pixels padded by {self.padding}"
            )

    @property
    def images_alone(self) -> bool:
        """Whether the input is an image's colours, whose gradient nobody wants."""
        return self.first or self.channels <= 3

    @property
    def overhang(self) -> tuple[int, int]:
        """Rows and columns of the last windows that lie behind the padded image."""
        down, across = (
            max(0, (out - 1) * self.stride + taps - extent - 2 * self.padding)
            for out, taps, extent in zip(self.out, self.taps, self.extent, strict=True)
        )
        return down, across

    def multiply_adds(self, batch: int) -> int:
        """Of a pass, by the direct method."""
        outputs = batch * self.filters * self.out[0] * self.out[1]
        return outputs * (self.channels // self.groups) * self.taps[0] * self.taps[1]


def square(
    channels: int, extent: int, filters: int, taps: int, stride: int, padding: int, out: int
) -> Convolution:
    """The same both ways, in one group; ``out`` says how far windows hang over the edge."""
    return Convolution(
        channels=channels, extent=(extent, extent), filters=filters, taps=(taps, taps),
        stride=stride, padding=padding, out=(out, out),
    )  # fmt: skip


ALEXNET = {
    "conv1": square(3, 224, 48, 11, 4, 0, 55),
    "conv2": square(48, 27, 128, 5, 1, 2, 27),
    "conv3": square(256, 13, 192, 3, 1, 1, 13),
    "conv4": square(192, 13, 192, 3, 1, 1, 13),
    "conv5": square(192, 13, 128, 3, 1, 1, 13),
}
"""One column's."""
CONV1_PADDED = replace(square(4, 224, 48, 11, 4, 0, 55), first=True)
"""conv1 of images that were uploaded with a fourth channel, of zeros: loads are 16 bytes wide."""
RESNET50: dict[str, Convolution] = {
    "stem": square(3, 224, 64, 7, 2, 3, 112),
    "2 in": square(64, 56, 64, 1, 1, 0, 56),
    "2 a": square(256, 56, 64, 1, 1, 0, 56),
    "2 b": square(64, 56, 64, 3, 1, 1, 56),
    "2 c": square(64, 56, 256, 1, 1, 0, 56),
    "3 in": square(256, 56, 128, 1, 1, 0, 56),
    "3 down": square(128, 56, 128, 3, 2, 1, 28),
    "3 side": square(256, 56, 512, 1, 2, 0, 28),
    "3 a": square(512, 28, 128, 1, 1, 0, 28),
    "3 b": square(128, 28, 128, 3, 1, 1, 28),
    "3 c": square(128, 28, 512, 1, 1, 0, 28),
    "4 in": square(512, 28, 256, 1, 1, 0, 28),
    "4 down": square(256, 28, 256, 3, 2, 1, 14),
    "4 side": square(512, 28, 1024, 1, 2, 0, 14),
    "4 a": square(1024, 14, 256, 1, 1, 0, 14),
    "4 b": square(256, 14, 256, 3, 1, 1, 14),
    "4 c": square(256, 14, 1024, 1, 1, 0, 14),
    "5 in": square(1024, 14, 512, 1, 1, 0, 14),
    "5 down": square(512, 14, 512, 3, 2, 1, 7),
    "5 side": square(1024, 14, 2048, 1, 2, 0, 7),
    "5 a": square(2048, 7, 512, 1, 1, 0, 7),
    "5 b": square(512, 7, 512, 3, 1, 1, 7),
    "5 c": square(512, 7, 2048, 1, 1, 0, 7),
}
"""ResNet-50's distinct convolutions: He et al. 2016, table 1, strides in the 3 x 3 convolutions as
torchvision has them."""
SMALL = {
    "conv1": square(3, 19, 8, 7, 4, 0, 4),
    "conv2": square(8, 6, 16, 3, 1, 1, 6),
}
"""Like AlexNet's, for an interpreter: one of colours that hangs over the edge, one at stride 1."""


def own(text: str) -> tuple[int, Convolution]:
    """Images and convolution of ``N,C,H,W,K,R,S,STRIDE,PAD,GROUPS``.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    words = text.split(",")
    try:
        n, c, h, w, k, r, s, stride, padding, groups = map(int, words)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be ten whole numbers {ORDER}, got {text!r}"
        ) from None
    if min(n, c, h, w, k, r, s, stride, groups) < 1 or padding < 0:
        raise argparse.ArgumentTypeError(
            f"must be {ORDER}, all at least 1 and PAD at least 0; got {text!r}"
        )
    try:
        shape = Convolution(
            channels=c, extent=(h, w), filters=k, taps=(r, s), stride=stride, padding=padding,
            groups=groups,
        )  # fmt: skip
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; got {text!r}") from None
    return n, shape


def add_conv(parser: argparse.ArgumentParser) -> None:
    """The option ``--conv``, whose values are pairs of a number of images and a convolution."""
    parser.add_argument(
        "--conv", type=own, action="append", metavar=ORDER, default=[],
        help="a convolution of your own, in place of the network's layers; may be given again",
    )  # fmt: skip
