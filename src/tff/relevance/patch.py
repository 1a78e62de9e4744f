"""Relevance of pixels -> the piece of the image that holds most of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: How the end of a patch is meant.
ENDS = ("inclusive", "paper")


class Patch(NamedTuple):
    """Rows `top` to `bottom` - 1 and columns `left` to `right` - 1 of an image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        """Whether it holds no pixel, as patches of the released code may."""
        return self.bottom <= self.top or self.right <= self.left

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The piece of an image (H, W, 3)."""
        return image[self.top : self.bottom, self.left : self.right]


def positive_heat(relevance: Tensor) -> NDArray[np.float64]:
    """Relevance (3, H, W) of an image -> (H, W) positive part of the sum over the colors."""
    summed = torch.nan_to_num(relevance.detach().cpu().double().sum(0))
    return np.asarray(summed.clamp(min=0).numpy())


def locate_patch(heat: NDArray[np.float64], end: str = "inclusive") -> Patch:
    """The smallest box around the pixels above the 75th percentile of all.

    As Chandrasegaran et al. (ECCV 2022) cut the patches of their LRP-max figures.

    Args:
        heat: (H, W), not negative; see `positive`.
        end: `inclusive`, or `paper` for the box of the released code, which loses the last row and
            the last column (and may hold no pixel at all).

    Returns:
        The box; the whole image where nothing is positive.

    Raises:
        ValueError: an unknown `end`.
    """
    if end not in ENDS:
        raise ValueError(f"end={end}: expected {' or '.join(ENDS)}")
    if not heat.any():
        return Patch(0, heat.shape[0], 0, heat.shape[1])
    heat = heat / heat.max()
    hot = heat > np.percentile(heat, 75)
    if not hot.any():  # more than a quarter of the pixels share the maximum
        hot = heat == 1
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))
    more = int(end == "inclusive")
    return Patch(int(rows[0]), int(rows[-1]) + more, int(columns[0]), int(columns[-1]) + more)
