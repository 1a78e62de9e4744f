"""Which images are taken of a set, for what cannot be done with all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tff.analyses.records import Rows
from tff.data.dataset import Images


def labels_of(images: Images) -> NDArray[np.int64]:
    """(N,) 0 real, 1 generated."""
    return images.manifest["label"].to_numpy(np.int64)


def evenly(images: Images, limit: int) -> Rows:
    """Rows (n,), at most so many of each generator and label, evenly spread over them."""
    rows = [np.empty(0, np.int64)]
    for _, group in images.manifest.groupby(["generator", "label"]):
        number = min(limit, len(group))
        rows.append(group.index.to_numpy()[np.arange(number) * len(group) // max(1, number)])
    return np.sort(np.concatenate(rows)).astype(np.int64)


def drawn(images: Images, number: int, seed: int) -> Images:
    """So many images, drawn at random with replacement."""
    rows = np.random.default_rng([seed, 2]).integers(0, len(images), number)
    return replace(images, manifest=images.manifest.iloc[rows].reset_index(drop=True))
