"""Trees as users have them: splits and names of any kind, and what is left out is reported."""

from __future__ import annotations

import io
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.data.test_layout import KINDS, SETS, expand

from tff.analyses.audit import Audit
from tff.analyses.engine.subject import Subject
from tff.data.folder import Folder, require_one_root

SPLITS = ("train", "val", "test")


def put(root, pattern, count=3, suffix="png"):
    """Pictures of noise, all different, in the folders of a pattern."""
    rng = np.random.default_rng(len(list(root.rglob("*"))))
    for folder in expand(pattern):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{number}.{suffix}")
    return root


def count(folder, split):
    """Generator -> number of real and of generated images."""
    table = folder.manifest(split)
    return {
        name: (int((rows["label"] == 0).sum()), int(rows["label"].sum()))
        for name, rows in table.groupby("generator")
    }


@pytest.mark.parametrize(
    "pattern", [f"{SETS}/gan/{KINDS}", f"gan/{SETS}/{KINDS}", f"gan/{KINDS}/{SETS}"]
)
def test_splits_at_any_depth(pattern, tmp_path):
    folder = Folder(str(put(tmp_path, pattern)))
    assert folder.has_splits
    assert folder.available_splits() == list(SPLITS)
    for split in SPLITS:
        assert count(folder, split) == {"gan": (3, 3)}
        assert all(f"/{split}/" in path for path in folder.manifest(split)["path"])


def test_class_called_like_a_split_divides_nothing(tmp_path, caplog):
    folder = Folder(str(put(tmp_path, f"{{train,car,dog}}/{KINDS}", count=12)))
    assert not folder.has_splits
    counts = [count(folder, split) for split in SPLITS]
    assert all(set(found) == {"car", "dog", "train"} for found in counts)
    assert sum(found["train"][0] for found in counts) == 12
    assert caplog.text.count("train: names of generators or classes here, not splits") == 1


def test_other_spellings_of_splits(tmp_path, caplog):
    folder = Folder(str(put(tmp_path / "faces", f"{{train,valid,Test}}/{KINDS}")))
    assert [count(folder, split) for split in SPLITS] == [{"faces": (3, 3)}] * 3
    assert "folders read as splits: Test as test, valid as val" in caplog.text


def test_tree_without_generators_has_one_name(tmp_path, monkeypatch):
    root = put(tmp_path / "faces", SETS + "/{real,fake}")
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(root)
    for name in (root, tmp_path / "link", ".", "../faces", root / "test"):
        folder = Folder(str(name))
        assert {*count(folder, "test")} == {"faces"}
        require_one_root(Folder(str(root)), folder)
    assert [set(count(Folder(str(root), generator="gan"), s)) for s in SPLITS] == [{"gan"}] * 3
    put(tmp_path / "named", f"gan/{KINDS}")
    with pytest.raises(ValueError, match=r"data\.generator=x: .* name the generators.*: gan"):
        Folder(str(tmp_path / "named"), generator="x").images("test")
    put(tmp_path / "faces", f"test/faces/{KINDS}")
    with pytest.raises(ValueError, match=r"folder faces, .*data\.generator=NAME"):
        Folder(str(root)).images("test")


def test_namesakes_are_not_one_generator(tmp_path):
    first = put(tmp_path / "a/images", "{real,fake}")
    second = put(tmp_path / "b/images", "{real,fake}")
    with pytest.raises(ValueError, match=r"a/images and .*b/images: .*data\.generator=NAME"):
        require_one_root(Folder(str(first)), Folder(str(second)))
    require_one_root(Folder(str(first)), Folder(str(second), generator="images"))
    require_one_root(Folder(str(first)), Folder(str(first / ".." / "images")))
    layout = {"test": {"folders": ["{label}"]}}
    with pytest.raises(ValueError, match=r"a/images and .*b/images"):
        require_one_root(Folder(str(first)), Folder(str(second), layout=layout))
    layout["test"]["generator"] = "gan"
    require_one_root(Folder(str(first)), Folder(str(second), layout=layout))
    put(tmp_path / "c/images", f"gan/{KINDS}")
    require_one_root(Folder(str(tmp_path / "c/images")), Folder(str(second)))


