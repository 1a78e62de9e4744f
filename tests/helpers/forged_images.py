"""Malicious image files, forged byte by byte."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, behind: bytes = b"") -> bytes:
    """PNG that declares this size and holds a few zeros."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes((3 * width + 1) * height if width < 99 else 1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + behind + chunk(b"IEND", b"")


def encoded(kind: str, **options) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(PIXELS).save(file, kind, **options)
        return file.getvalue()


def jpeg(width: int, height: int) -> bytes:
    data = encoded("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def gif(width: int, height: int) -> bytes:
    data = encoded("GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def bmp(width: int, height: int) -> bytes:
    data = encoded("BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def tiff(width: int, height: int) -> bytes:
    data = bytearray(encoded("TIFF"))
    (at,) = struct.unpack_from("<I", data, 4)
    for entry in range(at + 2, at + 26, 12):
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag in (256, 257):
            struct.pack_into(
                "<H" if kind == 3 else "<I", data, entry + 8, (width, height)[tag - 256]
            )
    return bytes(data)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(hello) print
%%EOF
"""
