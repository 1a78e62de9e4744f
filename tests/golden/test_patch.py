"""Boxes of patches against those of the authors' released code, on maps of relevance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tff.relevance.lrp import LRP
from tff.relevance.patch import locate_patch, positive_heat

FILE = np.load(Path(__file__).with_name("patch.npz"))


@pytest.mark.parametrize("number", range(6))
def test_boxes(number):
    heat, expected = FILE[f"map{number}"], FILE["boxes"][number].tolist()
    assert list(locate_patch(heat, "paper")) == expected
    if heat.any():
        top, bottom, left, right = expected
        expected = [top, bottom + 1, left, right + 1]
    assert list(locate_patch(heat)) == expected


def test_a_single_pixel_is_lost_by_the_released_code_only():
    heat = FILE["map5"]
    assert np.count_nonzero(heat) == 1
    assert locate_patch(heat, "paper").empty
    box = locate_patch(heat)
    assert (box.bottom - box.top, box.right - box.left) == (1, 1)
    assert heat[box.top, box.left] == heat.max()


def test_patches_of_the_golden_networks(case):
    if "lrpmax_keys" not in case.file:
        assert case.name == "dead_layer"
        return
    engine = LRP(case.network.double(), box=case.name != "efficientnet")
    images = case.images[:1].double()
    for key, expected in zip(case.file["lrpmax_keys"], case.file["lrpmax_box"], strict=True):
        found = engine.explain_maximum(images, *case.channel(str(key)))
        heat = positive_heat(found.pixels[0])
        assert list(locate_patch(heat, "paper")) == expected.tolist()
        assert heat.any() == (found.value[0] > 0)
