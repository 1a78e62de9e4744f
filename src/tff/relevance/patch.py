"""The patch of an image that holds most of its relevance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tff.options import one_of
from tff.types import Floats

#: Conventions for the last row and column of a patch.
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


def positive_heat(relevance: Tensor) -> Floats:
    """Positive part of the relevance summed over colors, (3, H, W) -> (H, W)."""
    summed = torch.nan_to_num(relevance.detach().cpu().double().sum(0))
    return np.asarray(summed.clamp(min=0).numpy())


def locate_patch(heat: Floats, end: str = "inclusive") -> Patch:
    """Bounding box of the pixels above the 75th percentile.

    Chandrasegaran et al. (ECCV 2022) cut the patches of their LRP-max figures this way.

    Args:
        heat: (H, W), not negative; see `positive_heat`.
        end: `inclusive`, or `paper` for the box of the released code, which loses the last row and
            column (and may be empty).

    Returns:
        The box; the full image if nothing is positive.

    Raises:
        ValueError: an unknown `end`.
    """
    one_of(ENDS).require("end", end)
    if not heat.any():
        return Patch(0, heat.shape[0], 0, heat.shape[1])
    heat = heat / heat.max()
    hot = heat > np.percentile(heat, 75)
    if not hot.any():  # more than a quarter of the pixels share the maximum
        hot = heat == 1
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))
    more = int(end == "inclusive")
    return Patch(int(rows[0]), int(rows[-1]) + more, int(columns[0]), int(columns[-1]) + more)
