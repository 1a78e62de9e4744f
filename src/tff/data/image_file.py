"""An image file: whether it is whole, where its picture ends, and its pixels.

Pillow, OpenCV and the libraries below them fill up what is missing or damaged with grey or black,
and at most write a line without a name to the terminal. Here each file is decoded strictly: JPEG
by a decoder that stops at the first warning of libjpeg, PNG with all of its check sums.
"""

from __future__ import annotations

import ctypes
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL
import simplejpeg
from PIL import Image, UnidentifiedImageError

from tff.types import Pixels

#: Formats that are read, whatever the suffix of a file. Pillow knows forty more, and hands one of
#: them (PostScript) to an interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
#: Larger images are refused: a small file may decompress into all of the memory.
MAX_PIXELS = 100_000_000
#: So are larger files: no format needs more bytes for that many pixels.
MAX_BYTES = 1 << 30

_READABLE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, cv2.error, zlib.error
)  # fmt: skip
warnings.filterwarnings("ignore", module=r"PIL\.")  # without the name of the file


def decode(data: bytes, name: str) -> Pixels:
    """Decode an image file to (H, W, 3) RGB uint8.

    Gray values are repeated in all three channels; palettes are looked up; transparency is dropped,
    not blended; 16 bits are cut to the upper 8; CMYK is converted as in Pillow; animations give
    their first frame; EXIF rotations are not applied; what stands behind the picture is ignored.

    Args:
        data: content of the file.
        name: of the file, for messages.

    Raises:
        ValueError: the image is damaged or too large; the message names it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return decode_opened(image, data)
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} ({len(data)} bytes): damaged, or no image at all; repair or remove it"
        ) from None
    except Exception as error:
        text = f"damaged image ({describe_damage(error)}); repair or remove it"
        raise ValueError(f"{name} ({len(data)} bytes): {text}") from error


def decode_opened(image: Image.Image, data: bytes) -> Pixels:
    """Decode an image whose header Pillow has read; see `decode`.

    Raises:
        Exception: the image is damaged or too large; `describe_damage` says how.
    """
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS}")
    if image.format in ("JPEG", "MPO"):
        return _decode_jpeg(image, data)
    if image.format == "PNG":
        return _decode_png(data)
    if image.format == "TIFF":
        _load_tiff(image, data)
    elif image.format in _ENDS:
        find_end(data, image.format)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        values = np.asarray(image).astype(np.int64) >> 8
        return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"), np.uint8)


def describe_damage(error: Exception) -> str:
    """Message of an error of reading an image; forged bytes make readers raise anything."""
    return str(error) if isinstance(error, _READABLE_ERRORS) else repr(error)


def find_end(data: bytes, kind: str) -> int:
    """Offset behind the last byte of the picture, found from the structure of the file.

    Cameras and programs append to pictures: videos, previews, a few bytes of their own.

    Args:
        data: content of the file.
        kind: its format.

    Raises:
        ValueError: the file ends before the picture does, or a check sum of it is wrong.
    """
    return _ENDS[kind](data) if kind in _ENDS else len(data)


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xff\xd9"


def _end_of_jpeg(data: bytes) -> int:
    at, kind = 2, b""
    while kind != _JPEG_SCAN and (marker := _JPEG_MARKER.match(data, at)):
        kind = marker[1]
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    # In the coded picture, a byte 255 is followed by 0 or the number of a restart.
    end = data.find(_JPEG_END, at)
    if kind != _JPEG_SCAN or end < 0:
        raise ValueError("truncated")
    return end + len(_JPEG_END)


def _end_of_png(data: bytes) -> int:
    return len(_PNG_SIGNATURE) + sum(len(chunk) for _kind, chunk in _png_chunks(data))


def _end_of_webp(data: bytes) -> int:
    end = 8 + int.from_bytes(data[4:8], "little")
    at = 12
    while at + 8 <= end <= len(data):
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if at > end:
            break
        at += at % 2
    else:
        if end <= len(data):
            return end
    raise ValueError("truncated")


def _end_of_gif(data: bytes) -> int:
    def skip_table(at: int, flags: int) -> int:
        return at + (6 << (flags & 7) if flags & 128 else 0)

    try:
        at = skip_table(13, data[10])
        while (kind := data[at]) != 0x3B:
            at += 1
            if kind == 0x2C:  # a picture: its place, a table of colors, the size of a code
                at = skip_table(at + 9, data[at + 8]) + 1
            elif kind == 0x21:
                at += 1
            else:
                continue
            while length := data[at]:
                at += 1 + length
            at += 1
    except IndexError:
        raise ValueError("truncated") from None
    return at + 1


_ENDS: dict[str, Callable[[bytes], int]] = {
    "JPEG": _end_of_jpeg, "MPO": _end_of_jpeg, "PNG": _end_of_png, "WEBP": _end_of_webp,
    "GIF": _end_of_gif,
}  # fmt: skip

# What libjpeg says of lost or damaged pixels; its other warnings are of oddities in the header.
_JPEG_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end|Inconsistent progression")


def _decode_jpeg(image: Image.Image, data: bytes) -> Pixels:
    space = {"CMYK": "CMYK", "L": "GRAY"}.get(image.mode, "RGB")
    try:
        pixels = simplejpeg.decode_jpeg(data, space)
    except ValueError as error:
        whole = _without_filling(data)
        if "extraneous bytes before marker 0xd9" in str(error) and len(whole) < len(data):
            return _decode_jpeg(image, whole)
        if _JPEG_DAMAGE.search(str(error)):
            raise
        return np.array(image.convert("RGB"), np.uint8)
    if space == "CMYK":  # Pillow takes all of them as Adobe writes them: inverted
        return np.array(Image.fromarray(255 - pixels, "CMYK").convert("RGB"), np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if space == "GRAY" else pixels)


def _without_filling(data: bytes) -> bytes:
    """A JPEG without the zeros before its end, which some cameras put there.

    If pixels were decoded from them, which are a hole then, it is cut short without them.
    """
    end = find_end(data, "JPEG")
    return data[: end - 2].rstrip(b"\0") + data[end - 2 : end]


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">IIBBBBB")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by type of color
# Passes of an interlaced PNG: first column and row, steps between columns and rows.
_PNG_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_PNG_KINDS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}  # all that a decoder may not pass over


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and bytes of the chunks of a PNG, to its end."""
    view, at, kind = memoryview(data), len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        if end > len(data):
            raise ValueError("truncated, or a chunk claims to be longer than the file")
        if kind[:1].isupper() and kind not in _PNG_KINDS:
            raise ValueError(f"unknown chunk {kind!r}")
        check_sum = zlib.crc32(view[at + 4 : end]).to_bytes(4, "big")
        if kind in _PNG_KINDS and kind != b"IEND" and view[end : end + 4] != check_sum:
            raise ValueError(f"the check sum of a chunk {kind.decode()} is wrong")
        yield kind, view[at : end + 4]
        at = end + 4


