"""What the shipped fit has seen, and how far off it was where it had not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from alexsim.machine.device import Platform

Unit = Literal["network", "layer", "convolution", "product", "memory"]
"""What was timed: a whole network, a layer of one inside a framework, or a kernel by itself."""
PLURAL: Mapping[Unit, str] = {
    "network": "networks", "layer": "layers", "convolution": "convolutions",
    "product": "products", "memory": "memory ops",
}  # fmt: skip
NotNegative = Annotated[float, Ge(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorClass:
    """Errors of predictions of one kind, each by a fit that had not seen what the class says."""

    unit: Unit
    device_seen: bool
    library_seen: bool
    """Of a kernel: the source with its timer."""
    reduced: bool
    """Whether precision was less than float32."""
    platform: Platform
    """Of the devices."""
    rows: int
    median: NotNegative
    mean: NotNegative
    noise: NotNegative
    """Standard deviation of a normal distribution that holds nine logarithms in ten where these
    lie."""

    @property
    def words(self) -> str:
        """What the class says, in words."""
        seen = {True: "seen", False: "never seen"}
        precision = ", reduced precision" if self.reduced else ""
        named = {"cuda": "card", "hip": "AMD card", "cpu": "CPU"}[self.platform]
        device = f"{named} {seen[self.device_seen]}"
        whose = "library" if self.unit in ("network", "layer") else "timer"
        return f"{PLURAL[self.unit]}, {device}, {whose} {seen[self.library_seen]}{precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A line of the table of what was left out: errors of several models on the same rows.

    Errors are means over each device with each source, of their median and mean error.
    """

    what: str
    """Convolutions, products, memory ops, layers or networks."""
    left_out: str
    """What the fits had not seen."""
    groups: int
    rows: int
    median: NotNegative
    mean: NotNegative
    mechanism_median: NotNegative
    mechanism_mean: NotNegative
    roofline_median: NotNegative
    roofline_mean: NotNegative
    coverage: NotNegative


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Of a fit: its data, what they were of, its errors."""

    fitted_to: str
    data: Mapping[str, str]
    """SHA-256 of each file that taught, by name."""
    noise: NotNegative
    roofline_noise: NotNegative
    """The same scatter around the roofline, which nothing corrects."""
    devices: Mapping[str, int]
    """Rows that taught, by the device's name."""
    libraries: Mapping[str, int]
    kernel_sources: Mapping[str, int]
    """Rows of kernels that taught, by source."""
    classes: tuple[ErrorClass, ...]
    left_out: tuple[LeftOut, ...]

    def error_of(
        self,
        unit: Unit,
        *,
        device_seen: bool,
        library_seen: bool,
        reduced: bool,
        platform: Platform = "cuda",
    ) -> ErrorClass | None:
        """The class of a prediction; the nearest that has rows: rather a class that knew less.

        Of whole networks and layers on other makers' devices too few were measured: the class is
        that of their convolutions.
        """
        if platform != "cuda" and unit in ("network", "layer"):
            unit = "convolution"
        of = {
            (c.device_seen, c.library_seen, c.reduced): c
            for c in self.classes
            if (c.unit, c.platform) == (unit, platform)
        }
        for key in (
            (device_seen, library_seen, reduced),
            (device_seen and library_seen, False, reduced),
            (False, library_seen, reduced),
            (False, False, reduced),
            (device_seen, library_seen, not reduced),
            (False, True, not reduced),
            (True, True, not reduced),
        ):
            if key in of:
                return of[key]
        return None


EMPTY = Card(
    fitted_to="nothing",
    data={},
    noise=0.15,
    roofline_noise=0.15,
    devices={},
    libraries={},
    kernel_sources={},
    classes=(),
    left_out=(),
)
"""Of a mechanism alone."""
