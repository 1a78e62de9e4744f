"""Planted data: simple statistics find each cue where it was planted, in the control nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tff.data.synthetic import planted
from tff.data.synthetic.planted import Planted, PlantedSettings, build
from tff.data.synthetic.planted_cues import CUES

SIZE, COUNTS = 32, {"train": 6, "val": 4, "test": 200}
LABELS = np.repeat([0, 1], COUNTS["test"])
Statistics = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def data(cache: Path, **options: Any) -> Planted:
    chosen: dict[str, Any] = {"size": SIZE, "counts": {"train": 6, "val": 4, "test": 3}}
    return Planted(str(cache), **chosen | options)


def files(folder: Path) -> dict[str, str]:
    """Relative name -> digest of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels(folder: Path) -> NDArray[np.float64]:
    return np.stack([np.asarray(Image.open(f), float) for f in sorted(folder.iterdir())])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with many test images of every cue."""
    return build(
        tmp_path_factory.mktemp("planted") / "set",
        PlantedSettings(size=SIZE, counts=COUNTS, cue="blur"),
    )


def colors(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean and spread of each channel, correlations of channels and of their details."""
    rows = []
    for image in images:
        flat, steps = image.reshape(-1, 3), np.diff(image, axis=1).reshape(-1, 3)
        pairs = [np.corrcoef(v.T)[np.triu_indices(3, 1)] for v in (flat, steps)]
        rows.append(np.concatenate([flat.mean(0), np.log(flat.std(0) + 1), *pairs]))
    return np.nan_to_num(np.array(rows))


