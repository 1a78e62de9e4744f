"""An image file of any kind -> RGB pixels, in one defined way (docs/data.md has the table)."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

#: Larger images are refused: a small file may unfold into all of the memory.
MOST_PIXELS = 100_000_000
# Pixels as stored, as Pillow and the published code see them: no rotation by EXIF.
_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
#: Modes of Pillow that OpenCV, which is faster, turns into the same pixels.
_ALIKE = {"RGB", "L"}
_HIGH_BYTE = {"I;16", "I;16B", "I;16L", "I"}
_ERRORS = (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError)


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
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MOST_PIXELS}")
            if image.mode in _ALIKE and image.format in ("PNG", "JPEG"):
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
    except (*_ERRORS, cv2.error) as error:
        raise ValueError(
            f"{name} ({len(data)} bytes): damaged image ({error}); repair or remove it"
        ) from error
