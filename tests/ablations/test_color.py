"""Color cues, against Pillow and by their definitions."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from tff.ablations.color import (
    ChromaSwap,
    Grayscale,
    Hue,
    Saturation,
    luma,
    merge_luma_chroma,
    split_luma_chroma,
)
from tff.ablations.frequency import LuminanceBlur

GENERATOR = np.random.default_rng(0)
PICTURES = {
    "random": GENERATOR.integers(0, 256, (128, 128, 3)),
    "flat": np.full((8, 8, 3), 77),
    "saturated": np.array([*product((0, 1, 254, 255), repeat=3)]).reshape(8, 8, 3),
    "grays": np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grayscale_is_pillows(name, dtype):
    pixels = PICTURES[name].astype(np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    found = Grayscale()(torch.cat([image, image.flip(1)]).to(dtype) / 255)
    for gray, source in zip(found, (pixels, pixels[..., ::-1]), strict=True):
        luma = torch.from_numpy(np.array(Image.fromarray(source.copy()).convert("L")))
        assert torch.equal(gray, (luma.to(dtype) / 255).expand(3, -1, -1))


@pytest.mark.parametrize("off", [-1e-4, 1e-4])
def test_grayscale_takes_values_as_bytes(off):
    image = torch.from_numpy(PICTURES["random"]).permute(2, 0, 1)[None] / 255
    assert torch.equal(Grayscale()(image + off), Grayscale()(image))


def test_grayscale_twice_is_once():
    image = torch.rand(2, 3, 9, 9).mul(255).round() / 255
    kept = image.clone()
    once = Grayscale()(image)
    assert torch.equal(image, kept)
    assert torch.equal(Grayscale()(once), once)


def test_equal_cues_are_equal():
    assert {Grayscale(): 1}[Grayscale()] == 1
    assert Grayscale.cue == "color"


BYTES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 19, 24)))
VIVID = BYTES.double() / 255
PALE = 0.5 + 0.1 * (VIVID - 0.5)  # any luma of it goes with any chroma of it
KNOWN = {"red": 109, "yellow": 171, "green": 232, "cyan": 289, "blue": 351, "magenta": 52}
PURE = {
    "red": (1, 0, 0),
    "yellow": (1, 1, 0),
    "green": (0, 1, 0),
    "cyan": (0, 1, 1),
    "blue": (0, 0, 1),
    "magenta": (1, 0, 1),
}


def close(a, b, off=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=off)


def saturation(image):
    return split_luma_chroma(image)[1].norm(dim=1)


def angle(image):
    blue, red = split_luma_chroma(image)[1].unbind(1)
    return torch.atan2(red, blue)


def test_luma_and_chroma_are_those_of_pillow():
    brightness, chroma = split_luma_chroma(VIVID)
    found = torch.cat([brightness, chroma + 128 / 255], dim=1)
    for image, planes in zip(BYTES, found, strict=True):
        pixels = image.permute(1, 2, 0).numpy().astype(np.uint8)
        expected = np.asarray(Image.fromarray(pixels).convert("YCbCr")) / 255
        close(planes.permute(1, 2, 0), torch.from_numpy(expected), 1.01 / 255)


def test_apart_and_together_again():
    close(merge_luma_chroma(*split_luma_chroma(VIVID)), VIVID)


def test_colors_that_do_not_exist_lose_saturation_only():
    brightness, chroma = luma(VIVID), split_luma_chroma(VIVID.flip(0))[1]
    result = merge_luma_chroma(brightness, chroma)
    assert 0 <= result.min() <= result.max() <= 1
    close(luma(result), brightness)
    got = split_luma_chroma(result)[1]
    close(got[:, 0] * chroma[:, 1], got[:, 1] * chroma[:, 0])  # the same direction
    assert (got * chroma).sum(1).min() >= -1e-12
    smaller = got.norm(dim=1) < chroma.norm(dim=1) - 1e-9
    at_the_end = (result.amin(1) < 1e-9) | (result.amax(1) > 1 - 1e-9)
    assert smaller.any()
    assert at_the_end[smaller].all()  # no more than needed


def test_chroma_swap_keeps_luma_and_turns_chroma():
    close(luma(ChromaSwap()(VIVID)), luma(VIVID))
    close(luma(ChromaSwap()(VIVID.float())), luma(VIVID.float()), 1e-6)
    close(split_luma_chroma(ChromaSwap()(PALE))[1], split_luma_chroma(PALE.rot90(2, (-2, -1)))[1])
    close(ChromaSwap()(ChromaSwap()(PALE)), PALE)


@pytest.mark.parametrize("degrees", [0, 52, 120, 200, 300, -30])
def test_one_hue_for_all(degrees):
    result = Hue(angle=degrees)(PALE)
    close(luma(result), luma(PALE))
    close(saturation(result), saturation(PALE))
    off = torch.remainder(angle(result) - math.radians(degrees) + math.pi, 2 * math.pi) - math.pi
    close(off, torch.zeros_like(off), 1e-6)
    vivid = Hue(angle=degrees)(VIVID)
    close(luma(vivid), luma(VIVID))
    assert (saturation(vivid) <= saturation(VIVID) + 1e-9).all()


@pytest.mark.parametrize("degrees", [-90, 45, 180])
def test_turned_hues_keep_their_differences(degrees):
    result = Hue(angle=degrees, mode="turn")(PALE)
    close(luma(result), luma(PALE))
    close(saturation(result), saturation(PALE))
    turned = torch.remainder(angle(result) - angle(PALE), 2 * math.pi)
    close(turned, torch.full_like(turned, math.radians(degrees % 360)), 1e-6)
    close(Hue(angle=-degrees, mode="turn")(result), PALE)


@pytest.mark.parametrize("name", KNOWN)
def test_hues_lie_where_the_docstring_says(name):
    color = torch.tensor(PURE[name], dtype=torch.float64).reshape(1, 3, 1, 1)
    assert round(math.degrees(float(angle(color)))) % 360 == KNOWN[name]


def test_gray_has_no_hue():
    gray = Grayscale()(VIVID)
    close(Hue()(gray), gray)


def test_saturation_times_one_minus_strength():
    for strength in (0.25, 0.75):
        result = Saturation(strength)(VIVID)
        close(luma(result), luma(VIVID))
        close(split_luma_chroma(result)[1], (1 - strength) * split_luma_chroma(VIVID)[1])
    close(Saturation(0)(VIVID), VIVID)
    close(Saturation(1)(VIVID), Grayscale()(VIVID), 0.51 / 255)
    close(Saturation(1.0)(VIVID), luma(VIVID).expand_as(VIVID))


@pytest.mark.parametrize("sigma", [1.5, 4])
def test_luminance_blur_leaves_chroma(sigma):
    result = LuminanceBlur(sigma)(PALE)
    close(split_luma_chroma(result)[1], split_luma_chroma(PALE)[1])
    expected = gaussian_filter(luma(PALE).numpy(), (0, 0, sigma, sigma), truncate=8)
    close(luma(result), torch.from_numpy(expected), 1e-5)
