from __future__ import annotations

import albumentations as A
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tff.augmentations.blur import GaussianBlur

IMAGE = np.random.default_rng(0).integers(0, 256, (31, 20, 3), dtype=np.uint8)


def original(image, sigma):
    """As CNNDetection's code has it: channel by channel, in place."""
    image = image.copy()
    for c in range(3):
        gaussian_filter(image[..., c], output=image[..., c], sigma=sigma)
    return image


def blurred(image, sigma, exact):
    before = image.copy()
    found = GaussianBlur((sigma, sigma), exact=exact, p=1)(image=image)["image"]
    assert np.array_equal(image, before)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    return found


@pytest.fixture
def sigmas(rng):
    return [
        0,
        1e-200,
        1e-9,
        0.1,
        0.124,
        0.125,
        0.3,
        1.5,
        3,
        rng.uniform(0, 1),
        *rng.uniform(0, 3, 4),
    ]


def test_exact_blur_equals_scipy_bit_for_bit(pictures, sigmas):
    for name, image in pictures.items():
        for sigma in sigmas:
            same = np.array_equal(blurred(image, sigma, True), original(image, sigma))
            assert same, f"{name}, sigma {sigma}"


def test_fast_blur_is_within_one_gray_level(pictures, sigmas):
    for name, image in pictures.items():
        for sigma in sigmas:
            far = blurred(image, sigma, False).astype(int) - original(image, sigma)
            assert np.abs(far).max() <= 1, f"{name}, sigma {sigma}"


def test_fast_blur_is_equal_nearly_everywhere(rng):
    image = rng.integers(0, 256, (120, 120, 3), dtype=np.uint8)
    for sigma in (0.5, 1.5, 3):
        differ = blurred(image, sigma, False) != original(image, sigma)
        assert differ.mean() < 0.01, f"sigma {sigma}"


def test_large_sigma_equals_scipy(pictures):
    for name in ("noise", "half white", "flat", "3x5"):
        image = pictures[name]
        found = blurred(image, 11.3, True)
        assert np.array_equal(found, original(image, 11.3)), name
        far = blurred(image, 11.3, False).astype(int) - original(image, 11.3)
        assert np.abs(far).max() <= 1, name


def test_sigma_is_uniform_and_seeded():
    blur = GaussianBlur((0.5, 2.5))
    draws = []
    for _ in range(2):
        blur.set_random_seed(3)
        draws.append([blur.get_params()["sigma"] for _ in range(2000)])
    assert draws[0] == draws[1]
    counts, _ = np.histogram(draws[0], bins=4, range=(0.5, 2.5))
    assert counts.sum() == 2000
    assert counts.min() > 400


@pytest.mark.parametrize("exact", [False, True])
def test_seed_reproduces_the_image(exact):
    pipeline = A.Compose([GaussianBlur(exact=exact, p=0.5)])

    def run(seed: int) -> bytes:
        pipeline.set_random_seed(seed)
        return b"".join(pipeline(image=IMAGE)["image"].tobytes() for _ in range(4))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_exact_and_fast_mode_draw_the_same_numbers():
    drawn = []
    for exact in (False, True):
        blur = GaussianBlur(exact=exact, p=0.5)
        blur.set_random_seed(5)
        found = [blur(image=IMAGE)["image"] for _ in range(40)]
        drawn.append([not np.array_equal(image, IMAGE) for image in found])
        last = blur.get_params()["sigma"]
        drawn[-1].append(last)
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("p", [0, 0.1, 1])
def test_probability_is_the_fraction_of_blurred_images(p):
    blur = GaussianBlur((1, 3), p=p)
    blur.set_random_seed(0)
    changed = np.mean([(blur(image=IMAGE)["image"] != IMAGE).any() for _ in range(1000)])
    assert abs(changed - p) < 0.04


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": (3, 0)}, r"sigma=\[3, 0\]: expected \[low, high\] with low <= high"),
        ({"sigma": (-1, 3)}, r"sigma=\[-1, 3\]: .* each a number of at least 0"),
        ({"sigma": (0, float("nan"))}, "each a number"),
        ({"sigma": (0, float("inf"))}, "each a number"),
        ({"sigma": (0, 1, 2)}, r"\[low, high\]"),
        ({"sigma": 3}, "sigma=3: expected"),
        ({"sigma": ("0", "3")}, "each a number"),
        ({"p": 1.5}, "p=1.5: expected a number from 0 to 1"),
        ({"p": -0.1}, "p=-0.1: expected a number from 0 to 1"),
        ({"p": float("nan")}, "p=nan: expected a number from 0 to 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=rf"GaussianBlur\..*{message}"):
        GaussianBlur(**options)
