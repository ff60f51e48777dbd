"""Files that are not what they seem: each is packed, or left out with one line that says why."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexsim.data.packed.pack import pack
from alexsim.data.packed.pack_index import PackIndex, PackSettings

SMALL = PackSettings(side=32, shard_images=64)


def ramp(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


JPEG = encoded(ramp(60, 50), "JPEG")


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.full((50, 60), 40_000, np.uint16)), "PNG")


def noise() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "blue")]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


def rotated() -> bytes:
    image = Image.fromarray(np.repeat([[0], [255]], 40, 0).repeat(80, 1).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif, quality=95)


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be large; there is no need to have its pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    whole = struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + whole + encoded(ramp(9, 9), "PNG")[33:]


def mask(side: int) -> bytes:
    """One bit per pixel, black: 20,000 x 20,000 take 50 kB."""
    return encoded(Image.new("1", (side, side)), "PNG")


HANDLED: dict[str, Callable[[], bytes]] = {
    "plain.jpg": lambda: JPEG,
    "one-pixel.jpg": lambda: encoded(ramp(1, 1), "JPEG"),
    "line.jpg": lambda: encoded(ramp(3000, 1), "JPEG"),
    "cmyk.jpg": lambda: encoded(ramp(60, 50, "CMYK"), "JPEG"),
    "grey.jpg": lambda: encoded(ramp(60, 50, "L"), "JPEG"),
    "progressive.jpg": lambda: encoded(ramp(60, 50), "JPEG", progressive=True),
    "really-a-png.JPEG": lambda: encoded(ramp(60, 50), "PNG"),
    "sixteen.png": sixteen_bits,
    "animated.webp": lambda: animated("WEBP"),
    "animated.png": lambda: animated("PNG"),
    "animated-gif.jpg": lambda: animated("GIF"),
    "rotated.jpg": rotated,
    "palette.png": lambda: encoded(ramp(60, 50, "P"), "PNG"),
    "clear.png": lambda: encoded(ramp(60, 50, "RGBA"), "PNG"),
    "trailing.jpg": lambda: JPEG + b"more" * 100,
    "huge.jpg": lambda: encoded(Image.new("L", (20_000, 20_000), 90), "JPEG"),
    "huge-mask.png": lambda: mask(20_000),
}
NAMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb.png": (lambda: bomb(25_000, 25_000), "25000 x 25000 pixels"),
    "larger-bomb.png": (lambda: bomb(60_000, 60_000), "exceeds limit"),
    "corrupt.jpg": (lambda: JPEG[:100] + bytes(200) + JPEG[300:], ""),
    "cut.jpg": (lambda: JPEG[: len(JPEG) // 2], "truncated"),
    "cut.png": (lambda: noise()[:5000], "truncated"),
    "empty.jpg": (lambda: b"", "no bytes"),
    "text.jpg": (lambda: b"no image at all", "not an image"),
    "page.jpg": (lambda: b"<html>404</html>", "not an image"),
    "zeros.jpg": (lambda: bytes(1000), "not an image"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackIndex]:
    root = tmp_path_factory.mktemp("hostile")
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / "source" / split / name).mkdir(parents=True)
            (root / "source" / split / name / "good.jpg").write_bytes(JPEG)
    folder = root / "source" / "train" / "a"
    for name, make in HANDLED.items():
        (folder / name).write_bytes(make())
    for name, (make, _) in NAMED.items():
        (folder / name).write_bytes(make())
    index = pack(root / "source", root / "set", SMALL, workers=1)
    return root / "set", index


def square(folder: Path, name: str) -> np.ndarray:
    stem = name.partition(".")[0]
    with tarfile.open(folder / "train-000000.tar") as archive:
        key = next(n for n in archive.getnames() if n.endswith(f"-{stem}.jpg"))
        file = archive.extractfile(key)
        assert file is not None
        return np.asarray(Image.open(io.BytesIO(file.read())))


def test_whatever_is_an_image_is_packed(hostile: tuple[Path, PackIndex]) -> None:
    folder, index = hostile
    assert index.images["train"] == len(HANDLED) + 2
    for name in HANDLED:
        assert square(folder, name).shape == (32, 32, 3), name
    # 40,000 of 65,535 is grey, not white.
    assert square(folder, "sixteen.png").mean() == pytest.approx(40_000 / 256, abs=2)
    assert square(folder, "huge.jpg").mean() == pytest.approx(90, abs=2)
    for name in ("animated.webp", "animated.png"):
        assert square(folder, name)[..., 0].mean() > 200, "the first picture is red"
    turned = square(folder, "rotated.jpg").astype(int)
    assert turned[:, 2:8].mean() > 200
    assert turned[:, -8:-2].mean() < 50


def test_whatever_is_none_is_named(hostile: tuple[Path, PackIndex]) -> None:
    _, index = hostile
    found = {Path(one.file).name: one.reason for one in index.skipped}
    assert found.keys() == NAMED.keys()
    for name, (_, reason) in NAMED.items():
        assert reason in found[name].lower()
        assert found[name]
        assert "\n" not in found[name]
        assert " at 0x" not in found[name]


@pytest.mark.usefixtures("packing_pool")
def test_random_damage_is_packed_or_named(tmp_path: Path) -> None:
    rng = random.Random(0)
    forms = [JPEG, encoded(ramp(60, 50), "PNG"), encoded(ramp(60, 50), "WEBP"), sixteen_bits()]
    for number in range(200):
        data = bytearray(rng.choice(forms))
        for _ in range(rng.choice((1, 4, 40))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        path = tmp_path / "source" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    indices = [pack(tmp_path / "source", tmp_path / name, SMALL, workers=1) for name in "xy"]
    packed = sum(indices[0].images[split] for split in ("train", "val"))
    assert packed + len(indices[0].skipped) == 200
    assert 0 < packed < 200
    assert indices[0] == indices[1]


@pytest.mark.usefixtures("packing_pool")
def test_names_in_tars_lead_nowhere(tmp_path: Path) -> None:
    out = io.BytesIO()
    names = ("../../escape.jpg", "/etc/absolute.jpg", "a/../../b.jpg", "c d\u00e9\n.jpg")
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            for member, data in ((name, JPEG), (name.replace(".jpg", ".cls"), b"0")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train.tar").write_bytes(out.getvalue())
    before = set(tmp_path.rglob("*"))
    index = pack(tmp_path / "in" / "train.tar", tmp_path / "set", SMALL, workers=1)
    assert index.images["train"] == len(names)
    new = set(tmp_path.rglob("*")) - before - {tmp_path / "set"}
    assert all(path.parent == tmp_path / "set" for path in new)
    with tarfile.open(tmp_path / "set" / "train-000000.tar") as archive:
        for name in archive.getnames():
            assert "/" not in name
            assert ".." not in name
            assert name.isascii()
            assert name.isprintable()


@pytest.mark.usefixtures("packing_pool")
def test_class_folders_named_like_paths_do_no_harm(tmp_path: Path) -> None:
    """A class in a tar of tars is a name; it never becomes a path."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        info = tarfile.TarInfo("x.JPEG")
        info.size = len(JPEG)
        archive.addfile(info, io.BytesIO(JPEG))
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        for name in ("../../n1.tar", "n2.tar"):
            info = tarfile.TarInfo(name)
            info.size = len(inner.getvalue())
            archive.addfile(info, io.BytesIO(inner.getvalue()))
    index = pack(tmp_path / "train.tar", tmp_path / "set", SMALL, workers=1)
    assert [c.wnid for c in index.classes] == ["n1", "n2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "train.tar"]
