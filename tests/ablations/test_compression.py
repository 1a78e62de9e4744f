"""JPEG and resizing, against Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from tff.ablations.compression import JPEG, Resize

SMOOTH = np.random.default_rng(0).normal(0, 0.4, (2, 3, 40, 48)).cumsum(-1).cumsum(-2)
BYTES = (128 + 40 * np.tanh(SMOOTH / 4)).astype(np.uint8)
IMAGE = torch.from_numpy(BYTES) / 255


@pytest.mark.parametrize("quality", [1, 50, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_pixels_are_those_of_a_file(quality, subsampling, tmp_path):
    found = JPEG(quality, subsampling)(IMAGE)
    for index, pixels in enumerate(BYTES):
        file = tmp_path / f"{index}.jpg"
        Image.fromarray(pixels.transpose(1, 2, 0)).save(
            file, quality=quality, subsampling=subsampling
        )
        expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
        assert torch.equal(found[index], expected)


@pytest.mark.parametrize("quality", [30, 75])
def test_blocks_hold_whole_multiples_only(quality):
    """What JPEG takes away: all that is finer than the steps of its table."""
    gray = IMAGE[:, :1].expand_as(IMAGE)
    result = JPEG(quality, "4:4:4")(gray)
    assert torch.equal(result, result[:, :1].expand_as(result))
    file = io.BytesIO()
    Image.fromarray(BYTES[0, 0]).save(file, "JPEG", quality=quality)
    steps = np.array(Image.open(file).quantization[0]).reshape(8, 8)

    def remainder(image):
        blocks = 255 * image[:, 0].numpy().reshape(2, 5, 8, 6, 8).swapaxes(2, 3) - 128
        multiples = dctn(blocks, axes=(-2, -1), norm="ortho") / steps
        return np.linalg.norm(steps * (multiples - np.rint(multiples)), axis=(-2, -1))

    # Each of 64 pixels is rounded by half a level at most: a length of 4 in a block.
    assert remainder(result).max() <= 4 + 1e-4
    assert np.median(remainder(gray)) > 10


def test_chroma_is_subsampled():
    stripes = torch.zeros(1, 3, 16, 16)
    stripes[:, 0, :, ::2], stripes[:, 2, :, 1::2] = 1, 1  # red and blue columns

    def contrast(subsampling):
        result = JPEG(95, subsampling)(stripes)
        difference = result[:, 0] - result[:, 2]
        return float((difference[..., ::2] - difference[..., 1::2]).abs().mean())

    assert contrast("4:4:4") > 1.8
    assert contrast("4:2:2") < 0.2
    assert contrast("4:2:0") < 0.2


def test_lower_quality_takes_more():
    off = [float((JPEG(quality)(IMAGE) - IMAGE).abs().mean()) for quality in (95, 50, 10)]
    assert off[0] < off[1] < off[2]


@pytest.mark.parametrize("off", [-1e-3, 1e-3])
def test_values_are_rounded_to_bytes(off):
    assert torch.equal(JPEG()(IMAGE + off), JPEG()(IMAGE))


FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pale(height, width):
    numbers = np.random.default_rng(0).uniform(0.4, 0.6, (2, 3, height, width))
    return torch.from_numpy(numbers.astype(np.float32))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("factor", [1.5, 2, 5])
@pytest.mark.parametrize("size", [(32, 48), (37, 21), (1, 9)])
def test_as_pillow_on_floats(name, factor, size):
    image = pale(*size)
    result = Resize(factor, name)(image)
    small = [max(1, round(side / factor)) for side in reversed(size)]
    for planes, found in zip(image, result, strict=True):
        for plane, got in zip(planes, found, strict=True):
            down = Image.fromarray(plane.numpy()).resize(small, FILTERS[name])
            up = np.asarray(down.resize(size[::-1], FILTERS[name]))
            torch.testing.assert_close(got, torch.from_numpy(up.copy()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("factor", "left"), [(2, 8), (4, 4), (16, 1), (64, 1)])
def test_no_more_numbers_are_left_than_small_pixels(name, factor, left):
    """A row of 16 pixels goes through `left` ones: changes of single pixels span that much."""
    flat = torch.full((1, 3, 1, 16), 0.5, dtype=torch.float64)
    changed = flat.repeat(16, 1, 1, 1) + 0.1 * torch.eye(16, dtype=torch.float64)[:, None, None]
    cue = Resize(factor, name)
    response = (cue(changed) - cue(flat))[:, 0, 0]
    assert torch.linalg.matrix_rank(response, rtol=1e-6) == left


def test_the_finest_stripes_go_and_flat_areas_stay():
    stripes = torch.zeros(1, 3, 16, 16)
    stripes[..., ::2] = 1
    torch.testing.assert_close(Resize(2)(stripes)[..., 4:-4], torch.full((1, 3, 16, 8), 0.5))
    flat = torch.full((1, 3, 11, 7), 0.3)
    torch.testing.assert_close(Resize(3)(flat), flat)


def test_factor_one_takes_nothing():
    for name in FILTERS:
        torch.testing.assert_close(Resize(1, name)(pale(9, 8)), pale(9, 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    ("size", "factor"), [((9, 2), 2), ((3, 1), 2), ((11, 4), 3.3), ((64, 90), 64)]
)
def test_the_layout_in_memory_changes_nothing(name, size, factor):
    cue, image = Resize(factor, name), pale(*size)
    found = cue(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, cue(image.double()).float(), rtol=0, atol=1e-5)
