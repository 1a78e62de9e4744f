"""Decompression bombs among images are refused before they are decoded."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from tests.helpers.forged_images import PIXELS, bmp, chunk, gif, jpeg, png, tiff

from tff.data.dataset import View
from tff.data.image_file import decode
from tff.data.manifest import probe
from tff.data.synthetic.photographs import load_folder


@pytest.mark.parametrize("make", [png, jpeg, gif, bmp, tiff], ids=lambda make: make.__name__)
@pytest.mark.parametrize("sides", [(60_000, 60_000), (10_001, 10_000), (65_000, 1_540)])
def test_huge_images_are_refused_by_their_headers(make, sides, little_memory):
    data = make(*sides)
    assert len(data) < 10_000
    assert "more than 100000000 pixels" in probe(io.BytesIO(data), ".png").problem
    with pytest.raises(ValueError, match=r"^b\.png .*(are more than|exceeds limit)"):
        decode(data, "b.png")


def test_huge_images_among_photographs_are_refused(tmp_path, little_memory):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(
            png(10_001, 10_000, chunk(b"teXt", b"%d" % number))
        )
    with pytest.raises(ValueError, match=r"\d\.png cannot be read .* are more than"):
        load_folder(tmp_path, 0, 1)


SPOOL = zlib.compress(bytes(900_000_000), 9)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("behind", [False, True])
def test_compressed_text_in_png_is_not_decompressed(kind, behind, little_memory):
    """900 MB of zeros in one chunk, before or after the pixels."""
    head = b"Comment\0\1\0\0\0" if kind == b"iTXt" else b"Comment\0\0"
    bomb = chunk(kind, head + SPOOL)
    data = png(31, 24, behind=bomb) if behind else png(31, 24, bomb)
    for look in (lambda: probe(io.BytesIO(data), ".png"), lambda: decode(data, "b.png")):
        try:
            look()  # read without the text, or refused: never decompressed
        except ValueError as error:
            assert str(error).startswith("b.png ")
            assert "MemoryError" not in str(error)


@pytest.mark.parametrize("at", [33, None])
def test_png_chunk_of_4_gigabytes_is_refused(at, little_memory):
    data = png(31, 24)
    if at is None:  # the chunk after the pixels
        at = data.index(b"IEND") - 4
    data = data[:at] + b"\xff\xff\xff\xf0" + data[at + 4 :]
    with pytest.raises(ValueError, match=r"^b\.png .*: damaged image \(.*longer than the file"):
        decode(data, "b.png")


def test_resizing_a_strip_to_a_huge_image_is_refused(little_memory):
    strip = np.zeros((1, 1_000_000, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"^s\.png: 1x1000000 pixels would become 256x256000000 by"
    ):
        View(resize=256).apply(strip, 0, 0, "s.png")


def test_huge_resize_option_is_refused(little_memory):
    with pytest.raises(ValueError, match=r"^s\.png: .* by data\.resize=60000"):
        View(resize=60_000).apply(PIXELS, 0, 0, "s.png")
