"""A library that answers as NVIDIA's management library would, and refuses as it would."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """What NVML raises, and nothing else does."""


class Library(ModuleType):
    """Two cards. Their counters go on by 5 J a question; what is in ``refused`` is refused."""

    NVMLError = NVMLError
    NVML_PCIE_UTIL_TX_BYTES, NVML_PCIE_UTIL_RX_BYTES = 0, 1
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.refused: set[str] = set()
        self.open = 0
        self.watts = 100_000
        self.millijoules = [1_000_000, 7_000_000]

    def __getattribute__(self, name: str) -> Any:
        if name in super().__getattribute__("__dict__").get("refused", ()):
            return self._refuse
        return super().__getattribute__(name)

    def _refuse(self, *_: object) -> None:
        raise self.NVMLError("Not Supported")

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, card: int) -> str | bytes:  # noqa: N802
        return ("Card 0", b"Card 1")[card]  # older ones answer in bytes

    def nvmlDeviceGetUtilizationRates(self, card: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=75 + card, memory=3)

    def nvmlDeviceGetMemoryInfo(self, card: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=9, free=4, used=5 + card)

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:  # noqa: N802
        return self.watts

    def nvmlDeviceGetClockInfo(self, card: int, which: int) -> int:  # noqa: N802
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[which]

    def nvmlDeviceGetPcieThroughput(self, card: int, which: int) -> int:  # noqa: N802
        return {self.NVML_PCIE_UTIL_TX_BYTES: 3, self.NVML_PCIE_UTIL_RX_BYTES: 7}[which]

    def nvmlDeviceGetTemperature(self, card: int, sensor: int) -> int:  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 61 + card

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card: int) -> int:  # noqa: N802
        return (0x24, 0)[card]

    def nvmlDeviceGetTotalEnergyConsumption(self, card: int) -> int:  # noqa: N802
        self.millijoules[card] += 5_000
        return self.millijoules[card]