def _decode_png(data: bytes) -> Pixels:
    """Decode a PNG from the chunks that the picture needs: libpng complains about others."""
    parts = [chunk for kind, chunk in _png_chunks(data) if kind in _PNG_KINDS]
    # Pixels as stored, as Pillow and the published code see them: EXIF rotations are not applied.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(b"".join([_PNG_SIGNATURE, *parts]), np.uint8), flags)
    if pixels is None:
        require_png_rows(data)
        raise ValueError("the rows cannot be decoded")
    return np.asarray(pixels, np.uint8)


def require_png_rows(data: bytes) -> None:
    """Check that a PNG holds all of its rows.

    OpenCV checks it too, but libpng then writes a line without a name to the terminal.

    Raises:
        ValueError, zlib.error: the compressed rows are damaged or end too early.
    """
    stream, header, packed = zlib.decompressobj(), data[16:29], []
    for kind, chunk in _png_chunks(data):
        if kind == b"IDAT":
            packed.append(chunk[8:-4])
    length = sum(rows * width for rows, width in _png_passes(header))
    found = len(stream.decompress(b"".join(packed), length + 1))
    if found < length or (found == length and not stream.eof):
        raise ValueError(f"the pixels end after {found:,} of {length:,} bytes")


def _png_passes(header: bytes) -> Iterator[tuple[int, int]]:
    """Number of rows, and bytes of a row, of each pass."""
    width, height, depth, color, _, _, interlaced = _PNG_HEADER.unpack(header)
    for left, top, right, down in _PNG_PASSES if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -((left - width) // right), -((top - height) // down)
        if columns > 0 and rows > 0:
            yield rows, 1 + (columns * depth * _PNG_CHANNELS[color] + 7) // 8


_SAMPLES, _COMPRESSION, _TABLES = 277, 259, 347  # tags of a TIFF
_STRIPS = ((273, 279), (324, 325))  # offsets and lengths of strips, and of tiles


def _require_whole_strips(image: Image.Image, data: bytes) -> None:
    """Check the strips of a TIFF whose damage libtiff passes over.

    It does not read the check sum of deflated strips, and Pillow not what libjpeg says of others.
    """
    tags = image.tag_v2  # type: ignore[attr-defined]
    tables = tags.get(_TABLES, b"")[:-2]  # without the marker of the end
    space = "CMYK" if tags.get(_SAMPLES) == 4 else "GRAY"

    def check_jpeg(strip: bytes) -> None:
        try:
            whole = tables + strip[2:] if tables else strip
            # An eighth of the size: all bytes are read, but fewer pixels computed.
            simplejpeg.decode_jpeg(whole, space, min_height=1, min_width=1, min_factor=8)
        except ValueError as error:
            if _JPEG_DAMAGE.search(str(error)):
                raise

    checks: dict[int, Callable[[bytes], object]] = {
        7: check_jpeg, 8: zlib.decompress, 32946: zlib.decompress,
    }  # fmt: skip
    if check := checks.get(tags.get(_COMPRESSION)):
        for offsets, lengths in _STRIPS:
            for start, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=True):
                check(data[start : start + length])


class _TiffErrors(threading.local):
    """Errors of libtiff in this thread.

    libtiff writes them to the terminal, and where it goes on after one, so does Pillow.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, module: bytes | None, text: bytes, _arguments: int | None) -> None:
        self.found.append(f"{(module or b'libtiff').decode()}: {text.decode()}")


_tiff_errors = _TiffErrors()
# libtiff's type of handlers; the object has to live as long as libtiff.
_TIFF_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(
    lambda *report: _tiff_errors.add(*report)
)
for _library in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*"):  # in wheels of Linux
    ctypes.CDLL(str(_library)).TIFFSetErrorHandler(_TIFF_HANDLER)


def _load_tiff(image: Image.Image, data: bytes) -> None:
    """Decode a TIFF in place, strictly."""
    _require_whole_strips(image, data)
    _tiff_errors.found.clear()
    image.load()
    if _tiff_errors.found:
        raise ValueError(_tiff_errors.found[0])
