"""Layouts of public sets, files kept from run to run, and broken ones."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from tff.analyses.engine.cache import identify
from tff.atomic import temporary_path
from tff.data import manifest as listing
from tff.data.dataset import Images
from tff.data.folder import Folder
from tff.data.layout import Layout
from tff.data.manifest import list_images

CONF = Path(__file__).parents[2] / "conf"


def put(root: Path, *names: str, size=(6, 5)) -> None:
    """Pictures of noise, no two alike."""
    rng = np.random.default_rng(len(names))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def named(name, root, *options):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"data={name}", f"data.root={root}", "aug=none", "data.cache=null", *options]
        return instantiate(compose("train", ["out=x", *overrides]).data)


# Of each set: a tree as its authors give it out, in small.
TREES = {
    "forensynths": [
        *(f"{s}/{c}/{k}/{s}{i}.png" for s in ("train", "val") for c in ("car", "cat")
          for k in ("0_real", "1_fake") for i in range(2)),
        *(f"test/progan/{c}/{k}/0.png" for c in ("car", "cat") for k in ("0_real", "1_fake")),
        *(f"test/san/{k}/0.png" for k in ("0_real", "1_fake")),
    ],
    "genimage": [
        f"{g}/imagenet_ai_{g}/{s}/{k}/{i}.png" for g in ("ADM", "VQDM") for s in ("train", "val")
        for k in ("nature", "ai") for i in range(200 if s == "train" else 2)
    ],
    "universalfakedetect": [
        "imagenet/0_real/a.png", "laion/0_real/b.png", "laion/0_real/c.png",
        "guided/1_fake/d.png", "ldm_200/1_fake/e.png", "dalle/1_fake/f.png",
    ],
    "aigcdetect": [
        *(f"test/progan/{c}/{k}/0.png" for c in ("car", "cat") for k in ("0_real", "1_fake")),
        *(f"test/ADM/{k}/0.png" for k in ("0_real", "1_fake")),
    ],
    "diffusionforensics": [
        f"images/{s}/{c}/{g}/{i}.png" for s in ("train", "val", "test")
        for c in ("lsun_bedroom", "imagenet") for g in ("real", "adm", "ddpm") for i in range(2)
    ],
    "gangen": [f"{g}/{k}/0.png" for g in ("AttGAN", "SNGAN") for k in ("0_real", "1_fake")],
    "chameleon": [f"test/{k}/{i}.png" for k in ("0_real", "1_fake") for i in range(2)],
    "cifake": [
        f"{s}/{k}/{i}.png" for s in ("train", "test") for k in ("FAKE", "REAL") for i in range(60)
    ],
}  # fmt: skip
GENERATORS = {
    "forensynths": ["progan", "san"], "genimage": ["ADM", "VQDM"],
    "universalfakedetect": ["dalle", "guided", "ldm_200"], "aigcdetect": ["ADM", "progan"],
    "diffusionforensics": ["adm", "ddpm"], "gangen": ["AttGAN", "SNGAN"],
    "chameleon": ["chameleon"], "cifake": ["cifake"],
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_set_in_its_published_layout(name, tmp_path):
    put(tmp_path, *TREES[name])
    data = named(name, tmp_path)
    images = data.test()
    assert images.generators == GENERATORS[name]
    for generator in images.generators:
        labels = images.manifest["label"].iloc[images.rows_of(generator)]
        assert set(labels) == {0, 1}
    for row in images.manifest.itertuples():
        folders = Path(row.path).relative_to(tmp_path).parts
        real = bool(set(folders) & {"0_real", "nature", "real", "REAL"})
        assert row.label == (0 if real else 1)
    there = data.available_splits()
    used = [path for split in there for path in data.manifest(split)["path"]]
    assert sorted(used) == sorted(str(tmp_path / path) for path in TREES[name])
    if "train" in there:
        assert set(data.manifest("train")["label"]) == set(data.manifest("val")["label"]) == {0, 1}
    else:
        with pytest.raises(ValueError, match="no train images, only test; use"):
            data.images("train")


def test_forensynths_has_classes_and_one_generator_to_train_on(tmp_path):
    put(tmp_path, *TREES["forensynths"])
    data = named("forensynths", tmp_path)
    assert data.images("train").generators == ["progan"]
    assert set(data.manifest("train")["class"]) == {"car", "cat"}
    test = data.test().manifest
    assert set(test["class"][test["generator"] == "san"]) == {""}
    (note,) = data.test().notes
    assert note.startswith(
        "The set differs from the published one: progan has 4 images, 8,000 are published; san has "
        "2 images, 438 are published; missing are stylegan (11,982), stylegan2 (15,976), "
    )
    only = named("forensynths", tmp_path, "data.generators=[san]").test()
    assert only.notes == (
        "The set differs from the published one: san has 2 images, 438 are published.",
    )
    chosen = named("forensynths", tmp_path, "data.classes=[cat]")
    assert set(chosen.manifest("train")["class"]) == {"cat"}


def test_set_with_only_some_splits(tmp_path):
    put(tmp_path, *(name for name in TREES["forensynths"] if name.startswith("val")))
    data = named("forensynths", tmp_path)
    assert data.available_splits() == ["val"]
    splits = data.all_splits()
    assert list(splits.by_name) == ["test"]  # it stands for all
    assert len(splits.test) == 8
    with pytest.raises(ValueError, match=r"train/\{class\}"):
        data.images("train")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        named("forensynths", tmp_path / "nowhere").all_splits()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        named("forensynths", tmp_path / "empty").all_splits()


def test_generators_that_share_real_images(tmp_path):
    put(tmp_path, *TREES["universalfakedetect"])
    images = named("universalfakedetect", tmp_path).test()
    assert len(images) == 6
    assert images.counts() == {
        "dalle": "2 real, 1 generated",
        "guided": "1 real, 1 generated",
        "ldm_200": "2 real, 1 generated",
    }
    chosen = named("universalfakedetect", tmp_path, "data.generators=[guided]").test()
    names = {Path(path).name for path in chosen.manifest["path"]}
    assert names == {"a.png", "d.png"}
    with pytest.raises(ValueError, match=r"data\.generators=\['nope'\]: unknown; known are dalle"):
        named("universalfakedetect", tmp_path, "data.generators=[nope]").test()


def test_wrong_root_of_a_named_set(tmp_path):
    put(tmp_path, *TREES["forensynths"])
    with pytest.raises(ValueError, match=r"test/\{generator\}.*Is data\.root right\?"):
        named("forensynths", tmp_path / "test").test()


def test_real_images_without_generated_ones_are_named(tmp_path):
    put(tmp_path, "imagenet/0_real/a.png", "laion/0_real/b.png", "guided/1_fake/d.png")
    with pytest.raises(ValueError, match=r"laion \(only real\)"):
        named("universalfakedetect", tmp_path).test()


def test_pattern_with_an_unknown_name():
    with pytest.raises(ValueError, match=r"data\.layout\.folders=.*what.*\{generator\}"):
        Layout(["{what}/{label}"])


def test_limit_is_seeded_and_takes_classes_evenly(tmp_path):
    names = [f"g/{c}/{k}/{i}.png" for c, n in (("many", 30), ("few", 3))
             for k in ("0_real", "1_fake") for i in range(n)]  # fmt: skip
    put(tmp_path, *names)
    images = Images(list_images(tmp_path).table)
    found = images.subsample(6, seed=1)
    assert len(found) == 12
    counts = found.manifest.groupby(["label", "class"]).size()
    assert counts.tolist() == [3, 3, 3, 3]
    assert found.manifest.equals(images.subsample(6, seed=1).manifest)
    assert not found.manifest.equals(images.subsample(6, seed=2).manifest)
    assert len(images.subsample(1000)) == len(images)


def test_broken_files_are_named_or_skipped(tmp_path):
    put(tmp_path, *(f"g/{k}/{i}.png" for k in ("0_real", "1_fake") for i in range(3)))
    (tmp_path / "g" / "1_fake" / "empty.png").touch()
    (tmp_path / "g" / "1_fake" / "text.jpg").write_text("no image")
    whole = (tmp_path / "g" / "0_real" / "0.png").read_bytes()
    (tmp_path / "g" / "0_real" / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "g" / "0_real" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"4 of 10 images cannot be used") as caught:
        list_images(tmp_path)
    for name in ("empty.png (empty file)", "text.jpg (not an image)", "cut.png", "gone.png"):
        assert name in str(caught.value)
    found = list_images(tmp_path, on_corrupt="skip")
    assert len(found.table) == 6
    assert found.table.index.tolist() == list(range(6))
    assert len(found.skipped) == 4
    data = Folder(str(tmp_path), on_corrupt="skip")
    assert len(data.test().skipped) == 4
    with pytest.raises(ValueError, match=r"data\.on_corrupt=maybe: expected one of error, skip"):
        Folder(str(tmp_path), on_corrupt="maybe")


def test_many_names_are_cut_short(tmp_path):
    for i in range(30):
        path = tmp_path / "g" / "1_fake" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(ValueError, match=r"19\.png \(empty file\) and 10 more\."):
        list_images(tmp_path)


@pytest.fixture
def probed(monkeypatch):
    seen = []
    true = listing.open_regular
    monkeypatch.setattr(listing, "open_regular", lambda path: (seen.append(path), true(path))[1])
    return seen


def test_only_new_and_changed_files_are_read(tmp_path, probed):
    root, cache = tmp_path / "images", tmp_path / "cache"
    put(root, *(f"g/{k}/{i}.png" for k in ("0_real", "1_fake") for i in range(4)))
    first = list_images(root, cache=cache).table
    assert len(probed) == 8
    assert list_images(root, cache=cache).table.equals(first)
    assert len(probed) == 8
    put(root, "g/0_real/new.png")
    put(root, "g/0_real/1.png", size=(9, 9))
    (root / "g" / "1_fake" / "3.png").unlink()
    table = list_images(root, cache=cache).table
    assert {Path(p).name for p in probed[8:]} == {"new.png", "1.png"}
    pd.testing.assert_frame_equal(table, list_images(root).table)
    assert table["height"].tolist().count(9) == 1
    list_images(root, cache=cache, pixels=True)  # asks for more than is known
    assert len(probed) == 8 + 2 + 8 + 8
    list_images(root, cache=cache)
    assert len(probed) == 26
    assert [p.suffix for p in cache.iterdir()] == [".parquet"]


@pytest.mark.parametrize("exchange", ["by name", "by content"])
def test_two_files_of_one_size_and_time_that_change_places(tmp_path, exchange):
    root, cache = tmp_path / "images", tmp_path / "cache"
    paths = [root / "g/0_real/0.bmp", root / "g/1_fake/0.bmp"]
    for value, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(path)
        os.utime(path, ns=(1, 1))
    before = list_images(root, cache=cache).table
    content = [path.read_bytes() for path in paths]
    if exchange == "by name":
        spare = tmp_path / "spare"
        paths[0].rename(spare)
        paths[1].rename(paths[0])
        spare.rename(paths[1])
    else:
        for path, other in zip(paths, reversed(content), strict=True):
            path.write_bytes(other)
            os.utime(path, ns=(1, 1))
    after = list_images(root, cache=cache).table
    assert after["digest"].tolist() == before["digest"].tolist()[::-1]
    assert identify(Images(before)) != identify(Images(after))
    # Only the labels change places.
    pd.testing.assert_frame_equal(after.drop(columns="digest"), before.drop(columns="digest"))


def test_digests_of_a_table_without_them(tmp_path):
    put(tmp_path, "g/0_real/0.png", "g/1_fake/0.png")
    table = list_images(tmp_path).table
    own = Images(table.drop(columns="digest"))
    np.testing.assert_array_equal(own.digests, table["digest"])
    first = hashlib.sha256(Path(table["path"][0]).read_bytes()).digest()[:8]
    assert own.digests[0] == int.from_bytes(first, "big", signed=True)


def test_unreadable_or_unwritable_cache_is_ignored(tmp_path, probed, caplog):
    root, cache = tmp_path / "images", tmp_path / "cache"
    put(root, "g/0_real/0.png", "g/1_fake/0.png")
    table = list_images(root, cache=cache).table
    (store,) = cache.iterdir()
    store.write_bytes(b"PAR1 no more")
    assert list_images(root, cache=cache).table.equals(table)
    assert len(probed) == 4
    assert "not readable" in caplog.text
    assert list_images(root, cache=cache).table.equals(table)
    assert len(probed) == 4
    (tmp_path / "file").touch()
    assert list_images(root, cache=tmp_path / "file").table.equals(table)
    assert "nothing is cached" in caplog.text


def test_files_abandoned_by_a_killed_writer_are_removed(tmp_path):
    root, cache = tmp_path / "images", tmp_path / "cache"
    put(root, "g/0_real/0.png", "g/1_fake/0.png")
    cache.mkdir()
    for age in (0, 7200):
        part = temporary_path(cache / "images.parquet")
        part.touch()
        os.utime(part, (time.time() - age,) * 2)
    list_images(root, cache=cache)
    left = [p for p in cache.iterdir() if p.suffix == ".part"]
    assert len(left) == 1  # another one may be at it
    assert left[0].stat().st_mtime > time.time() - 3600


def test_links_to_folders_are_followed_once(tmp_path):
    put(tmp_path / "elsewhere", "0_real/0.png", "1_fake/0.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "g").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0_real" / "back").symlink_to(tmp_path / "set")
    assert len(list_images(tmp_path / "set").table) == 2


KILLED = """
import sys, time
from pathlib import Path
from tff.data import manifest as files
files._CHUNK, files._SAVE_INTERVAL = 5, 0
true = files.probe
files.probe = lambda *a: (time.sleep(0.02), true(*a))[1]
files._THREADS = 1
files.scan(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_partial_list_survives_a_kill(tmp_path, probed):
    root, cache = tmp_path / "images", tmp_path / "cache"
    put(root, *(f"g/{k}/{i}.png" for k in ("0_real", "1_fake") for i in range(100)))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root), str(cache)])
    for _ in range(600):
        if list(cache.glob("*.parquet")):
            break
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    table = list_images(root, cache=cache).table
    assert 0 < len(probed) < 200
    assert table.equals(list_images(root).table)
