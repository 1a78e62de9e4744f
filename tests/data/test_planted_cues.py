"""Each cue changes one property, held against Pillow, SciPy and definitions written out here."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tff.data.synthetic import photographs
from tff.data.synthetic.photographs import sample_patches
from tff.data.synthetic.planted_cues import CUES, REAL, luma

SIZE = 64


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise() -> NDArray[np.uint8]:
    return rng().integers(256, size=(6, SIZE, SIZE, 3), dtype=np.uint8)


def flat() -> NDArray[np.uint8]:
    colors = rng(1).integers(40, 216, size=(6, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colors, (6, SIZE, SIZE, 3)).copy()


def saturated() -> NDArray[np.uint8]:
    """Each channel of each pixel at an end of the range or one beside it."""
    return rng(2).choice(np.array([0, 1, 254, 255], np.uint8), size=(6, SIZE, SIZE, 3))


def natural() -> NDArray[np.uint8]:
    return sample_patches(photographs.load_embedded()["train"], 6, SIZE, rng(3))


KINDS = (noise, flat, saturated, natural)
images_of = pytest.mark.parametrize("kind", KINDS)


def gray(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.asarray(Image.fromarray(image).convert("L"), np.int64)


def differences(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What a color is beside its lightness: red and blue minus green."""
    return images[..., [0, 2]].astype(np.int64) - images[..., [1]]


def radius() -> NDArray[np.float64]:
    """Cycles per pixel of each coefficient of the spectrum, counted one by one."""
    cycles = [i if i <= SIZE // 2 else i - SIZE for i in range(SIZE)]
    return np.array([[(a**2 + b**2) ** 0.5 / SIZE for b in cycles] for a in cycles])


@images_of
@pytest.mark.parametrize("cue", [*CUES, "other_grid"])
def test_keeps_shape_and_input_and_follows_its_random_numbers(
    cue: str, kind: Callable[[], NDArray[np.uint8]]
) -> None:
    change = REAL["jpeg_grid"] if cue == "other_grid" else CUES[cue]
    images = kind()
    before = images.copy()
    for given in (images, images[0]):
        first, again = (change(given, 1.0, rng(5)) for _ in range(2))
        assert first.shape == given.shape
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)
        assert not np.shares_memory(first, images)
    assert np.array_equal(images, before)


def test_luma_is_that_of_pillow() -> None:
    for image in (*noise(), *saturated()):
        assert np.array_equal(luma(image), gray(image))


@images_of
@pytest.mark.parametrize("strength", [0.3, 1.0, 8.0])
def test_chroma_leaves_the_luminance_of_every_pixel(
    kind: Callable[[], NDArray[np.uint8]], strength: float
) -> None:
    images = kind()
    changed = CUES["chroma"](images, strength, rng())
    for image, other in zip(images, changed, strict=True):
        assert np.array_equal(gray(image), gray(other))
    assert (images != changed).any()


