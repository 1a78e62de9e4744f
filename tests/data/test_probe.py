from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tff.data import image_file as decoding
from tff.data import manifest as probing
from tff.data.image_file import decode
from tff.data.manifest import estimate_quality, probe

NOISE = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE[:4, :5]).resize((64, 48), Image.Resampling.BICUBIC))


def encoded(image, kind, **options) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def look(data, suffix=".png", **options):
    return probe(io.BytesIO(data), suffix, **options)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_quality_and_chroma_of_every_jpeg_of_libjpeg(subsampling):
    image = Image.fromarray(NOISE)
    for quality in range(1, 101):
        facts = look(encoded(image, "JPEG", quality=quality, subsampling=subsampling), ".jpg")
        assert (facts.quality, facts.chroma) == (quality, ["444", "422", "420"][subsampling])
        assert (facts.format, facts.height, facts.width) == ("JPEG", 37, 51)
        assert facts.problem == facts.note == ""


def test_a_foreign_quantisation_table_gets_the_nearest_quality():
    table = Image.open(io.BytesIO(encoded(Image.fromarray(NOISE), "JPEG", quality=80)))
    table = table.quantization[0]
    assert estimate_quality([v + (i == 5) for i, v in enumerate(table)]) in (79, 80)
    assert estimate_quality([1] * 64) == 100
    assert estimate_quality([255] * 64) == 1


KINDS = {
    ".png": ("PNG", {}), ".jpg": ("JPEG", {}), ".webp": ("WEBP", {}), ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {}), ".gif": ("GIF", {}),
}  # fmt: skip


@pytest.mark.parametrize("suffix", KINDS)
def test_every_cut_is_found(suffix):
    kind, options = KINDS[suffix]
    image = Image.fromarray(NOISE)
    data = encoded(image.quantize(64) if kind == "GIF" else image, kind, **options)
    assert look(data, suffix).problem == ""
    for part in (0.02, 0.3, 0.7, 0.97):
        assert look(data[: int(len(data) * part)], suffix).problem != "", part
    # The last byte of a PNG is of its check sum, that of a BMP may fill up a row.
    assert look(data[:-1], suffix).problem != "" or suffix in (".png", ".bmp")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_trailing_bytes_are_ignored(suffix):
    data = encoded(Image.fromarray(NOISE), KINDS[suffix][0]) + b"of a phone" * 30
    assert look(data, suffix).problem == ""
    assert decode(data, "x").shape == (37, 51, 3)


def test_damage_in_the_middle_is_found_by_decoding():
    data = bytearray(encoded(Image.fromarray(NOISE), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert "check sum" in look(bytes(data)).problem
    assert "check sum" in look(bytes(data), pixels=True).problem
    with pytest.raises(ValueError, match=r"^x\.png .*damaged"):
        decode(bytes(data), "x.png")


@pytest.mark.parametrize(("data", "problem"), [(b"", "empty file"), (b"no image", "not an image")])
def test_no_image(data, problem):
    assert look(data).problem == problem


def test_more_pixels_than_memory(monkeypatch):
    data = encoded(Image.fromarray(NOISE), "PNG")
    for module in (probing, decoding):
        monkeypatch.setattr(module, "MAX_PIXELS", 37 * 51 - 1)
    assert "more than" in look(data).problem
    with pytest.raises(ValueError, match=r"51x37 pixels are more"):
        decode(data, "x")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # what Pillow itself calls a bomb
    assert "more than" in look(data).problem
    with pytest.raises(ValueError, match="x "):
        decode(data, "x")


def test_notes():
    image, exif = Image.fromarray(NOISE), Image.Exif()
    exif[0x0112] = 6
    assert look(encoded(image, "JPEG"), ".png").note == "named .png, is JPEG"
    assert look(encoded(image, "JPEG", exif=exif), ".jpg").note == "rotation in EXIF not applied"
    assert look(encoded(image.convert("CMYK"), "JPEG"), ".jpeg").note == "mode CMYK"
    moving = encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)])
    assert look(moving, ".gif").note == "animated, first picture used; mode P"
    assert look(moving, "").problem == ""


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_first_picture_of_an_animation(kind):
    first, second = Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(first, kind, save_all=True, append_images=[second], **options)
    found = decode(data, "x").astype(int)
    assert np.abs(found - SMOOTH).mean() < np.abs(found - (255 - SMOOTH)).mean() / 4


def test_transparency_is_dropped():
    alpha = np.full((*NOISE.shape[:2], 1), 0, np.uint8)
    image = Image.fromarray(np.concatenate([NOISE, alpha], axis=2))
    assert np.array_equal(decode(encoded(image, "PNG"), "x"), NOISE)
    palette = Image.fromarray(NOISE).quantize(32)
    data = encoded(palette, "PNG", transparency=0)
    assert np.array_equal(decode(data, "x"), np.asarray(palette.convert("RGB")))


def test_cmyk_as_pillow():
    data = encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=98)
    assert np.array_equal(
        decode(data, "x"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_upper_byte_of_sixteen_bits(kind):
    values = np.random.default_rng(3).integers(0, 65536, (9, 8)).astype(np.uint16)
    found = decode(encoded(Image.fromarray(values), kind), "x")
    assert np.array_equal(found, np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_one_pixel():
    for kind in ("PNG", "JPEG", "WEBP"):
        data = encoded(Image.fromarray(NOISE[:1, :1]), kind)
        assert look(data, f".{kind.lower()}").problem == ""
        assert decode(data, "x").shape == (1, 1, 3)
