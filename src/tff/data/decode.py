"""An image file of any kind -> RGB pixels, in one defined way (docs/data.md has the table)."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

#: The kinds of files that are read, whatever their names say. Pillow knows forty more, one of which
#: (PostScript) it hands to an interpreter of programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
#: Larger images are refused: a small file may unfold into all of the memory.
MOST_PIXELS = 100_000_000
# Pixels as stored, as Pillow and the published code see them: no rotation by EXIF.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
#: Modes of Pillow that OpenCV, which is faster, turns into the same pixels.
_ALIKE = {"RGB", "L"}
_PNG = b"\x89PNG\r\n\x1a\n"
_HIGH_BYTE = {"I;16", "I;16B", "I;16L", "I"}
_PLAIN = (OSError, SyntaxError, ValueError, TypeError, EOFError, cv2.error)


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """The bytes of an image file as (H, W, 3) RGB uint8.

    Grey values stand in all three channels; a palette is looked up; transparency is dropped, not
    blended; of 16 bits the upper 8 are kept; CMYK is converted as Pillow does; of an animation the
    first picture is taken; a rotation in the EXIF data is not applied.

    Args:
        data: the whole file.
        name: of the file, for messages.

    Raises:
        ValueError: the image is damaged or too large; the message names it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MOST_PIXELS}")
            if image.mode in _ALIKE and image.format in ("PNG", "JPEG"):
                _require_chunks(data)
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
                if pixels is None:
                    raise ValueError("damaged")
                return np.asarray(pixels, np.uint8)
            if image.mode in _HIGH_BYTE:
                values = np.asarray(image).astype(np.int64) >> 8
                return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} ({len(data)} bytes): damaged, or no image at all; repair or remove it"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{name} ({len(data)} bytes): damaged image ({damage(error)}); repair or remove it"
        ) from error


def _require_chunks(data: bytes) -> None:
    """Of a PNG: OpenCV makes room for all that a chunk says it holds, up to 4 GB, unseen."""
    at = len(_PNG) if data.startswith(_PNG) else len(data)
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise ValueError("truncated, or a chunk says that it is longer than the file")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4  # behind the check sum


def damage(error: Exception) -> str:
    """In words, over what the readers stumbled; bytes made for it let them raise anything."""
    return str(error) if isinstance(error, _PLAIN) else repr(error)
