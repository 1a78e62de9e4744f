"""The embedded data set: disjoint photographs, aligned counterparts, reproducible, atomic."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tff.data.synthetic import autogan, image_tree, photographs
from tff.data.synthetic.autogan import (
    MARGIN,
    UPSAMPLERS,
    Autoencoder,
    AutoGANSettings,
    build,
    reconstruct,
    train,
)
from tff.data.synthetic.photographs import sample_patches

SMALL: dict[str, Any] = {
    "size": 32,
    "counts": {"train": 6, "val": 3, "test": 4},
    "seen": "transposed4",
    "unseen": ["nearest"],
    "steps": 3,
}


def files(folder: Path) -> dict[str, str]:
    """Relative name -> digest of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(f), float) for f in sorted(folder.iterdir())])


def noise(path: Path, seed: int, width: int = 80, height: int = 80) -> Path:
    image = np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return build(tmp_path_factory.mktemp("autogan") / "set", AutoGANSettings(**SMALL))


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set whose generators are trained."""
    settings = AutoGANSettings(**SMALL | {"steps": 200})
    return build(tmp_path_factory.mktemp("autogan") / "set", settings)


def cached(root: Path, **settings: Any) -> Path:
    """Folder of a data set below `root`, built if missing."""
    return image_tree.get_or_build(
        root, "autogan", autogan.RECIPE, AutoGANSettings(**settings), autogan.build
    )


def test_tree_matches_the_settings(folder: Path) -> None:
    count = {part: len(list(folder.glob(f"{part}/*/*/*.png"))) for part in photographs.SPLITS}
    assert count == {"train": 2 * 6, "val": 2 * 3, "test": 2 * 2 * 4}
    assert {p.name for p in folder.glob("test/*")} == {"transposed4", "nearest"}
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size, image.format) == ("RGB", (32, 32), "PNG")


def test_manifest_credits_every_photograph(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 0
    assert set(manifest["l1_error_on_val_patches"]) == {"transposed4", "nearest"}
    listed = [photo for part in photographs.SPLITS for photo in manifest["photographs"][part]]
    assert len(listed) == len(photographs.EMBEDDED)
    assert all(photo["author"] and photo["licence"] and photo["source"] for photo in listed)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_fake_is_the_counterpart_of_the_real_file_of_its_name(
    trained_folder: Path, part: str
) -> None:
    real, fake = (pixels(trained_folder / part / "transposed4" / c) for c in ("0_real", "1_fake"))
    distance = np.abs(real[:, None] - fake[None]).mean(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == np.arange(len(real))).all()
    assert 0.5 < distance.diagonal().mean() < 40  # of 255: neither a copy nor something else


def test_test_generators_have_real_patches_of_their_own(folder: Path) -> None:
    one, other = (
        set(files(folder / "test" / g / "0_real").values()) for g in ("transposed4", "nearest")
    )
    assert one.isdisjoint(other)


def test_embedded_photographs_are_disjoint_and_complete() -> None:
    split = photographs.load_embedded()
    digests = [hashlib.sha256(p.pixels.tobytes()).digest() for part in split.values() for p in part]
    assert len(set(digests)) == len(digests) == 7
    assert [len(split[part]) for part in photographs.SPLITS] == [4, 1, 2]


def test_generators_learn_from_training_photographs_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_by_generators: list[str] = []

    def spy(name: str, photos: list[photographs.Photograph], *rest: Any) -> Autoencoder:
        seen_by_generators.extend(photo.name for photo in photos)
        return train(name, photos, *rest)

    monkeypatch.setattr(autogan, "train", spy)
    build(tmp_path / "set", AutoGANSettings(**SMALL))
    assert set(seen_by_generators) == {"astronaut", "flower", "rocket", "china"}


def test_patches_come_from_the_photographs_and_have_texture() -> None:
    ramp = np.zeros((40, 50, 3), np.uint8)
    ramp[:, 25:] = np.arange(25)[:, None] * 10  # the left half is flat
    photo = photographs.Photograph("ramp", ramp, photographs.Credit("", "", ""))
    drawn = sample_patches([photo], 20, 16, np.random.default_rng(0))
    assert drawn.shape == (20, 16, 16, 3)
    assert drawn.mean(axis=3).std(axis=(1, 2)).min() > 8
    flat = photo._replace(pixels=np.zeros((40, 50, 3), np.uint8))
    with pytest.raises(ValueError, match="no textured 16x16 patch in ramp"):
        sample_patches([flat], 1, 16, np.random.default_rng(0))


def test_seed_decides_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        files(build(tmp_path / name, AutoGANSettings(seed=seed, **SMALL)))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again
    assert set(first) == set(other)
    assert not [name for name in first if first[name] == other[name]]


def test_one_generator_fewer_changes_no_other(tmp_path: Path) -> None:
    both = files(build(tmp_path / "both", AutoGANSettings(**SMALL)))
    alone = files(build(tmp_path / "alone", AutoGANSettings(**SMALL | {"unseen": []})))
    alone.pop("manifest.json")
    assert alone.items() <= both.items()


def test_nothing_is_left_of_a_build_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(autogan, "reconstruct", fail)
        with pytest.raises(KeyboardInterrupt):
            cached(tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []
    assert (cached(tmp_path, **SMALL) / "manifest.json").is_file()


def test_the_slower_of_two_builds_discards_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(name: str, *rest: Any) -> Autoencoder:
        if name == "nearest":
            monkeypatch.setattr(autogan, "train", train)
            build(tmp_path / "set", AutoGANSettings(**SMALL))
            (tmp_path / "set" / "first").touch()
        return train(name, *rest)

    monkeypatch.setattr(autogan, "train", overtaken)
    build(tmp_path / "set", AutoGANSettings(**SMALL))
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set" / "first").exists()


def test_cache_is_built_once_for_each_choice_of_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached(tmp_path, **SMALL)
    other = cached(tmp_path, **SMALL | {"steps": 4})
    monkeypatch.setattr(autogan, "build", lambda *args: pytest.fail("was built again"))
    assert cached(tmp_path, **SMALL) == first != other


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_training_is_reproducible_and_leaves_the_global_random_state(upsampler: str) -> None:
    before = torch.get_rng_state()
    photos = photographs.load_embedded()["train"]
    first, again, other = (train(upsampler, photos, seed, steps=2) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    differ = [
        torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    ]
    assert all(same)
    assert not any(differ)


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_padding_does_not_reach_beyond_the_margin(upsampler: str) -> None:
    model = Autoencoder(upsampler).eval()
    wide = np.random.default_rng(0).integers(256, size=(1, 96, 96, 3), dtype=np.uint8)
    narrow = reconstruct(model, wide[:, 16:80, 16:80])[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    inner = slice(16 + MARGIN, 80 - MARGIN)
    difference = reconstruct(model, wide)[:, inner, inner].astype(int) - narrow
    assert np.abs(difference).max() <= 1  # a sum in another order may round to the other side


def test_own_photographs(tmp_path: Path) -> None:
    for number in range(4):
        noise(tmp_path / "photos" / f"{number}.png", number)
    noise(tmp_path / "photos" / "deeper" / "copy.png", 0)
    settings = SMALL | {"photos": tmp_path / "photos", "unseen": []}
    first = cached(tmp_path / "cache", **settings)
    listed = json.loads((first / "manifest.json").read_text())["photographs"]
    names = [photo["name"] for part in listed.values() for photo in part]
    assert len(names) == len(set(names)) == 4  # the copy would else be in two splits
    noise(tmp_path / "photos" / "3.png", 99)
    assert cached(tmp_path / "cache", **settings) != first


def test_folder_is_split_by_the_seed(tmp_path: Path) -> None:
    for number in range(8):
        noise(tmp_path / f"{number}.png", number)

    def names(seed: int) -> dict[str, list[str]]:
        split = photographs.load_folder(tmp_path, seed, smallest=48)
        return {part: [photo.name for photo in split[part]] for part in photographs.SPLITS}

    assert {part: len(listed) for part, listed in names(0).items()} == {
        "train": 5,
        "val": 1,
        "test": 2,
    }
    assert names(0) == names(0) != names(1)


def test_orientation_in_exif_is_applied(tmp_path: Path) -> None:
    for number in range(3):
        noise(tmp_path / f"{number}.png", number)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.open(noise(tmp_path / "0.png", 0, width=90, height=70)).save(
        tmp_path / "0.jpg", exif=exif
    )
    (tmp_path / "0.png").unlink()
    split = photographs.load_folder(tmp_path, 0, smallest=48)
    shapes = {photo.name: photo.pixels.shape for part in split.values() for photo in part}
    assert shapes["0.jpg"] == (90, 70, 3)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        photographs.load_folder(tmp_path / "none", 0, 48)
    with pytest.raises(ValueError, match="holds 0 different photographs"):
        photographs.load_folder(tmp_path, 0, 48)
    for number in range(2):
        noise(tmp_path / f"{number}.png", number)
    with pytest.raises(ValueError, match="holds 2 different photographs, at least 3"):
        photographs.load_folder(tmp_path, 0, 48)
    noise(tmp_path / "narrow.png", 2, width=47)
    with pytest.raises(ValueError, match=r"narrow\.png is 47x80, smaller than 48"):
        photographs.load_folder(tmp_path, 0, 48)
    (tmp_path / "narrow.png").write_text("no image")
    with pytest.raises(ValueError, match=r"narrow\.png cannot be read"):
        photographs.load_folder(tmp_path, 0, 48)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 34}, "data.size=34: expected a multiple of 4, at least 16"),
        ({"seen": "gan"}, "expected a list of different names from transposed4"),
        ({"unseen": ["nearest"]}, "expected a list of different names from"),
        (
            {"counts": {"train": 1}},
            "at least 1, for each of train, val, test",
        ),
    ],
)
def test_settings_that_cannot_be_used(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoGANSettings(**wrong)
