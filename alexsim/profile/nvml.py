"""The state of the cards while something runs on them, from NVIDIA's management library.

A thread samples a few times per second: utilisation, memory, power, clocks and what holds them
down, temperature, PCIe throughput. Where there is no NVML, or it refuses, ``Sampler.why`` says so
in a line and nothing else changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

_INTERVAL_S = 0.25
"""PCIe throughput alone takes NVML 20 ms per question and direction."""
_KILO = 1024
"""NVML counts PCIe throughput in KB/s."""
_THROTTLE = {
    0x001: "idle",
    0x002: "clocks as set",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "temperature, by software",
    0x040: "temperature, by hardware",
    0x080: "power brake",
    0x100: "display clocks",
}
"""Bits of ``nvmlClocksThrottleReasons`` (nvml.h): why a card's clocks are below its highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One card at one time; None where NVML does not report it.

    ``time_s`` since sampling began; utilisation 0...1; clocks in MHz; power in watts; temperature
    in degrees Celsius; ``throttle`` says what holds the clocks down.
    """

    time_s: float
    card: int
    utilisation: float | None
    memory_bytes: int | None
    power_w: float | None
    sm_mhz: int | None
    memory_mhz: int | None
    pcie_sent_bytes_per_s: int | None
    pcie_received_bytes_per_s: int | None
    temperature_c: int | None = None
    throttle: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy that the cards used while they were sampled."""

    joules: float
    source: str
    """``counter`` of the cards, or ``power`` samples added up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The cards while ``images`` were trained on."""

    cards: tuple[str, ...]
    why: str
    """Why there are no samples; empty where there are."""
    samples: tuple[Sample, ...]
    energy: Energy | None
    images: int

    @property
    def joules_per_image(self) -> float | None:
        """Energy of the cards over the images, where the cards report it."""
        return self.energy.joules / self.images if self.energy and self.images else None


class Sampler:
    """Samples every card from ``__enter__`` to ``__exit__``.

    Args:
        sink: gets every sample, on the sampling thread.
    """

    def __init__(self, sink: Callable[[Sample], None]) -> None:
        self.why = ""
        """Why there are no samples; empty where there are."""
        self.names: tuple[str, ...] = ()
        self._sink = sink
        self._nvml: Any = None
        self._cards: list[Any] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began_s = 0.0
        self._counters: list[int] | None = None
        self._joules = 0.0
        self._energy: Energy | None = None

    @property
    def energy(self) -> Energy | None:
        """Known after ``__exit__``, where the cards report it."""
        return self._energy

    def __enter__(self) -> Sampler:
        try:
            import pynvml
        except ImportError:
            self.why = "no pynvml: pip install nvidia-ml-py"
            return self
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            self.names = tuple(_text(pynvml.nvmlDeviceGetName(card)) for card in self._cards)
        except pynvml.NVMLError as error:
            self.why = f"NVML: {error}"
            return self
        self._nvml = pynvml
        self._counters = self._energy_counters()
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        after = self._energy_counters()
        self._stop.set()
        self._thread.join()
        if self._counters is not None and after is not None:
            used = sum(b - a for a, b in zip(self._counters, after, strict=True))
            self._energy = Energy(joules=used / 1e3, source="counter")
        elif self._joules:
            self._energy = Energy(joules=self._joules, source="power")
        self._nvml.nvmlShutdown()

    def _run(self) -> None:
        before, last = 0.0, False
        while True:
            now = time.monotonic() - self._began_s
            for index, card in enumerate(self._cards):
                sample = self._sample(index, card, now)
                self._joules += (sample.power_w or 0.0) * (now - before)
                self._sink(sample)
            if last:
                return
            before = now
            # Once more at the end: power is added up over all of the time.
            last = self._stop.wait(_INTERVAL_S)

    def _sample(self, index: int, card: Any, now: float) -> Sample:
        nvml = self._nvml
        used = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(card).gpu)
        power = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(card))
        sent = self._ask(
            lambda: nvml.nvmlDeviceGetPcieThroughput(card, nvml.NVML_PCIE_UTIL_TX_BYTES)
        )
        received = self._ask(
            lambda: nvml.nvmlDeviceGetPcieThroughput(card, nvml.NVML_PCIE_UTIL_RX_BYTES)
        )
        held = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card))
        return Sample(
            time_s=round(now, 3),
            card=index,
            utilisation=None if used is None else used / 100,
            memory_bytes=self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(card).used),
            power_w=None if power is None else power / 1e3,
            sm_mhz=self._ask(lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),
            memory_mhz=self._ask(lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM)),
            pcie_sent_bytes_per_s=None if sent is None else sent * _KILO,
            pcie_received_bytes_per_s=None if received is None else received * _KILO,
            temperature_c=self._ask(
                lambda: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)
            ),
            throttle=None if held is None else reasons(held),
        )

    def _energy_counters(self) -> list[int] | None:
        """Millijoules of every card since its driver was loaded; None if a card has no counter."""
        counters = [
            self._ask(partial(self._nvml.nvmlDeviceGetTotalEnergyConsumption, card))
            for card in self._cards
        ]
        known = [value for value in counters if value is not None]
        return known if known and len(known) == len(counters) else None

    def _ask(self, question: Callable[[], int]) -> int | None:
        try:
            return int(question())
        except self._nvml.NVMLError:
            return None


def reasons(bits: int) -> tuple[str, ...]:
    """What holds a card's clocks down, in words; bits that have none as their number."""
    named = [text for bit, text in _THROTTLE.items() if bits & bit]
    others = bits & ~sum(_THROTTLE)
    return (*named, *([f"{others:#x}"] if others else []))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
