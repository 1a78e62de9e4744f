from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from tff.ablations.color import Grayscale

GENERATOR = np.random.default_rng(0)
PIXELS = {
    "random": GENERATOR.integers(0, 256, (128, 128, 3)),
    "flat": np.full((8, 8, 3), 77),
    "saturated": np.array([*product((0, 1, 254, 255), repeat=3)]).reshape(8, 8, 3),
    "grays": np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2),
}


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_luma_of_pillow(name, dtype):
    pixels = PIXELS[name].astype(np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    found = Grayscale()(torch.cat([image, image.flip(1)]).to(dtype) / 255)
    for gray, source in zip(found, (pixels, pixels[..., ::-1]), strict=True):
        luma = torch.from_numpy(np.array(Image.fromarray(source.copy()).convert("L")))
        assert torch.equal(gray, (luma.to(dtype) / 255).expand(3, -1, -1))


@pytest.mark.parametrize("off", [-1e-4, 1e-4])
def test_values_are_taken_as_bytes(off):
    image = torch.from_numpy(PIXELS["random"]).permute(2, 0, 1)[None] / 255
    assert torch.equal(Grayscale()(image + off), Grayscale()(image))


def test_image_is_untouched_and_twice_is_once():
    image = torch.rand(2, 3, 9, 9).mul(255).round() / 255
    kept = image.clone()
    once = Grayscale()(image)
    assert torch.equal(image, kept)
    assert torch.equal(Grayscale()(once), once)


def test_equal_cues_are_equal():
    assert {Grayscale(): 1}[Grayscale()] == 1
    assert Grayscale.cue == "color"