def test_chroma_lowers_the_correlation_of_details_between_channels() -> None:
    def correlation(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        steps = np.diff(images.astype(float), axis=2).reshape(len(images), -1, 3)
        return np.array([np.corrcoef(s.T)[np.triu_indices(3, 1)] for s in steps]).mean(axis=0)

    images = natural()
    before, some, more = (
        correlation(i) for i in (images, *(CUES["chroma"](images, s, rng()) for s in (1.0, 2.0)))
    )
    assert (before > some + 0.02).all()
    assert (some > more).all()


def test_chroma_adds_noise_without_a_tint() -> None:
    images = flat()
    added = CUES["chroma"](images, 1.0, rng()).astype(float) - images
    assert np.abs(added.mean(axis=(1, 2))).max() < 0.8  # 12 levels / sqrt(4096), four times
    weights = np.array([0.299, 0.587, 0.114])
    expected = 12 * np.sqrt(1 - 2 * weights + (weights**2).sum())  # of n - w.n, n standard normal
    assert added.std(axis=(0, 1, 2)) == pytest.approx(expected, rel=0.03)


@images_of
@pytest.mark.parametrize("cue", ["checkerboard", "highfreq"])
@pytest.mark.parametrize("strength", [0.5, 1.0, 20.0])
def test_cues_of_luminance_leave_the_differences_between_channels(
    cue: str, kind: Callable[[], NDArray[np.uint8]], strength: float
) -> None:
    images = kind()
    changed = CUES[cue](images, strength, rng())
    assert np.array_equal(differences(images), differences(changed))


def test_checkerboard_has_periods_of_two_and_four_pixels_only() -> None:
    images = flat()
    added = CUES["checkerboard"](images, 1.0, rng()).astype(int) - images
    assert np.abs(added).max() == 12
    assert (added.mean(axis=(1, 2)) == 0).all()
    for image in added:
        peaks = {tuple(i) for i in np.argwhere(np.abs(np.fft.fft2(image[..., 0])) > 1e-6)}
        quarter = (SIZE // 4, 3 * SIZE // 4)
        assert peaks == {(SIZE // 2, SIZE // 2), *((a, b) for a in quarter for b in quarter)}


def test_highfreq_touches_high_frequencies_only() -> None:
    images = natural() // 4 + 96  # far enough from the ends of the range
    added = CUES["highfreq"](images, 1.0, rng()).astype(float) - images
    power = np.square(np.abs(np.fft.fft2(added[..., 0]))).mean(axis=0) / SIZE**2
    rounding = 1 / 12  # variance of rounding, which is spread over all frequencies alike
    assert power[radius() <= 0.25].mean() < 1.2 * rounding
    before = np.square(np.abs(np.fft.fft2(images @ [0.299, 0.587, 0.114]))).mean(axis=0) / SIZE**2
    row = np.fft.rfftfreq(SIZE)
    for column in (24, 28, 32):  # 3/8, 7/16 and 1/2 cycles per pixel: 1.5, 2.25 and 3 times more
        gain = 3 * (row[column] - 0.25) / 0.25
        expected = gain**2 * before[:, column] + rounding
        inside = radius()[:, column] == row[column]
        assert power[inside, column] == pytest.approx(expected[inside], rel=0.7)


@pytest.mark.parametrize("strength", [0.5, 1.0, 3.0])
def test_jpeg_grid_is_what_pillow_makes_of_the_image(strength: float) -> None:
    for image in natural():
        file = io.BytesIO()
        Image.fromarray(image).save(
            file, "JPEG", quality=round(100 / (1 + strength)), subsampling=0
        )
        assert np.array_equal(
            CUES["jpeg_grid"](image, strength, rng()), np.asarray(Image.open(file))
        )


def test_jpeg_of_photographs_has_another_block_offset() -> None:
    """Blocks of the inner part are blocks of the same JPEG of a window that begins there."""
    image = natural()[0]
    grid: NDArray[Any] = np.arange(64).reshape(8, 8)
    found = np.zeros((8, 8), int)
    for seed in range(400):
        changed = REAL["jpeg_grid"](image, 1.0, rng(seed))
        place = int(rng(seed).integers(1, 64))
        (row,), (column,) = np.nonzero(grid == place)
        found[row, column] += 1
        if seed < 40:
            window = image[row : row + 56, column : column + 56]
            expected = CUES["jpeg_grid"](window, 1.0, rng())
            assert np.array_equal(changed[row : row + 56, column : column + 56], expected)
    assert found[0, 0] == 0
    assert (found.ravel()[1:] > 0).all()


def test_odd_sides_are_compressed_too() -> None:
    image = natural()[0][:37, :50]
    assert CUES["jpeg_grid"](image, 1.0, rng()).shape == (37, 50, 3)
    assert REAL["jpeg_grid"](image, 1.0, rng()).shape == (37, 50, 3)


def test_blur_is_a_gaussian_of_its_strength() -> None:
    point = np.zeros((SIZE, SIZE, 3), np.uint8)
    point[32, 32] = (255, 200, 100)
    changed = CUES["blur"](point, 2.0, rng()).astype(float)
    offsets = np.arange(SIZE) - 32
    bell = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 2.0**2))
    expected = bell[..., None] / bell.sum() * point[32, 32]
    assert np.abs(changed - expected).max() < 0.6
    assert np.array_equal(CUES["blur"](flat(), 1.0, rng()), flat())


def test_blur_does_not_mix_images() -> None:
    images = natural()
    alone = [CUES["blur"](image, 1.0, rng()) for image in images]
    assert np.array_equal(CUES["blur"](images, 1.0, rng()), alone)


@images_of
def test_control_changes_nothing(kind: Callable[[], NDArray[np.uint8]]) -> None:
    assert np.array_equal(CUES["none"](kind(), 1.0, rng()), kind())


def test_photographs_are_unchanged_unless_both_are_compressed() -> None:
    assert REAL.keys() == CUES.keys()
    for cue in set(CUES) - {"jpeg_grid"}:
        assert np.array_equal(REAL[cue](natural(), 1.0, rng()), natural())
    assert not np.array_equal(REAL["jpeg_grid"](natural(), 1.0, rng()), natural())
