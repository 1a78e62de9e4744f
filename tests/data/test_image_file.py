from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.helpers.forged_images import chunk, encoded

from tff.data.image_file import decode, find_end
from tff.data.manifest import Header, list_images, probe

SMOOTH = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
).resize((256, 192), Image.Resampling.BICUBIC)
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "TIFF": ".tif"}


def encode(image: Image.Image, kind: str, **options) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def look(data: bytes, suffix: str = ".jpg", pixels: bool = False) -> Header:
    return probe(io.BytesIO(data), suffix, pixels)


def require_named(data: bytes, suffix: str, capfd) -> None:
    """Found by `data.pixels=true` and by a run, without a word of the library that decodes."""
    assert look(data, suffix, pixels=True).problem != ""
    with pytest.raises(ValueError, match=r"^d/x \(.* bytes\): damaged"):
        decode(data, "d/x")
    assert capfd.readouterr() == ("", "")


DAMAGE = {
    "changed": lambda data, half: data[:half] + b"\x12\xd5\xff\x07" * 16 + data[half + 64 :],
    "hole": lambda data, half: data[:half] + bytes(2000) + data[half + 2000 :],
    "missing": lambda data, half: data[:half] + data[half + 1500 :],
    "ended": lambda data, half: data[:half] + b"\xff\xd9",
}
JPEGS = {
    "baseline": {}, "progressive": {"progressive": True}, "chroma": {"subsampling": "4:4:4"},
    "restarts": {"restart_marker_blocks": 3}, "optimized": {"optimize": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_damaged_in_the_middle_is_named(kind, options, mode, capfd):
    data = encode(SMOOTH.convert(mode), "JPEG", quality=90, **JPEGS[options])
    assert look(data, pixels=True).problem == ""
    require_named(DAMAGE[kind](data, len(data) // 2), ".jpg", capfd)


@pytest.mark.parametrize("kind", DAMAGE)
def test_jpeg_within_tiff_and_first_picture_of_several(kind, capfd):
    second = SMOOTH.rotate(180)
    mpo = encode(SMOOTH, "MPO", save_all=True, append_images=[second], quality=90)
    assert look(mpo, pixels=True) == (192, 256, "MPO", "RGB", 90, "420", "", "")
    require_named(DAMAGE[kind](mpo, len(mpo) // 4), ".jpg", capfd)
    tiff = encode(SMOOTH, "TIFF", compression="jpeg", quality=90)
    assert look(tiff, ".tif", pixels=True).problem == ""
    if kind in ("changed", "hole"):  # the others end before the list of tags
        require_named(DAMAGE[kind](tiff, len(tiff) // 2), ".tif", capfd)


def test_damaged_images_stop_a_listing_by_name_or_are_skipped(tmp_path, capfd, caplog):
    data = encode(SMOOTH, "JPEG")
    for label in ("0_real", "1_fake"):
        (tmp_path / label).mkdir()
        for name in "ab":
            (tmp_path / label / f"{name}.jpg").write_bytes(data)
    (tmp_path / "0_real" / "b.jpg").write_bytes(DAMAGE["hole"](data, len(data) // 2))
    assert len(list_images(tmp_path).table) == 4  # its header and structure are intact
    with pytest.raises(ValueError, match=r"1 of 4 images cannot be .*0_real/b\.jpg \(damaged"):
        list_images(tmp_path, pixels=True)
    found = list_images(tmp_path, pixels=True, on_corrupt="skip")
    assert [len(found.table), *found.skipped["path"]] == [3, str(tmp_path / "0_real/b.jpg")]
    assert capfd.readouterr() == ("", "")
    assert "1 of 4 images cannot be used and are skipped (1 real, 0 generated)" in caplog.text
    assert "of one kind only" in caplog.text


def png_with(data: bytes, change) -> bytes:
    """A PNG whose rows are changed before they are compressed; all check sums are right."""
    start = data.index(b"IDAT") - 4
    kinds, at, pieces = [], 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kinds.append(data[at + 4 : at + 8])
        pieces.append(data[at + 8 : at + 8 + size])
        at += 12 + size
    rows = zlib.decompress(b"".join(p for k, p in zip(kinds, pieces, strict=True) if k == b"IDAT"))
    return data[:start] + chunk(b"IDAT", change(rows)) + chunk(b"IEND", b"")


SIXTEEN = Image.fromarray(np.asarray(SMOOTH.convert("L")).astype(np.uint16) * 257)
PNGS = [*(SMOOTH.convert(mode) for mode in ("RGB", "L", "RGBA", "P", "LA", "1")), SIXTEEN]


@pytest.mark.parametrize("image", PNGS, ids=lambda image: image.mode)
def test_png_without_all_of_its_pixels_is_named(image, capfd):
    data = encode(image, "PNG")
    whole = png_with(data, zlib.compress)
    assert np.array_equal(decode(whole, "x"), decode(data, "x"))
    for change in (
        lambda rows: zlib.compress(rows[: len(rows) // 2]),
        lambda rows: zlib.compress(rows[:-1]),
        lambda rows: zlib.compress(rows)[:-4],  # cut in the check sum of all rows
        lambda rows: zlib.compress(rows)[:-1] + b"?",
        lambda rows: zlib.compress(rows[:-100]) + bytes(50),
        lambda rows: zlib.compress(rows)[: len(rows) // 9],
    ):
        data = png_with(encode(image, "PNG"), change)
        assert look(data, ".png", pixels=True).problem != ""
        assert capfd.readouterr() == ("", "")
        with pytest.raises(ValueError, match=r"^d/x \(.*damaged"):
            decode(data, "d/x")
        capfd.readouterr()  # libpng writes a line
    wrong = png_with(encode(image, "PNG"), lambda rows: zlib.compress(b"\x07" + rows[1:]))
    assert look(wrong, ".png", pixels=True).problem == "damaged (the rows cannot be decoded)"


@pytest.mark.parametrize("image", PNGS, ids=lambda image: image.mode)
def test_png_with_a_wrong_check_sum_is_named_at_the_first_look(image, capfd):
    data = bytearray(encode(image, "PNG"))
    data[data.index(b"IDAT") + 40] ^= 1
    assert "check sum of a chunk IDAT" in look(bytes(data), ".png").problem
    require_named(bytes(data), ".png", capfd)


def test_compressed_tiff_with_a_wrong_check_sum_is_named(capfd):
    data = bytearray(encode(SMOOTH, "TIFF", compression="tiff_deflate"))
    data[len(data) // 2] ^= 1
    require_named(bytes(data), ".tif", capfd)


WHOLE = {
    "JPEG": encode(SMOOTH, "JPEG"), "PNG": encode(SMOOTH, "PNG"), "WEBP": encode(SMOOTH, "WEBP"),
    "GIF": encode(SMOOTH.quantize(32), "GIF"),
    "progressive": encode(SMOOTH, "JPEG", progressive=True, restart_marker_rows=1),
    "moving": encode(SMOOTH, "GIF", save_all=True, append_images=[SMOOTH.rotate(180)]),
    "preview": encode(SMOOTH, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08" + bytes(6) + encoded("JPEG")),
}  # fmt: skip
BEHIND = {
    "a byte": b"\0", "a video": b"\0\0\0\x18ftypmp42" + np.random.default_rng(1).bytes(300_000),
    "a picture": WHOLE["JPEG"], "zeros": bytes(70_000), "a trailer": b";", "an end": b"\xff\xd9",
}  # fmt: skip


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("behind", BEHIND)
def test_whole_pictures_with_something_behind_are_used_and_noted(kind, behind):
    data = WHOLE[kind]
    name = ".jpg" if data[:2] == b"\xff\xd8" else f".{kind.lower().replace('moving', 'gif')}"
    facts = look(data + BEHIND[behind], name)
    assert facts.problem == ""
    assert facts.note.endswith(f"{len(BEHIND[behind]):,} bytes behind the picture")
    assert np.array_equal(decode(data + BEHIND[behind], "x"), decode(data, "x"))
    assert "behind" not in look(data, name).note


@pytest.mark.parametrize("kind", WHOLE)
def test_every_cut_is_found_from_the_structure(kind):
    data = WHOLE[kind]
    form = look(data).format
    assert find_end(data, form) == len(data)
    for end in np.linspace(30, len(data) - 5, 40).astype(int):
        assert look(data[:end]).problem != ""
        with pytest.raises(ValueError, match="x "):
            decode(data[:end], "x")


def test_a_preview_does_not_end_a_picture_that_is_cut():
    data = WHOLE["preview"]
    cut = data[: len(data) * 2 // 3]
    assert b"\xff\xd9" in cut
    assert look(cut).problem == "damaged (truncated)"


def test_jpeg_filled_up_before_its_end_is_whole(capfd):
    data = WHOLE["JPEG"]
    for filling in (bytes(1), bytes(300), b"\xff", b"\xff" * 9):
        filled = data[:-2] + filling + data[-2:]
        assert look(filled, pixels=True).problem == ""
        assert np.array_equal(decode(filled, "x"), decode(data, "x"))
    hole = len(data) // 2  # zeros up to the end: some of them were decoded
    require_named(data[:hole] + bytes(len(data) - hole - 2) + data[-2:], ".jpg", capfd)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_jpeg_as_pillow(mode, rng):
    for _ in range(12):
        size = tuple(rng.integers(1, 80, 2))
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
        data = encode(
            image, "JPEG", quality=int(rng.integers(1, 101)), progressive=bool(rng.integers(2)),
            subsampling=int(rng.integers(3)), restart_marker_blocks=int(rng.integers(3)),
            icc_profile=b"profile" * 9,
        )  # fmt: skip
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode(data, "x"), expected)


@pytest.mark.parametrize("image", PNGS, ids=lambda image: image.mode)
@pytest.mark.parametrize("transparency", [None, 0])
def test_png_as_pillow(image, transparency):
    options = {} if transparency is None or "A" in image.mode else {"transparency": 0}
    if image.mode == "RGB" and options:
        options = {"transparency": (1, 2, 3)}
    data = encode(image, "PNG", dpi=(3, 3), **options)
    found = decode(data, "x")
    if image.mode == "I;16":
        assert np.array_equal(found[..., 0], np.asarray(SMOOTH.convert("L")))
    else:
        assert np.array_equal(found, np.asarray(image.convert("RGB")))
