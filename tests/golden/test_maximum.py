"""LRP-max and the patches made of it against the authors' released code."""

from __future__ import annotations

import numpy as np
from tests.helpers.golden_cases import difference, distance
from torch import Tensor

from tff.relevance.lrp import LRP


def patch(pixels: Tensor) -> list[int]:
    """First and last row, first and last column of an image's patch."""
    heat = pixels.sum(0).clamp(min=0).numpy()
    if not heat.any():
        return [0, heat.shape[0], 0, heat.shape[1]]  # the whole image
    heat /= heat.max()
    hot = heat > np.percentile(heat, 75)
    rows, columns = np.flatnonzero(hot.any(1)), np.flatnonzero(hot.any(0))
    return [rows[0], rows[-1], columns[0], columns[-1]]


def test_maxima(case):
    if "lrpmax_keys" not in case.file:
        assert case.name == "dead_layer"
        return
    engine = LRP(case.network.double(), box=case.name != "efficientnet")
    for i, key in enumerate(case.file["lrpmax_keys"]):
        found = engine.explain_maximum(case.images[:1].double(), *case.channel(str(key)))
        assert difference(found.value[0], case.file["lrpmax_z"][i]) <= 1e-11
        if found.value > 0:  # else any place is as good
            assert found.position[0].tolist() == [*case.file["lrpmax_loc"][i]]
        assert patch(found.pixels[0]) == [*case.file["lrpmax_box"][i]]
        # stored in single precision
        assert distance(found.pixels[0].sum(0), case.file["lrpmax_pixel_sum"][i]) <= 1e-7
