"""Groups of images: how they are found, that they are never divided, and what is said of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.data import test_parquet

from tff.data.dataset import Used
from tff.data.folder import Folder
from tff.data.groups import GROUP, find_groups
from tff.data.synthetic import autogan, image_tree, planted
from tff.data.synthetic.photographs import (
    Credit,
    Photograph,
    load_embedded,
    photographs_of_patches,
    sample_patches,
)

PERSON = r"p(?P<person>\d+)_"


def put(root: Path, *files: str) -> Path:
    """Pictures of noise, all different."""
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / file)
    return root


def people(root: Path, count: int = 40, images: int = 3) -> Path:
    """An undivided tree of persons with some images each, real and generated."""
    return put(root, *(
        f"gan/{kind}/p{person}_{number}.png"
        for kind in ("0_real", "1_fake") for person in range(count) for number in range(images)
    ))  # fmt: skip


def found(rule: str, *files: str, generator: str = "gan") -> list[str]:
    table = pd.DataFrame({"path": [f"/set/{file}" for file in files], "generator": generator})
    return find_groups(rule, Path("/set"), table).tolist()


def test_rules(tmp_path):
    files = ("gan/0_real/p1_a.png", "gan/1_fake/p1_a.jpg", "gan/1_fake/p22_b.x.png")
    assert found("name", *files) == ["p1_a", "p1_a", "p22_b.x"]
    assert found(PERSON, *files) == ["1", "1", "22"]
    assert found(r"0_real/(p\d)", *files) == ["p1", "", ""]  # the others stand alone
    assert found(r"^(gan)/0_real|q(?:x)", *files) == ["gan", "", ""]
    folders = ("gan/car/0_real/7/a.png", "gan/train/8/1_fake/a.png", "9/gan/test/0_real/b.png")
    assert found("folder", *folders) == ["7", "8", "9"]
    (tmp_path / "groups.csv").write_text(
        "note,path,group\nx,gan/0_real/p1_a.png,NA\ny,gan/1_fake/p1_a.jpg,NA\n"
        'z,gan/1_fake/p22_b.x.png,\n,other.png,"é, 1"\n', encoding="utf-8"
    )  # fmt: skip
    assert found(str(tmp_path / "groups.csv"), *files) == ["NA", "NA", ""]


def test_root_of_any_form(tmp_path, monkeypatch):
    put(tmp_path / "set", "real/a.png", "fake/a.png")
    monkeypatch.chdir(tmp_path / "set")
    for root in (".", "../set", str(tmp_path / "set"), f"{tmp_path}/set/"):
        table = Folder(root, group="^(?:real|fake)/(.)", test_only="all").manifest("test")
        assert table["group"].tolist() == ["a", "a"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("(x)", r"\(x\): matches no image of .*, such as gan/0_real/a.png; .* below the root"),
        ("folder", r"folder: no folder above 4 of 4 images, such as gan/0_real/a.png, names a"),
        ("photo", r"data\.group=photo: expected name .*, folder, a regular expression"),
        ("none.csv", r"none\.csv"),
        ("name.csv", r"name\.csv: no column group"),
        ("few.csv", r"few\.csv: no row for 3 of 4 images, such as gan/0_real/b.png; its paths"),
        ("two.csv", r"two\.csv: two groups for gan/0_real/a.png"),
        ("bad.csv", r"bad\.csv: cannot be read as CSV \(.*\)$"),
    ],
)
def test_what_cannot_be_found_is_named(tmp_path, monkeypatch, rule, message):
    root = put(tmp_path / "set", *(f"gan/{k}/{n}.png" for k in ("0_real", "1_fake") for n in "ab"))
    monkeypatch.chdir(tmp_path)
    row = "gan/0_real/a.png,1\n"
    Path("name.csv").write_text("path,name\n" + row)
    Path("few.csv").write_text("path,group\n" + row)
    Path("two.csv").write_text("path,group\n" + row + "gan/0_real/a.png,2\n")
    Path("bad.csv").write_text('path,group\n"a')
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        Folder(str(root), group=rule, test_only="all").images("test")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rule", ["(", "(a)(b)", "()|(b)", "", " ", 3, True, "(?:a)"])
def test_impossible_rules(rule, tmp_path):
    with pytest.raises(ValueError, match=r"data\.group=.*: expected name .* with one group"):
        Folder(str(tmp_path), group=rule)


def test_only_files_are_completed(tmp_path):
    assert GROUP.complete("(a).csv", tmp_path) == f"{tmp_path}/(a).csv"
    assert GROUP.complete("../b.csv", tmp_path / "x") == f"{tmp_path}/b.csv"
    assert GROUP.complete(PERSON, tmp_path) == PERSON


def test_numbers_of_groups(tmp_path):
    root = people(tmp_path, count=3, images=2)
    images = Folder(str(root), group=r"0_real/p(\d)_", test_only="all").images("test")
    names, numbers = images.manifest["group"], images.groups
    assert numbers.shape == (12,) and numbers.dtype == np.int64
    assert [len(set(numbers[names == name])) for name in "012"] == [1, 1, 1]
    assert len(set(numbers)) == 3 + 6  # those without a group are on their own
    assert "6 of 12 images belong to no group." in images.notes
    assert Folder(str(root), test_only="all").images("test").groups is None
    assert Folder(str(root), group=PERSON).unit == "person"
    assert set(images.select(["gan"], None).subsample(2).groups) <= set(range(12))


@pytest.mark.parametrize("layout", [False, True])
def test_a_group_is_never_divided(tmp_path, layout, caplog):
    root = people(tmp_path / "train" if layout else tmp_path)
    options = {"layout": {"train": {"folders": ["train/{generator}/{label}"]}}} if layout else {}
    splits = ("train", "val") if layout else ("train", "val", "test")
    data = Folder(str(tmp_path), group=PERSON, **options)
    groups = {split: set(data.manifest(split)["group"]) for split in splits}
    assert sum(len(found) for found in groups.values()) == 40
    assert set.union(*groups.values()) == set(map(str, range(40)))
    for split in splits[1:]:
        assert not data.note_shared_groups(data.images(split)).notes
    # Without the option, persons are on both sides, and this can be seen.
    apart = {split: Folder(str(tmp_path), **options).images(split) for split in splits}
    names = {
        split: set(images.manifest["path"].str.extract(PERSON)["person"])
        for split, images in apart.items()
    }
    assert names["train"] & names["val"]
    assert root.is_dir()


def test_same_names_are_divided_as_before(tmp_path):
    root = people(tmp_path)
    usual, named = (Folder(str(root), group=rule) for rule in (None, "name"))
    for split in ("train", "val", "test"):
        assert usual.manifest(split)["path"].tolist() == named.manifest(split)["path"].tolist()


def test_too_few_groups_for_a_division(tmp_path):
    root = people(tmp_path, count=1, images=9)
    with pytest.raises(ValueError, match=r"too few groups \(1 of data\.group\) for a \w+ set"):
        [Folder(str(root), group=PERSON).images(split) for split in ("train", "val", "test")]


def test_groups_in_training_and_test_are_reported(tmp_path, caplog):
    files = [f"{split}/gan/{kind}/p{person}_{split}.png"
             for kind in ("0_real", "1_fake")
             for split, persons in (("train", "123"), ("val", "14"), ("test", "356"))
             for person in persons]  # fmt: skip
    data = Folder(str(put(tmp_path, *files)), group=PERSON)
    with caplog.at_level(logging.WARNING):
        test, discovery = data.test(), data.discovery()
    note = "2 of 6 images belong to 1 person of which other images are in training: "
    assert test.notes[-1].startswith(note)
    assert discovery.notes[-1].startswith("2 of 4 images belong to 1 person of which other images")
    assert note in caplog.text
    assert not Folder(str(tmp_path), group="name").test().notes


def test_images_of_the_groups_of_those_left_out_are_counted(tmp_path):
    root = people(tmp_path, count=4, images=2)
    images = Folder(str(root), group=PERSON, test_only="all").images("test")
    used = images.digests[(images.manifest["path"].str.contains("0_real/p[01]_0")).to_numpy()]
    left = images.leave_out(Used(used))
    # Persons 0 and 1 have one real and two generated images left, each.
    assert left.notes[-1].endswith(
        "they are left out; 6 of those that are left belong to 2 persons of theirs."
    )


def test_column_of_parquet_files(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    scenes = [None if i == 39 else i // 4 for i in range(40)]
    test_parquet.write(root / "a.parquet", 40, scene=scenes, text=[str(i) for i in range(40)])
    options = {"layout": test_parquet.LAYOUT, "fractions": (0.5, 0.4), "cache": str(tmp_path)}
    data = Folder(str(root), group="scene", **options)
    test = data.images("test")
    assert test.manifest["group"].tolist() == [str(i // 4) for i in range(20, 39)] + [""]
    assert test.unit == "scene"
    train, val = (set(data.manifest(split)["group"]) for split in ("train", "val"))
    assert train | val == set("01234") and not train & val
    with pytest.raises(ValueError, match=r"a\.parquet: data\.group=name cannot be read .*column"):
        Folder(str(root), group="name", **options).images("test")


@pytest.mark.parametrize("kind", ["autogan", "planted"])
def test_photographs_of_generated_sets(tmp_path, monkeypatch, kind):
    counts = {"train": 3, "val": 2, "test": 4}
    if kind == "planted":
        data = planted.Planted(str(tmp_path), size=32, counts=counts)
    else:
        data = autogan.AutoGAN(str(tmp_path), size=32, steps=1)
        settings = {"size": 32, "counts": counts, "seen": "nearest", "unseen": ["bilinear"]}
        data.settings = autogan.AutoGANSettings(**settings, steps=1)
    test = data.images("test")
    assert data.unit == "photograph"
    assert set(test.manifest["group"]) <= {"coffee", "grace_hopper"}
    assert set(data.manifest("val")["group"]) == {"chelsea"}
    assert not data.test().notes
    # The table is a record: nothing is computed again, and a missing one is.
    with monkeypatch.context() as patch:
        patch.setattr(type(data), "find_sources", lambda self: pytest.fail("computed again"))
        assert data.list_images("test").table["group"].equals(test.manifest["group"])
    (data.folder() / image_tree.SOURCES).unlink()
    assert data.list_images("test").table["group"].equals(test.manifest["group"])
    with pytest.raises(ValueError, match=r"data\.group=name: leave it out"):
        planted.Planted(str(tmp_path), group="name")


def test_photographs_of_patches_are_those_that_were_sampled(rng):
    """Photographs of noise in ranges of their own, some of it too even to be sampled."""
    pixels = {f"from {n}": rng.integers(n, n + 60, (40, 50, 3), dtype=np.uint8) for n in (0, 100)}
    for image in pixels.values():
        image[:, :30] = image[0, 0]
    photos = [Photograph(name, image, Credit("", "", "")) for name, image in pixels.items()]
    seed = int(rng.integers(1000))
    patches, names = (
        function(photos, 30, 12, np.random.default_rng(seed))
        for function in (sample_patches, photographs_of_patches)
    )
    assert names == [f"from {100 if patch.min() >= 100 else 0}" for patch in patches]
    assert len(set(names)) == 2


def test_real_image_comes_from_its_photograph(tmp_path):
    """Real images of `planted` are crops: found in the named photograph, and in no other one."""
    data = planted.Planted(str(tmp_path), size=32, counts={"train": 4, "val": 1, "test": 4})
    photographs = {p.name: p.pixels for p in load_embedded()["test"]}
    table = data.manifest("test")
    rows = table[(table["label"] == 0) & (table["generator"] == "none")]
    assert len(rows) == 4

    def holds(pixels, patch):
        first = (pixels == patch[0, 0]).all(-1)
        size = len(patch)
        for top, left in np.argwhere(first):
            if np.array_equal(pixels[top : top + size, left : left + size], patch):
                return True
        return False

    for path, group in zip(rows["path"], rows["group"], strict=True):
        image = np.asarray(Image.open(path))
        views = [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]
        for name, pixels in photographs.items():
            assert any(holds(pixels, view) for view in views) == (name == group)
