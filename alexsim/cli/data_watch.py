"""Progress of work on many images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_LINE_EVERY_S = 10


class ImageProgress:
    """A bar with an estimate of what is left on a terminal; elsewhere a line every ten seconds."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._terminal = sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            console=Console(stderr=True, force_jupyter=False),
            transient=True,
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("looking for images", total=None, rate="")
        self._started = self._last = time.monotonic()

    def __enter__(self) -> ImageProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """One line for the user."""
        print(text, file=sys.stderr)

    def listing(self, images: int) -> None:
        """Images found so far."""
        self._bar.update(self._task, rate=f"{images:,}")
        self._line(lambda: f"found {images:,} images")

    def images(self, done: int, total: int, new: int) -> None:
        """Images done, of all, and those of this start, from which the rate follows."""
        if not done:
            self._started = time.monotonic()
        spent = time.monotonic() - self._started
        rate = new / spent if new and spent > 0 else 0.0
        left = int((total - done) / rate) if rate else 0
        minutes, seconds = divmod(left, 60)
        text = f"{done:,}/{total:,}"
        if rate:
            text += f" {rate:,.0f} images/s ETA {minutes}:{seconds:02}"
        self._bar.update(self._task, description="images", total=total, completed=done, rate=text)
        self._line(lambda: text)

    def _line(self, text: Callable[[], str]) -> None:
        if not self._terminal and time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            print(text(), file=sys.stderr)
