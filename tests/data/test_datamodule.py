from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image

from tff.data.folder import Folder

CONF = Path(__file__).parents[2] / "conf"


def fill(
    root: Path, generators: tuple[str, ...], count: int, side: int = 8, start: int = 0
) -> None:
    for generator, label, i in product(generators, ("0_real", "1_fake"), range(count)):
        folder = root / generator / label
        folder.mkdir(parents=True, exist_ok=True)
        color = (start + i, len(generator) + ord(generator[0]), 200 * (label == "1_fake"))
        Image.new("RGB", (side, side + 1), color).save(folder / f"{start + i}.png")


def stems(folder: Folder, split: str) -> set[str]:
    return {Path(p).stem for p in folder.manifest(split)["path"]}


@pytest.fixture
def divided(tmp_path) -> Path:
    fill(tmp_path / "train", ("progan",), 6, side=20)
    fill(tmp_path / "val", ("progan",), 3, start=100)
    fill(tmp_path / "test", ("progan", "stargan"), 2, start=200)
    return tmp_path


@pytest.fixture
def undivided(tmp_path) -> Path:
    fill(tmp_path, ("a", "b"), 60)
    return tmp_path


def test_tree_with_splits(divided):
    folder = Folder(str(divided), size=8)
    assert folder.has_splits
    assert [len(folder.manifest(s)) for s in ("train", "val", "test")] == [12, 6, 8]
    splits = folder.splits()
    assert splits.discovery.manifest.equals(folder.manifest("val"))
    assert splits.test.manifest.equals(folder.manifest("test"))
    assert splits.test.generators == ["progan", "stargan"]
    limited = splits.subsample(1)
    assert [len(limited.discovery), len(limited.test)] == [2, 4]
    assert list(folder.all_splits().by_name) == ["train", "discovery", "test"]


