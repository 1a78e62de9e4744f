"""Pipes, devices, odd names and malicious Parquet rows among the images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers.forged_images import EPS, encoded, jpeg, png
from tests.helpers.tiny import tree

from tff.comparisons.runs import find_runs
from tff.comparisons.sweep import Sweep
from tff.data.dataset import read_bytes
from tff.data.folder import Folder, list_parquet_images
from tff.data.synthetic.photographs import load_folder
from tff.data.tree import _require_utf8


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
        with pytest.raises(
            ValueError, match=rf"{name}: cannot be read \(.*{name}: is a (pipe|device), not a file"
        ):
            read_bytes(str(root / "seen/1_fake" / name))
    os.mkfifo(root / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows\.parquet: is a pipe, not a file"):
        list_parquet_images(root, "train", None, "error")


def test_files_too_large_for_any_picture_are_not_read(root):
    path = root / "seen/1_fake/0.png"
    os.truncate(path, 1 << 40)  # without any content, on a disk that can do so
    with pytest.raises(ValueError, match=r"0\.png \(more than 1,073,741,824 bytes\)"):
        Folder(root=str(root)).images("all")
    with pytest.raises(ValueError, match=r"0\.png: has more than 1,073,741,824 bytes"):
        read_bytes(str(path))


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


def test_utf8_name_that_python_does_not_read_as_such():
    """As in a notebook where LC_ALL=C: surrogates stand for bytes above 127."""
    path = Path("照片.png".encode().decode("ascii", "surrogateescape"))
    with pytest.raises(ValueError, match=r"file 照片\.png: .* start it with PYTHONUTF8=1"):
        _require_utf8(path.parent, [path.name])


def test_folder_named_like_a_parquet_row(root):
    (root / "seen").rename(root / "x.parquet::1")
    images = Folder(root=str(root)).images("all")
    assert len(images)
    assert all(images[0, row].image.shape == (3, 32, 32) for row in range(len(images)))


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
        ([[1], [2]], "the column image_data holds list<"),
    ],
)
def test_malicious_parquet_rows_are_refused(images, problem, tmp_path, little_memory):
    parquet(tmp_path / "train.parquet", images)
    with pytest.raises(ValueError, match=rf"train\.parquet.*{problem}"):
        list_parquet_images(tmp_path, "train", None, "error")


@pytest.mark.parametrize(
    "name",
    [
        "finished.json", "failed.json", "logs/train/metrics.csv", "report/results.json",
        ".hydra/hydra.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml",
        "report/tables/detection.csv", "report/summary.json",
    ],
)  # fmt: skip
def test_a_pipe_in_a_run_is_the_reason_why_that_run_does_not_count(name, tmp_path):
    for run in ("0", "1"):
        (tmp_path / run / ".hydra").mkdir(parents=True)
        (tmp_path / run / ".hydra/config.yaml").write_text("seed: 1\n")
    path = tmp_path / "1" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    if name.startswith("report"):
        (tmp_path / "1/finished.json").write_text("{}")
    table = Sweep(str(tmp_path))().tables["sweep"].set_index("run")
    assert table["state"].tolist() == ["unfinished", "damaged"]
    assert f"{path}: is a pipe, not a file" in table.loc["1", "error"]


def test_links_that_lead_back_are_followed_once(tmp_path):
    """A hundred of them, three deep, would be a million folders."""
    (tmp_path / "sweeps/b/0/.hydra").mkdir(parents=True)
    for number in range(100):
        (tmp_path / f"sweeps/a{number}").symlink_to(tmp_path)
    (tmp_path / "sweeps/self").symlink_to("self")
    assert [run.name for run in find_runs(str(tmp_path))] == ["0"]


def test_a_folder_that_cannot_be_read_is_a_damaged_job(tmp_path, monkeypatch):
    for run in ("0", "1"):
        (tmp_path / run / ".hydra").mkdir(parents=True)
    listdir, stat = os.listdir, os.stat

    def refuse(path):
        if str(path).startswith(f"{tmp_path}/1/"):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", lambda path: refuse(f"{path}/") or listdir(path))
    monkeypatch.setattr(os, "stat", lambda path, **how: refuse(path) or stat(path, **how))
    table = Sweep(str(tmp_path))().tables["sweep"].set_index("run")
    assert table["state"].tolist() == ["unfinished", "damaged"]
    assert "/1/" in table.loc["1", "error"]
    assert "permission denied" in table.loc["1", "error"]


@pytest.mark.parametrize("struct", [False, True])
def test_a_parquet_file_that_names_an_image_a_million_times_is_refused(
    struct, tmp_path, little_memory
):
    """Two megabytes of an image, a million times: two terabytes."""
    number, image = 1_000_000, pa.array([bytes(2_000_000)])
    images = pa.DictionaryArray.from_arrays(pa.array(np.zeros(number, np.int32)), image)
    if struct:
        images = pa.StructArray.from_arrays([images], ["bytes"])
    names = pa.array(["g"] * number)
    table = pa.table({"image_data": images, "label": [1] * number, "model_name": names})
    pq.write_table(table, tmp_path / "train.parquet", store_schema=False)
    assert (tmp_path / "train.parquet").stat().st_size < 200_000
    with pytest.raises(ValueError, match=r"train\.parquet: .* would unfold to 2,000,00\d,\d{3},"):
        list_parquet_images(tmp_path, "train", None, "error")
    with pytest.raises(ValueError, match=r"train\.parquet::0\.0: .* would unfold to 2,000,"):
        read_bytes(f"{tmp_path / 'train.parquet'}::0.0")


@pytest.mark.parametrize("damage", ["bits", "cut", "zeros"])
def test_a_damaged_parquet_file_of_images_is_named(damage, tmp_path, rng):
    parquet(tmp_path / "train.parquet", [encoded("PNG"), encoded("JPEG")])
    whole = (tmp_path / "train.parquet").read_bytes()
    for _ in range(40):
        data = bytearray(whole)
        at = int(rng.integers(len(data)))
        if damage == "bits":
            data[at] ^= 1 << rng.integers(8)
        elif damage == "cut":
            del data[at:]
        else:
            data[at : at + 30] = bytes(30)
        (tmp_path / "train.parquet").write_bytes(data)
        try:
            list_parquet_images(tmp_path, "train", None, "error")
        except ValueError as error:
            assert str(tmp_path) in str(error)
