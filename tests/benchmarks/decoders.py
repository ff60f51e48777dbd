"""JPEG decoders beside Pillow, in turns: whole 256 x 256 squares of quality 85, and large files
decoded to a fraction.

python tests/benchmarks/decoders.py [FOLDER OF JPEGs] [--rounds N]

Without a folder the built-in textures are used. Decoders that are not installed are left out.
"""

from __future__ import annotations

import importlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from alexsim.builtin import textures
from alexsim.data.images import load_square

Decode = Callable[[bytes], np.ndarray]
SIDE, IMAGES = 256, 128


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def pillow_draft(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIDE, SIDE))
    return np.asarray(image.convert("RGB"))


def decoders() -> dict[str, tuple[Decode, Decode | None]]:
    """By name: whole images, and images scaled to at least 256 pixels while decoding."""
    found: dict[str, tuple[Decode, Decode | None]] = {"pillow": (pillow, pillow_draft)}
    if fast := _installed("simplejpeg"):
        found["simplejpeg"] = (
            fast.decode_jpeg,
            lambda data: fast.decode_jpeg(data, min_height=SIDE, min_width=SIDE, min_factor=1),
        )
        # Its quicker transform and upsampling give other pixels.
        found["simplejpeg, fast"] = (
            lambda data: fast.decode_jpeg(data, fastdct=True, fastupsample=True),
            None,
        )
    if cv2 := _installed("cv2"):
        cv2.setNumThreads(1)
        found["opencv"] = (
            lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB),
            None,
        )
    if codecs := _installed("imagecodecs"):
        found["imagecodecs"] = (codecs.jpeg8_decode, None)
    if io_module := _installed("torchvision.io"):
        import torch

        torch.set_num_threads(1)
        found["torchvision"] = (
            lambda data: (
                io_module.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
                .permute(1, 2, 0)
                .numpy()
            ),
            None,
        )
    if turbo := _installed("turbojpeg"):
        try:
            jpeg = turbo.TurboJPEG()
        except RuntimeError as error:
            print(f"turbojpeg: {error}", file=sys.stderr)
        else:
            found["PyTurboJPEG"] = (lambda data: jpeg.decode(data, pixel_format=0), None)
    return found


def _installed(name: str) -> object:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None


def timed(runs: dict[str, Decode], images: Sequence[bytes], rounds: int) -> dict[str, list[float]]:
    """Microseconds per image of each decoder in each round; rounds take turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, decode in runs.items():
            started = time.perf_counter()
            for data in images:
                decode(data)
            found[name].append(1e6 * (time.perf_counter() - started) / len(images))
    return found


def show(title: str, runs: dict[str, Decode], images: Sequence[bytes], rounds: int) -> None:
    """Medians, and ratios over Pillow round by round."""
    print(f"{title}: {len(images)} images, {sum(map(len, images)) // len(images):,} bytes each")
    times = timed(runs, images, rounds)
    for name, decode in runs.items():
        ratios = [a / b for a, b in zip(times["pillow"], times[name], strict=True)]
        equal = sum(np.array_equal(runs["pillow"](data), decode(data)) for data in images)
        low, high = np.quantile(ratios, (0.1, 0.9))
        print(
            f"  {name:17} {statistics.median(times[name]):7.0f} us"
            f"  x {statistics.median(ratios):.2f} (80 %: {low:.2f} to {high:.2f})"
            f"  {equal} of {len(images)} with Pillow's bits"
        )


def files(given: Sequence[str]) -> list[bytes]:
    """JPEGs of a folder, or drawn."""
    if given:
        paths = sorted(
            p for p in Path(given[0]).rglob("*") if p.suffix.lower() in (".jpeg", ".jpg")
        )
        return [path.read_bytes() for path in paths[:IMAGES]]
    drawn = (textures.draw(n % len(textures.CLASSES), n).resize((500, 400)) for n in range(32))
    return [_encoded(np.asarray(image)) for image in drawn]


def _encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85)
    return out.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    rounds = int(arguments[arguments.index("--rounds") + 1]) if "--rounds" in arguments else 15
    large = files([a for a in arguments if not a.startswith("--") and not a.isdecimal()])
    squares = [_encoded(load_square(io.BytesIO(data), SIDE, 3)) for data in large]
    known = decoders()
    show("squares", {name: whole for name, (whole, _) in known.items()}, squares, rounds)
    scaled = {name: part for name, (_, part) in known.items() if part is not None}
    show("files, scaled while decoding", scaled, large, rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