def test_generators_for_the_test_only(tmp_path):
    root = put(tmp_path, f"gan/{SETS}/{KINDS} sd/{KINDS}")
    with pytest.raises(ValueError, match=r"divide gan, but not sd; .*data\.test_only=\[sd\]"):
        Folder(str(root)).images("train")
    folder = Folder(str(root), test_only=["sd"])
    assert [list(count(folder, split)) for split in SPLITS] == [["gan"], ["gan"], ["gan", "sd"]]
    with pytest.raises(ValueError, match=r"data\.test_only=\['ds'\]: unknown; known are gan, sd"):
        Folder(str(root), test_only=["sd", "ds"]).images("test")


def test_generators_for_the_test_only_of_an_undivided_tree(tmp_path):
    root = put(tmp_path, f"{{gan,sd}}/{KINDS}", count=40)
    folder, usual = Folder(str(root), test_only=["sd"]), Folder(str(root))
    assert count(folder, "test")["sd"] == (40, 40)
    for split in SPLITS:
        assert count(folder, split)["gan"] == count(usual, split)["gan"]
        assert folder.manifest(split)["path"].is_monotonic_increasing
    assert "sd" not in count(folder, "train") | count(folder, "val")
    every = Folder(str(root), test_only="all")
    assert every.available_splits() == ["test"]
    assert count(every, "test") == {"gan": (40, 40), "sd": (40, 40)}
    with pytest.raises(ValueError, match=r"no train images, only test; .*data\.test_only=all"):
        every.images("train")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("generator", ""), ("generator", 1), ("test_only", [1.5]), ("test_only", [None]),
        ("test_only", []), ("test_only", True), ("split_folders", "maybe"), ("split_folders", 1),
    ],
)  # fmt: skip
def test_options_are_checked(option, value, tmp_path):
    with pytest.raises(ValueError, match=rf"data\.{option}=.*: expected"):
        Folder(str(tmp_path), **{option: value})


def test_options_are_not_for_sets_with_a_layout(tmp_path):
    with pytest.raises(ValueError, match=r"data\.test_only .*data=folder"):
        Folder(str(tmp_path), layout={"test": {"folders": ["{label}"]}}, test_only="all")


def test_links_that_generators_share(tmp_path):
    put(tmp_path, "pool", count=5)
    put(tmp_path / "set", "{gan,sd,ldm}/1_fake", count=4)
    for name in ("gan", "sd", "ldm"):
        (tmp_path / "set" / name / "0_real").symlink_to(tmp_path / "pool")
    folder = Folder(str(tmp_path / "set"), test_only="all")
    assert count(folder, "test") == {name: (5, 4) for name in ("gan", "ldm", "sd")}


def oddities(root):
    """A tree with 6 images of each label, and whatever else programs leave in it."""
    put(root, f"gan/{KINDS}", count=6)
    put(root, "gan/0_real/.ipynb_checkpoints .Trash-1000/files/old/0_real", count=2)
    put(root, "gan/1_fake/@eaDir/0.png", count=1)
    put(root, "gan/1_fake", count=1, suffix="ppm")
    for name in ("a.txt", "b.heic", "c.heic", "README", "d.png.part"):
        (root / "gan/0_real" / name).write_text("x")
    (root / "gan/0_real/back").symlink_to(root)
    (root / "sd/1_fake").mkdir(parents=True)
    return root


ODD = (
    "not read: 5 in hidden folders (.Trash-1000, .ipynb_checkpoints, @eaDir), 2 .heic, "
    "1 .png.part, 1 .ppm, 1 .txt, 1 without suffix, 1 link back to a folder above "
    "(gan/0_real/back); nothing to read in sd/1_fake."
)


def test_what_is_left_out_is_reported_once(tmp_path, caplog):
    root = oddities(tmp_path / "set")
    for _ in range(2):  # from the cached list, too
        caplog.clear()
        folder = Folder(str(root), test_only="all", cache=str(tmp_path / "cache"))
        images = folder.test()
        assert len(images) == 12
        assert images.notes == (f"Image folder {root}: {ODD}",)
        folder.all_splits()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.message == f"Image folder {root}: {ODD}"


