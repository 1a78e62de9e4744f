"""Files that are something else than their names say: programs, other kinds, wild bytes."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from tests.helpers.forged_images import EPS, PIXELS, encoded
from tests.helpers.tiny import tree

from tff.data.dataset import FORMATS, decode
from tff.data.folder import Folder
from tff.data.manifest import SUFFIXES, probe
from tff.data.synthetic.photographs import load_folder

OTHERS = {
    "postscript": EPS,
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "ppm": encoded("PPM"), "ico": encoded("ICO"), "tga": encoded("TGA"), "pdf": encoded("PDF"),
    "jpeg2000": encoded("JPEG2000"), "sgi": encoded("SGI"), "im": encoded("IM"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_files_are_no_images(kind):
    assert probe(io.BytesIO(OTHERS[kind]), ".png").problem == "not an image"
    with pytest.raises(ValueError, match=r"^x\.png .*: damaged, or no image at all"):
        decode(OTHERS[kind], "x.png")


def test_no_interpreter_of_programs_is_started(tmp_path, monkeypatch, witness):
    """Pillow hands PostScript to Ghostscript, whatever the name of the file says."""
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


def test_the_kinds_that_are_read_are_those_that_have_names():
    assert set(FORMATS) == set(SUFFIXES.values())


def test_images_of_another_kind_than_their_names_are_read_and_noted():
    for kind in ("GIF", "TIFF", "BMP", "WEBP"):
        facts = probe(io.BytesIO(encoded(kind)), ".png")
        assert (facts.problem, facts.note.split(";")[0]) == ("", f"named .png, is {kind}")
        assert decode(encoded(kind), "x.png").shape == PIXELS.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_whatever_bytes_there_are_it_is_one_error_that_names_the_file(kind, capfd):
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
