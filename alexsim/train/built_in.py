"""The built-in images, which are drawn once."""

from __future__ import annotations

from pathlib import Path

from alexsim.builtin.drawn import DrawnSet
from alexsim.errors import AlexsimError, reason_of
from alexsim.train.settings import Watcher


def cache() -> Path:
    """Where the built-in images are kept."""
    from platformdirs import user_cache_path

    return user_cache_path("alexsim")


def drawn(images: DrawnSet, watch: Watcher) -> Path:
    """The folder of built-in images, which are drawn if they are not there yet.

    Raises:
        AlexsimError: they cannot be written.
    """

    def progress(done: int, total: int) -> None:
        watch.preparing("Drawing the built-in images", done, total)

    try:
        return images.ensure(cache(), progress)
    except OSError as error:
        raise AlexsimError(f"cannot write the built-in images: {reason_of(error)}") from error