def test_what_is_left_out_is_in_the_audit_once(tmp_path):
    put(tmp_path, f"{SETS}/gan/{KINDS}", count=6)
    (tmp_path / "val/gan/0_real/b.heic").touch()
    result = Audit()(Subject.of(None, Folder(str(tmp_path)).all_splits()))
    (line,) = [line for line in result.warnings if ".heic" in line]
    assert line == f"train, discovery, test: Image folder {tmp_path}: not read: 1 .heic."


def test_what_is_left_out_of_a_named_set(tmp_path, caplog):
    put(tmp_path, f"{{gan,sd}}/{KINDS} extra", count=2)
    (tmp_path / "gan/0_real/.cache").mkdir()
    shutil.copy(tmp_path / "extra/0.png", tmp_path / "gan/0_real/.cache/0.png")
    (tmp_path / "gan/0_real/b.heic").touch()
    layout = {"test": {"folders": ["{generator}/{class*}/{label}"]}}
    images = Folder(str(tmp_path), layout=layout).all_splits().test
    assert images.notes == (
        f"Image folder {tmp_path}: not read: 1 in hidden folders (.cache), 1 .heic; not read: 2 "
        "images in folders without a label (extra).",
    )
    assert caplog.text.count("not read: 1 in hidden folders") == 1


def test_images_without_a_label_beside_splits(tmp_path):
    root = put(tmp_path, f"{SETS}/gan/{KINDS} figures")
    (note,) = Folder(str(root)).test().notes
    assert note.endswith(": not read: 3 images in folders without a label (figures).")
    put(root, "val/figures")
    with pytest.raises(ValueError, match=r"no folder above val/figures/0\.png.* says real or fake"):
        Folder(str(root)).images("val")


def test_labels_that_contradict_each_other(tmp_path):
    put(tmp_path, "sd/{real,fake}/{nature,people}")
    with pytest.raises(ValueError, match=r"contradict .*: sd/fake/nature \(fake and nature\)"):
        Folder(str(tmp_path)).test()


def test_generator_called_like_a_label(tmp_path):
    assert {*count(Folder(str(put(tmp_path, f"{{ai,sd}}/{KINDS}")), test_only="all"), "test")} == {
        "ai", "sd",
    }  # fmt: skip


def parquet(path, count=4, **columns):
    def image(number):
        file = io.BytesIO()
        Image.new("RGB", (5, 4), (number, 9, 9)).save(file, "PNG")
        return file.getvalue()

    rows = {
        "image_data": [image(number) for number in range(count)],
        "label": [number % 2 for number in range(count)], "model_name": ["flux"] * count,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows | columns).to_parquet(path)


PARQUET = {"train": {"parquet": True}, "test": {"parquet": True}}


def test_parquet_files_through_links_and_beside_hidden_ones(tmp_path, caplog):
    parquet(tmp_path / "elsewhere/0.parquet")
    root = tmp_path / "set"
    parquet(root / ".cache/huggingface/0.parquet")
    parquet(root / "data/test/1.parquet")
    parquet(root / "validation-0.parquet")
    parquet(root / "rows.parquet", split=["Testing", "holdout", "testing", "holdout"])
    (root / "test").symlink_to(tmp_path / "elsewhere")
    (root / "test/2.parquet.part").touch()
    data = Folder(str(root), layout=PARQUET)
    images = data.test()
    assert len(images) == 4 + 4 + 2
    assert images.notes == (
        f"Image folder {root}: not read: 1 in hidden folders (.cache), 1 .parquet.part.",
        f"Image folder {root}: not read: 6 images of other splits (holdout, val).",
    )
    assert caplog.text.count(".cache") == 1


@pytest.mark.parametrize("name", ["valley", "testimonials", "0000"])
def test_parquet_file_without_a_split(name, tmp_path):
    parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=rf"{name}\.parquet: nothing says .*train-0\.parquet"):
        Folder(str(tmp_path), layout=PARQUET).test()