def spectra(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log power of the mean of the channels in rings of frequencies, and at those of grids."""
    power = np.log(np.square(np.abs(np.fft.fft2(images.mean(axis=3)))) + 1)
    cycles = np.fft.fftfreq(SIZE)
    ring = (np.hypot(cycles[:, None], cycles) * 20).astype(int)
    rings = [power[:, ring == number].mean(axis=1) for number in range(ring.max())]
    return np.stack([*rings, power[:, 16, 16], power[:, 8, 8], power[:, 8, 24]], axis=1)


def edges_of_blocks(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log steps between neighbouring columns, for each of the eight places of a grid of blocks."""
    steps = np.abs(np.diff(images.mean(axis=3), axis=2)).mean(axis=1)
    return np.log(np.stack([steps[:, place::8].mean(axis=1) for place in range(8)], axis=1) + 0.1)


ALL = (colors, spectra, edges_of_blocks)


def auc(folder: Path, cue: str, statistics: tuple[Statistics, ...]) -> float:
    """Area under the ROC curve of a logistic regression, learned on one half, judged on the other.

    Not cross-validated: where there is nothing to find, pooled scores of folds fall below 0.5.
    """
    images = np.concatenate([pixels(folder / "test" / cue / k) for k in ("0_real", "1_fake")])
    rows = np.concatenate([f(images) for f in statistics], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    half = np.arange(len(rows)) % COUNTS["test"] < COUNTS["test"] // 2
    model.fit(rows[half], LABELS[half])
    return float(roc_auc_score(LABELS[~half], model.decision_function(rows[~half])))


# 2.58 standard errors (99 %, since several are tested) of an AUC of 0.5 with n of each label:
# sqrt((n + n + 1) / (12 n n))
CHANCE = 2.58 * float(np.sqrt((COUNTS["test"] + 1) / (3 * COUNTS["test"] ** 2)))


@pytest.mark.parametrize("cue", sorted(set(CUES) - {"none"}))
def test_every_planted_cue_is_found(folder: Path, cue: str) -> None:
    assert auc(folder, cue, ALL) > 0.8


def test_nothing_is_found_in_the_control(folder: Path) -> None:
    for statistics in (ALL, *((one,) for one in ALL)):
        assert abs(auc(folder, "none", statistics) - 0.5) < CHANCE


def test_no_statistic_of_the_control_differs_more_than_by_chance(folder: Path) -> None:
    """Permutations of the labels say how large the largest of all differences may be."""
    images = np.concatenate([pixels(folder / "test/none" / k) for k in ("0_real", "1_fake")])
    rows = np.concatenate([f(images) for f in ALL], axis=1)
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
    rng = np.random.default_rng(0)

    def largest(labels: NDArray[np.int64]) -> float:
        return float(np.abs(rows[labels == 1].mean(axis=0) - rows[labels == 0].mean(axis=0)).max())

    chance = [largest(rng.permutation(LABELS)) for _ in range(500)]
    assert np.mean(np.array(chance) >= largest(LABELS)) > 0.05


def test_each_cue_shows_in_its_own_statistics_only(folder: Path) -> None:
    assert auc(folder, "chroma", (colors,)) > 0.8
    assert auc(folder, "checkerboard", (spectra,)) > 0.95
    # Both were JPEG: colors tell next to nothing, the place of the blocks does.
    assert abs(auc(folder, "jpeg_grid", (colors,)) - 0.5) < CHANCE
    assert auc(folder, "jpeg_grid", (edges_of_blocks,)) > 0.8


@pytest.mark.parametrize("cue", ["chroma", "none"])
def test_no_luminance_tells_chroma_and_control(folder: Path, cue: str) -> None:
    weights = np.array([19595, 38470, 7471])

    def gray(images: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.repeat((images @ weights + 2**15)[..., None] // 2**16, 3, axis=3)

    found = auc(folder, cue, (lambda i: spectra(gray(i)), lambda i: edges_of_blocks(gray(i))))
    assert abs(found - 0.5) < CHANCE


def test_blocks_of_counterfeits_begin_at_the_first_pixel(folder: Path) -> None:
    steps = edges_of_blocks(pixels(folder / "test/jpeg_grid/1_fake")).mean(axis=0)
    assert steps.argmax() == 7  # between the columns 7 and 8
    others = edges_of_blocks(pixels(folder / "test/jpeg_grid/0_real")).mean(axis=0)
    assert np.ptp(others) < np.ptp(steps) / 2


def test_tree_and_files_of_one_kind(folder: Path) -> None:
    count = {part: len(list(folder.glob(f"{part}/*/*/*.png"))) for part in COUNTS}
    assert count == {"train": 2 * 6, "val": 2 * 4, "test": 6 * 2 * 200}
    assert {p.name for p in folder.glob("t[re][as]*/*")} == set(CUES)
    assert {p.name for p in folder.glob("[tv][ra]*/*")} == {"blur"}
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size, image.format) == ("RGB", (SIZE, SIZE), "PNG")
            assert not image.info


@pytest.mark.parametrize("cue", CUES)
def test_counterfeits_are_other_crops_than_the_photographs(folder: Path, cue: str) -> None:
    real, fake = (pixels(folder / "test" / cue / kind) for kind in ("0_real", "1_fake"))
    distance = np.abs(real - fake).mean(axis=(1, 2, 3))
    assert np.median(distance) > 20  # of 255; a counterpart would be within about 5


def test_cues_counts_and_batches_of_each_split(tmp_path: Path) -> None:
    chosen = data(tmp_path, cue="checkerboard", batch_size=12)
    chosen.prepare_data()
    for split, cues, count in (("train", {"checkerboard"}, 6), ("test", set(CUES), 3)):
        table = chosen.manifest(split)
        assert set(table["generator"]) == cues
        assert (table.groupby(["generator", "label"]).size() == count).all()
    batch = next(iter(chosen.train_dataloader()))
    assert batch.image.shape == (12, 3, SIZE, SIZE)


def test_seed_decides_every_byte(tmp_path: Path) -> None:
    first, again, other = (
        files(data(tmp_path / name, seed=seed).folder())
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again
    assert set(first) == set(other)
    assert not [name for name in first if first[name] == other[name]]


def test_one_folder_for_each_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data(tmp_path).folder()
    others = [data(tmp_path, **o).folder() for o in ({"cue": "none"}, {"strength": 2}, {"seed": 1})]
    assert len({first, *others}) == 4
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["settings"]["cue"] == "chroma"
    assert all(p["licence"] for part in manifest["photographs"].values() for p in part)
    monkeypatch.setattr(planted, "build", lambda *args: pytest.fail("was built again"))
    assert data(tmp_path, strength=1).folder() == first


def test_strength_and_cue_change_nothing_else(tmp_path: Path) -> None:
    usual, other = (
        files(data(tmp_path, **options).folder() / "test")
        for options in ({}, {"cue": "blur", "strength": 2.0})
    )
    alike = {name for name in usual if usual[name] == other[name]}
    same = {n for n in usual if n.startswith("none/") or ("0_real" in n and "jpeg_grid" not in n)}
    assert alike == same


def test_nothing_is_left_of_a_build_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(CUES, "none", fail)  # the last of all
        with pytest.raises(KeyboardInterrupt):
            data(tmp_path).folder()
    assert list(tmp_path.iterdir()) == []
    assert (data(tmp_path).folder() / "manifest.json").is_file()


def test_own_photographs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        image = np.random.default_rng(seed).integers(256, size=(80, 90, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{seed}.png")
    chosen = data(tmp_path / "cache", photos=str(tmp_path / "photos"))
    listed = json.loads((chosen.folder() / "manifest.json").read_text())["photographs"]
    assert {len(listed[part]) for part in ("train", "val", "test")} == {1}
    with pytest.raises(ValueError, match=r"\d\.png is 90x80, smaller than 96 pixels"):
        data(tmp_path / "cache", photos=str(tmp_path / "photos"), size=64).folder()
    with pytest.raises(ValueError, match="no such folder"):
        data(tmp_path / "cache", photos=str(tmp_path / "nowhere")).folder()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cue": "colour"}, r"data\.cue=colour: expected one of chroma, checkerboard"),
        ({"strength": 0}, r"data\.strength=0: expected a number above 0; 1 is"),
        ({"strength": float("nan")}, r"data\.strength=nan: expected a number above 0"),
        ({"size": 36}, r"data\.size=36: expected a multiple of 8"),
        ({"size": 8}, r"data\.size=8: expected a multiple of 8, at least 16"),
        ({"counts": {"train": 1}}, "at least 1, for each of train, val, test"),
        ({"counts": {"train": 1, "val": 0, "test": 1}}, "at least 1, for each"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []
