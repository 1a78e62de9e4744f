"""The box of a patch, on maps whose box is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tff.relevance.patch import Patch, locate_patch, positive_heat


def test_patch_includes_both_ends_of_a_block():
    heat = np.zeros((20, 30))
    heat[4:8, 10:13] = 0.5
    heat[5, 11] = 1
    assert locate_patch(heat) == Patch(4, 8, 10, 13)
    assert locate_patch(heat, "paper") == Patch(4, 7, 10, 12)


def test_without_positive_relevance_the_patch_is_the_image():
    for end in ("inclusive", "paper"):
        assert locate_patch(np.zeros((5, 7)), end) == Patch(0, 5, 0, 7)


def test_large_plateau_is_the_patch():
    heat = np.full((6, 8), 0.5)
    assert locate_patch(heat) == Patch(0, 6, 0, 8)
    heat[:3] = 0.1
    assert locate_patch(heat) == Patch(3, 6, 0, 8)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 12))
def test_patch_is_the_bounding_box_of_the_upper_quarter(seed, height, width):
    heat = np.random.default_rng(seed).random((height, width)) ** 4
    box = locate_patch(heat)
    hot = heat > np.percentile(heat, 75)
    inside = hot[box.top : box.bottom, box.left : box.right]
    assert inside.sum() == hot.sum() > 0
    for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
        assert side.any()
    assert locate_patch(1e-30 * heat) == box


def test_heat_is_the_positive_part_of_the_sum_over_colors():
    relevance = torch.tensor([[[2.0, -1.0]], [[-3.0, 2.0]], [[0.5, 0.0]]])
    np.testing.assert_array_equal(positive_heat(relevance), [[0.0, 1.0]])
    assert positive_heat(torch.full((3, 2, 2), torch.nan)).tolist() == [[0, 0], [0, 0]]


def test_unknown_end_is_refused():
    with pytest.raises(ValueError, match="end=open: expected one of inclusive, paper"):
        locate_patch(np.ones((2, 2)), "open")
