import numpy as np
import pytest
import torch
from PIL import Image

from tff.ablations.compression import Resize

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
