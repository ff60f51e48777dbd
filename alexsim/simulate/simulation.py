"""Records of a simulation: a step's times by device, layer, op and exchange."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alexsim.errors import ProfileError
from alexsim.trace import Span, Trace

if TYPE_CHECKING:
    from alexsim.costs.precision import Computed
    from alexsim.simulate.evidence import Evidence

ILSVRC_IMAGES, ILSVRC_EPOCHS = 1_281_167, 90
"""An ILSVRC-2012 epoch, and the passes that the paper and its successors trained."""
NINE_IN_TEN = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Bounds that nine figures in ten should lie in."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimes:
    """Seconds of one device in a step.

    ``busy_s`` is computing. Transfers are given whole and, as ``exposed``, where no computing of
    this device hides them. Computing, the exposed transfers and ``idle_s`` fill the step.
    """

    name: str
    busy_s: float
    idle_s: float
    exchange_s: float
    upload_s: float
    all_reduce_s: float = 0.0
    """0 in documents of versions that did not say."""
    exposed_exchange_s: float
    exposed_all_reduce_s: float
    exposed_upload_s: float
    memory_bytes: int
    card: str
    """The name of its sheet."""
    capacity_bytes: int
    """Usable bytes of its memory."""

    @property
    def free_bytes(self) -> int:
        """What is left of it; below 0 where the step does not fit."""
        return self.capacity_bytes - self.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTimes:
    """A transfer between two devices, or a collective in which all take part."""

    name: str
    label: str
    """Which device's values go where."""
    layer: str
    direction: str
    turn: int | None
    """Turn of a hybrid plan; None elsewhere."""
    source: str
    target: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTimes:
    """One op that computes, and what limits most of its time."""

    name: str
    label: str
    """Its purpose among the ops of its layer and column."""
    device: str
    layer: str
    kind: str
    seconds: float
    limit: str
    least_s: float
    """Seconds at the device's peaks, of arithmetic or of memory; 0 where it was measured."""
    flop: float
    """FLOP of the multiply-adds that it does: Winograd and FFT do fewer than a direct
    convolution, which the plan counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """One layer on one device, and what limits most of its time."""

    name: str
    device: str
    forward_s: float
    grad_input_s: float
    grad_weight_s: float
    update_s: float
    limit: str

    @property
    def total_s(self) -> float:
        """All passes."""
        return self.forward_s + self.grad_input_s + self.grad_weight_s + self.update_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticity:
    """What a part of a step's work does to its length: where the part takes 1 % less time, on all
    devices, the step takes ``share`` % less."""

    part: str
    """A layer; or the activity of transfers and barriers, or a stage of the data path."""
    pass_name: str
    """The layer's pass; empty for what is no layer's."""
    share: float
    """All parts' add up to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPathTimes:
    """The hosts' work for a step, beside it: seconds of each stage, all hosts at a time."""

    side: int
    """Side of the square JPEGs that are read, in pixels."""
    images: int
    """Images of the step, on all hosts."""
    disk_s: float
    decode_s: float
    crop_s: float

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, in order."""
        return {"disk": self.disk_s, "decode": self.decode_s, "crop": self.crop_s}

    @property
    def seconds(self) -> float:
        """The slowest stage: batches follow each other at its pace."""
        return max(self.stages.values())

    @property
    def slowest(self) -> str:
        """The name of the slowest stage."""
        return max(self.stages, key=self.stages.__getitem__)

    @property
    def images_per_s(self) -> float:
        """Images that all hosts prepare in a second."""
        return self.images / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A training step on a machine, in seconds of the virtual clock, in steady state.

    ``step_interval`` should hold nine steps in ten of such machines.
    """

    network: str
    machine: str
    library: str
    partition: str
    replicas: int
    """Copies of all columns."""
    devices_count: int
    batch_size: int
    step_s: float
    step_interval: Interval
    step_without_data_s: float
    """The same step with all images ready."""
    forward_s: float
    backward_s: float
    utilisation: float
    """FLOP of the multiply-adds that are done, over those that the peak allows in a step."""
    done_share: float
    """Multiply-adds that are done over those of direct convolution: 1 without Winograd or FFT."""
    ideal_forward_images_per_s: float
    """Forward passes per second if every device did its multiply-adds at its peak."""
    ideal_training_images_per_s: float
    """Images per second that one device at its peak could train; of unlike cards the mean."""
    data_path: DataPathTimes | None
    """None where images are ready."""
    all_reduce_s: float
    devices: tuple[DeviceTimes, ...]
    exchanges: tuple[ExchangeTimes, ...]
    layers: tuple[LayerTimes, ...]
    ops: tuple[OpTimes, ...]
    critical_path: tuple[Span, ...]
    """Spans that make up the step's length: each could start because the span before it ended."""
    elasticities: tuple[Elasticity, ...]
    """In steady state, in no order; parts that do not matter are left out."""
    device_memory_bytes: int
    """Usable bytes of the smallest device's memory."""
    device_flop_per_s: float
    """Float32 peak of the first device, by its sheet."""
    power_w: float
    """Of all devices, by their data sheets."""
    price_usd: float | None
    """Of all devices when they came out; None where a sheet states none."""
    computed: Computed = field(compare=False)
    evidence: Evidence = field(compare=False)
    trace: Trace

    def __post_init__(self) -> None:
        figures = (
            self.step_s, self.step_interval.low, self.step_interval.high, self.forward_s,
            self.backward_s, self.utilisation, self.ideal_forward_images_per_s,
            self.ideal_training_images_per_s, self.host_s, self.all_reduce_s,
        )  # fmt: skip
        if not (all(math.isfinite(figure) for figure in figures) and self.step_s > 0):
            raise ProfileError(
                f"{self.network} on {self.machine} has no finite time: a number of the machine is"
                " too large or too small"
            )

    @property
    def fits(self) -> bool:
        """Whether every device's plan and context fit its memory; time does not depend on it."""
        return self.fullest.free_bytes >= 0

    @property
    def fullest(self) -> DeviceTimes:
        """The device with the least memory left."""
        return min(self.devices, key=lambda device: device.free_bytes)

    @property
    def unlike(self) -> bool:
        """Whether its devices are cards of several kinds."""
        return len({device.card for device in self.devices}) > 1

    @property
    def host_s(self) -> float:
        """The slowest stage of the data path; it sets the pace where it is longer than the step."""
        return self.data_path.seconds if self.data_path else 0.0

    @property
    def issue_s(self) -> float:
        """Seconds of the step in which the host, issuing ops in order, sets the devices' pace."""
        issued = (s for s in self.critical_path if s.activity == "host" and s.device != "host")
        return sum(span.duration_s for span in issued)

    @property
    def data_bound(self) -> bool:
        """Whether the data path sets the pace, not the devices."""
        return self.host_s > self.step_s * 0.999

    @property
    def utilisation_counts(self) -> str:
        """Which multiply-adds ``utilisation`` and the ideal rates count: those of ``direct``
        convolution, or the ``reduced`` number that Winograd or FFT leave."""
        return "reduced" if self.done_share < 1 else "direct"

    @property
    def images_per_s(self) -> float:
        """Images of all devices per second."""
        return self.batch_size / self.step_s

    def training_days(self, images: int, epochs: int) -> float:
        """Days of ``epochs`` passes over ``images``."""
        return epochs * (images / self.batch_size) * self.step_s / 86_400

    def training_days_interval(self, images: int, epochs: int) -> Interval:
        """Bounds of those days."""
        steps = epochs * images / self.batch_size / 86_400
        return Interval(low=steps * self.step_interval.low, high=steps * self.step_interval.high)
