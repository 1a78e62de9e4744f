"""Pipes, devices, odd names and malicious Parquet rows among the images."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.forged_images import EPS, encoded, jpeg, png
from tests.helpers.tiny import tree

from tff.data.dataset import read_bytes
from tff.data.folder import Folder, list_parquet_images
from tff.data.synthetic.photographs import load_folder


@pytest.fixture
def root(tmp_path):
    return tree(tmp_path / "images")


def test_pipes_and_devices_are_not_opened(root):
    """Reading a pipe would block for ever, and a device may never end."""
    os.mkfifo(root / "seen/1_fake/pipe.png")
    (root / "seen/1_fake/zero.png").symlink_to("/dev/zero")
    (root / "seen/1_fake/gone.png").symlink_to("nothing")
    with pytest.raises(ValueError, match=r"3 of 27 images cannot be used") as caught:
        Folder(root=str(root)).splits()
    assert str(caught.value).count("not a regular file") == 2
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read \(not a regular file\)"):
            read_bytes(str(root / "seen/1_fake" / name))
    os.mkfifo(root / "rows.parquet")
    with pytest.raises(ValueError, match=r"no \.parquet files in it"):
        list_parquet_images(root, "train", None, "error")


def test_only_regular_files_become_photographs(root):
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    found = load_folder(root, 0, 1)
    assert sum(map(len, found.values())) == 24


def test_file_name_that_is_not_utf8_is_refused(root, tmp_path):
    bad = os.fsencode(root) + b"/seen/1_fake/caf\xe9.png"
    os.rename(root / "seen/1_fake/0.png", bad)
    with pytest.raises(ValueError, match=r"caf\\udce9\.png': its name .* is not UTF-8; rename it"):
        Folder(root=str(root), cache=str(tmp_path / "cache")).splits()


def test_folder_named_like_a_parquet_row(root):
    (root / "seen").rename(root / "x.parquet::1")
    images = Folder(root=str(root)).splits().test
    assert len(images) == 24
    assert all(images[0, row].image.shape == (3, 32, 32) for row in range(24))


def parquet(path, images, kind=None):
    table = {"image_data": pa.array(images, kind), "label": [0, 1], "model_name": ["a", "b"]}
    pq.write_table(pa.table(table), path)


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        ([png(60_000, 60_000), encoded("PNG")], "more than 100000000 pixels"),
        ([jpeg(60_000, 60_000), encoded("PNG")], "more than 100000000 pixels"),
        ([EPS, encoded("PNG")], "not an image"),
        ([b"", encoded("PNG")], "empty file"),
        ([None, encoded("PNG")], "empty file"),
        ([{"bytes": None, "path": "/etc/passwd"}, {"bytes": encoded("PNG"), "path": ""}], "empty"),
        ([5, 6], "holds int, expected the bytes of images"),
        (["/etc/passwd", "x"], "holds str, expected the bytes of images"),
        ([[1], [2]], "holds ndarray, expected the bytes of images"),
    ],
)
def test_malicious_parquet_rows_are_refused(images, problem, tmp_path, little_memory):
    parquet(tmp_path / "train.parquet", images)
    with pytest.raises(ValueError, match=rf"train\.parquet.*{problem}"):
        list_parquet_images(tmp_path, "train", None, "error")