def test_tree_with_a_missing_split(divided):
    for path in sorted((divided / "test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (divided / "test").rmdir()
    with pytest.raises(ValueError, match="no test images, only train and val; add a folder test"):
        Folder(str(divided)).manifest("test")


def test_tree_without_splits_is_divided_once(undivided):
    folder = Folder(str(undivided))
    assert not folder.has_splits
    found = {split: folder.manifest(split) for split in ("train", "val", "test")}
    paths = [p for table in found.values() for p in table["path"]]
    assert len(paths) == len(set(paths)) == 240
    assert all(table.index.tolist() == list(range(len(table))) for table in found.values())
    assert all("split" not in table for table in found.values())


def test_counterparts_fall_on_one_side(undivided):
    folder = Folder(str(undivided))
    parts = [stems(folder, split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 60 == len(set.union(*parts))
    for split, part in zip(("train", "val", "test"), parts, strict=True):
        assert len(folder.manifest(split)) == 4 * len(part)


def test_fractions_and_seed(undivided):
    folder = Folder(str(undivided), fractions=(0.6, 0.2))
    assert [len(stems(folder, s)) / 60 for s in ("train", "val", "test")] == pytest.approx(
        [0.6, 0.2, 0.2], abs=0.17
    )
    assert stems(folder, "val") == stems(Folder(str(undivided)), "val")
    assert stems(folder, "val") != stems(Folder(str(undivided), seed=1), "val")
    assert len(stems(Folder(str(undivided), fractions=(0.1, 0.1)), "train")) < 20


def test_no_image_of_an_undivided_tree_serves_two_purposes(undivided):
    folder = Folder(str(undivided), crop="center5")
    splits = folder.splits()
    train = set(folder.manifest("train")["path"])
    discovery, test = (set(images.manifest["path"]) for images in (splits.discovery, splits.test))
    assert not (train & discovery or train & test or discovery & test)
    assert len(train | discovery | test) == 240
    for images in splits[:2]:
        assert images.view.crop == "center5"
        assert images[0, 0].image.shape == (3, 5, 5)


def test_audit_of_an_undivided_tree_sees_each_image_once(undivided):
    (images,) = Folder(str(undivided)).all_splits().by_name.values()
    assert len(images) == 240


def test_images_of_the_training_are_left_out_whatever_their_name(divided):
    train, test = divided / "train/progan", divided / "test/stargan"
    shutil.copy(next((train / "0_real").iterdir()), test / "0_real/renamed.png")
    shutil.copy(next((divided / "val/progan/1_fake").iterdir()), test / "1_fake/renamed.png")
    splits = Folder(str(divided)).splits()
    assert len(splits.test) == 8
    assert splits.test.notes == (
        "1 of 10 images are among those that the detector was trained on; they are left out.",
        "1 of 9 images are among those that chose the checkpoint in training (validation images); "
        "they are left out.",
    )
    assert not splits.discovery.notes


def test_a_generator_whose_photographs_were_all_trained_on(divided):
    shutil.rmtree(divided / "test/stargan/0_real")
    shutil.copytree(divided / "train/progan/0_real", divided / "test/stargan/0_real")
    with pytest.raises(ValueError, match=r"all the real images of stargan are .* trained on.*such"):
        Folder(str(divided)).splits()
    shutil.rmtree(divided / "test/stargan/1_fake")
    shutil.copytree(divided / "train/progan/1_fake", divided / "test/stargan/1_fake")
    test = Folder(str(divided)).splits().test
    assert test.generators == ["progan"]
    assert test.notes == (
        "12 of 16 images are among those that the detector was trained on; they are left out, "
        "all of stargan.",
    )


def test_too_few_images_to_divide(tmp_path):
    fill(tmp_path, ("a",), 1)
    folder = Folder(str(tmp_path))
    for split in ("train", "val", "test"):
        if not stems_or_none(folder, split):
            break
    else:
        pytest.fail("one stem cannot be on all sides")


def stems_or_none(folder: Folder, split: str) -> set[str] | None:
    try:
        return stems(folder, split)
    except ValueError as error:
        assert f"too few images for a {split} set" in str(error)
        return None


def test_training_loader(divided):
    crop = A.Compose([A.RandomCrop(8, 8)])
    folder = Folder(str(divided), augmentation={"train": crop}, size=8, batch_size=5, seed=3)
    made = folder.train_dataloader()
    batches = list(made)
    assert [b.image.shape for b in batches] == [(5, 3, 8, 8)] * 2
    assert all(b.image.dtype == torch.uint8 for b in batches)
    rows = torch.cat([b.index for b in batches])
    assert len(rows.unique()) == 10
    labels = folder.manifest("train")["label"].to_numpy()
    assert np.array_equal(torch.cat([b.label for b in batches]), labels[rows])
    options = {"augmentation": {"train": crop}, "size": 8, "batch_size": 5, "seed": 3}
    again = list(Folder(str(divided), **options).train_dataloader())
    assert all(torch.equal(a.image, b.image) for a, b in zip(batches, again, strict=True))


def test_validation_loader(divided):
    folder = Folder(str(divided), size=8, batch_size=4)
    batches = list(folder.val_dataloader())
    assert [len(b.image) for b in batches] == [4, 2]
    assert torch.cat([b.index for b in batches]).tolist() == list(range(6))
    assert batches[0].image.shape[1:] == (3, 9, 8)


def test_too_few_images_for_the_processes(monkeypatch, divided):
    monkeypatch.setattr("tff.data.loaders.get_world_size", lambda: 3)
    monkeypatch.setattr("tff.data.datamodule.get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="6 validation images make 2 batches for 3 processes"):
        Folder(str(divided), size=8, batch_size=3).val_dataloader()
    Folder(str(divided), size=8, batch_size=2).val_dataloader()
    with pytest.raises(ValueError, match=r"12 training images do not fill one batch of 5 on each"):
        Folder(str(divided), size=8, batch_size=5).train_dataloader()


def test_images_smaller_than_the_crops(divided):
    message = (
        r"0_real/100\.png: 9x8 pixels; 6 of 6 images are smaller than data\.size=9, .*"
        r"data\.resize=9 .*aug\.resize=9"
    )
    with pytest.raises(ValueError, match=message):
        Folder(str(divided), size=9).val_dataloader()


@pytest.mark.parametrize("aug", ["blur_jpeg", "color_robust", "few_photographs", "none"])
def test_images_smaller_than_the_crops_of_the_augmentation(divided, aug):
    def make(side):
        options = [f"aug={aug}", "data=folder", f"data.root={divided}", "data.size=21"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [*options, f"aug.resize={side}", "data.batch_size=2"])
        return instantiate(cfg.data)

    for name in ("train_dataloader", "val_dataloader"):
        with pytest.raises(ValueError, match=r"pixels; \d+ of \d+ images are smaller"):
            getattr(make("null"), name)()
        getattr(make(21), name)()


def test_an_error_of_the_augmentation_names_the_image(divided):
    folder = Folder(str(divided), size=8, batch_size=5)
    images = replace(folder.images("train"), transform=A.Compose([A.RandomCrop(30, 30)]))
    with pytest.raises(ValueError, match=r"\.png: 21x20 pixels, which the augmentation"):
        images[0, 0]


def test_home_folder(monkeypatch, divided):
    monkeypatch.setenv("HOME", str(divided.parent))
    assert len(Folder(f"~/{divided.name}").manifest("val")) == 6
