"""What one image file is, told from its header; cheap enough for a million of them."""

from __future__ import annotations

import io
import os
from functools import cache
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tff.data.decode import FORMATS, MOST_PIXELS, damage

#: Endings of image files; what a file is, its content says.
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF",
}  # fmt: skip
#: What ends a complete file; some programs put a few bytes of their own behind it.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 65_536


class Facts(NamedTuple):
    """What the header says.

    Attributes:
        height, width: in pixels, as stored.
        format: by content, not by name: PNG, JPEG, ...
        mode: of Pillow: RGB, L, RGBA, P, CMYK, I;16, ...
        quality: of a JPEG, 1 to 100, estimated from its quantisation table; else -1.
        chroma: of a JPEG, 444 or 420 or ...; else "".
        problem: why the image cannot be used, or "".
        note: what is odd about it though it can be used, or "".
    """

    height: int = 0
    width: int = 0
    format: str = ""
    mode: str = ""
    quality: int = -1
    chroma: str = ""
    problem: str = ""
    note: str = ""


def probe(stream: BinaryIO, suffix: str, pixels: bool = False) -> Facts:
    """Look at an image file.

    Args:
        stream: the open file.
        suffix: how its name ends.
        pixels: also decode all of it, which finds damage in the middle and takes much longer.
    """
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return Facts(problem="empty file")
    facts = Facts()
    try:
        stream.seek(0)
        with Image.open(stream, formats=FORMATS) as image:
            facts = _facts(image, suffix)
            if facts.height * facts.width > MOST_PIXELS:
                return facts._replace(problem=f"more than {MOST_PIXELS} pixels")
            if pixels or facts.format not in (*_ENDS, "WEBP"):
                image.load()
    except UnidentifiedImageError:
        return Facts(problem="not an image")
    except Image.DecompressionBombError:
        return Facts(problem=f"more than {MOST_PIXELS} pixels")
    except Exception as error:
        return facts._replace(problem=f"damaged ({damage(error)})")
    return facts if _complete(stream, size, facts.format) else facts._replace(problem="truncated")


def _facts(image: Image.Image, suffix: str) -> Facts:
    kind = image.format or ""
    tables = getattr(image, "quantization", None)
    notes = []
    expected = SUFFIXES.get(suffix.lower(), "")
    if expected and kind != expected and (kind, expected) != ("MPO", "JPEG"):
        notes.append(f"named {suffix}, is {kind}")
    if getattr(image, "n_frames", 1) > 1 and kind != "MPO":
        notes.append("animated, first picture used")
    # Pillow would decode all of a PNG to look for EXIF data behind the pixels.
    if (kind != "PNG" or "exif" in image.info) and image.getexif().get(0x0112, 1) != 1:
        notes.append("rotation in EXIF not applied")
    if image.mode not in ("RGB", "L"):
        notes.append(f"mode {image.mode}")
    quality = quality_of(tables[0]) if tables else -1
    return Facts(
        image.height, image.width, kind, image.mode, quality, _chroma(image), note="; ".join(notes)
    )


def quality_of(luminance: list[int]) -> int:
    """The quality, 1 to 100, at which libjpeg's luminance table is nearest to this one in sum."""
    return 1 + int(np.abs(_sums() - np.sum(luminance)).argmin())


@cache
def _sums() -> NDArray[np.int64]:
    sums = []
    for quality in range(1, 101):
        with io.BytesIO() as file:
            Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
            with Image.open(file) as image:
                sums.append(sum(image.quantization[0]))  # type: ignore[attr-defined]
    return np.array(sums)


def _chroma(image: Image.Image) -> str:
    layers = getattr(image, "layer", None)  # (name, horizontal, vertical sampling, table) each
    if not layers or len(layers) < 3:
        return ""
    names = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
    return names.get(tuple(layers[0][1:3]), "other")


def _complete(stream: BinaryIO, size: int, kind: str) -> bool:
    if kind == "WEBP":
        stream.seek(4)
        return size >= 8 + int.from_bytes(stream.read(4), "little")
    stream.seek(max(0, size - _TAIL))
    tail = stream.read()
    if kind == "GIF":
        return tail.endswith(b";")
    return kind not in _ENDS or _ENDS[kind] in tail
