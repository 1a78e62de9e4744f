"""LRP-max of channels in images: many pairs in few batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.fitting import Fitting
from tff.analyses.subject import Subject
from tff.relevance.lrp import Maximum
from tff.relevance.patch import Patch, patch, positive
from tff.types import Batch


class Pair(NamedTuple):
    """One channel in one view of an image.

    Attributes:
        rank: of the channel, from 1.
        place: of the image among those of the channel, from 1.
        row: of the image among the test images.
        view: its number; 0 unless images are seen in several views.
    """

    rank: int
    layer: str
    channel: int
    place: int
    row: int
    view: int


class Peak(NamedTuple):
    """Where the channel of a pair is most active.

    Attributes:
        image: (H, W, 3), as the detector sees it.
        maximum: the largest positive output behind BatchNorm, 0 if there is none.
        at: row and column of it in the feature map.
        box: of the patch, None if no pixel has positive relevance.
    """

    pair: Pair
    image: NDArray[np.uint8]
    maximum: float
    at: tuple[int, int]
    box: Patch | None


def peaks(subject: Subject, pairs: Iterable[Pair], end: str) -> Iterator[Peak]:
    """Explain each pair, those of a layer and of a size of images together, as many as fit.

    Args:
        end: of patches, see `relevance.patch.patch`.
    """
    test, size = subject.images.test, subject.images.test.sizes()

    def alike(pair: Pair) -> tuple[str, int, int]:
        return pair.layer, int(size[pair.row, 0]), int(size[pair.row, 1])

    def explained(part: Batch) -> Maximum:  # of the batch whose turn it is
        pixels = part.image.to(subject.passes.device).float() / 255
        channels = torch.tensor([batch[i].channel for i in part.index.tolist()])
        return subject.lrp.explain_maximum(pixels, batch[0].layer, channels)

    fitting = Fitting(explained, "patches")
    for _, group in groupby(sorted(pairs, key=alike), alike):
        waiting = list(group)
        for start in range(0, len(waiting), subject.passes.batch_size):
            batch = waiting[start : start + subject.passes.batch_size]
            images = [test[0, pair.row, pair.view] for pair in batch]
            whole = Batch(*(torch.stack(column) for column in zip(*images, strict=True)))
            # Rows may come more than once: here an index is a place in the batch.
            for part, found in fitting(whole._replace(index=torch.arange(len(batch)))):
                yield from _peaks([batch[i] for i in part.index.tolist()], part.image, found, end)


def _peaks(pairs: Sequence[Pair], images: Tensor, found: Maximum, end: str) -> Iterator[Peak]:
    for i, pair in enumerate(pairs):
        image = np.asarray(images[i].permute(1, 2, 0), np.uint8)
        heat = positive(found.pixels[i])
        row, column = found.place[i].tolist()
        box = patch(heat, end) if heat.any() else None
        yield Peak(pair, image, float(found.value[i]), (row, column), box)
