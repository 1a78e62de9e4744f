"""Image files with misleading names or corrupted content."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from tests.helpers.forged_images import EPS, PIXELS, encoded
from tests.helpers.tiny import tree

from tff.data.folder import Folder
from tff.data.image_file import FORMATS, decode
from tff.data.manifest import SUFFIXES, probe
from tff.data.synthetic.photographs import load_folder

OTHERS = {
    "postscript": EPS,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "ppm": encoded("PPM"), "ico": encoded("ICO"), "tga": encoded("TGA"), "pdf": encoded("PDF"),
    "jpeg2000": encoded("JPEG2000"), "sgi": encoded("SGI"), "im": encoded("IM"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_are_refused(kind):
    assert probe(io.BytesIO(OTHERS[kind]), ".png").problem == "not an image"
    with pytest.raises(ValueError, match=r"^x\.png .*: damaged, or no image at all"):
        decode(OTHERS[kind], "x.png")


def test_postscript_is_not_interpreted(tmp_path, monkeypatch, witness):
    """Pillow passes PostScript to Ghostscript, whatever the suffix."""
    script = tmp_path / "bin" / "gs"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch '{witness}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    root = tree(tmp_path / "images")
    (root / "seen/1_fake/evil.png").write_bytes(EPS)
    with pytest.raises(ValueError, match=r"evil\.png \(not an image\)"):
        Folder(root=str(root)).splits()
    with pytest.raises(ValueError, match=r"evil\.png"):
        decode(EPS, "evil.png")
    for name in "ab":
        (tmp_path / f"images/{name}.png").write_bytes(EPS + name.encode())
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_folder(root, 0, 1)
    assert not witness.exists()
    with pytest.raises(OSError), Image.open(io.BytesIO(EPS)) as image:  # Pillow itself would
        image.load()
    assert witness.exists()
    witness.unlink()


def test_every_readable_format_has_a_suffix():
    assert set(FORMATS) == set(SUFFIXES.values())


def test_images_with_a_wrong_suffix_are_read_and_noted():
    for kind in ("GIF", "TIFF", "BMP", "WEBP"):
        facts = probe(io.BytesIO(encoded(kind)), ".png")
        assert (facts.problem, facts.note.split(";")[0]) == ("", f"named .png, is {kind}")
        assert decode(encoded(kind), "x.png").shape == PIXELS.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_corrupted_bytes_raise_one_error_with_the_file_name(kind, capfd):
    random, data = np.random.default_rng(1), encoded(kind)
    for _ in range(400):
        wild = bytearray(data)
        for at in random.integers(0, min(len(data), 300), random.integers(1, 6)):
            if 15 < at < 24:  # the size of a PNG; a large one takes a second
                continue
            wild[at] = random.choice([0, 255, random.integers(256)])
        probe(io.BytesIO(bytes(wild)), ".png", pixels=True)
        try:
            decode(bytes(wild), "wild.png")
        except ValueError as error:
            assert str(error).startswith("wild.png (")
