"""What a pass over images leaves behind: a few numbers of each image, or of each channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Cue = Callable[[Tensor], Tensor]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Relevance:
    """What a pass of relevance tells of one kind of images.

    Attributes:
        omega: (n_channels,) FF-RS of each channel.
        error: (n_channels,) its standard error.
        images: how many images are behind it.
        ledger: (n_accounts, 5) means over these images, see `relevance.ledger.COLUMNS`.
    """

    omega: Floats
    error: Floats
    images: int
    ledger: Floats


@dataclass(frozen=True)
class Evaluation:
    """Detector and channels on each image.

    Attributes:
        logits: (N,).
        responses: (N, k) spatial maxima of the channels that were asked for, or None.
        sample: (n, n_channels) float32, those of all channels for some of the images, or None.
    """

    logits: Floats
    responses: Floats | None = None
    sample: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Activity:
    """Means over images of what a channel does, (n_channels,) each, from raw outputs y.

    Attributes:
        output: mean of y over images of both kinds and places.
        response: mean of the spatial maximum of y over generated images.
        effect: mean over generated images of |sum over places of y dlogit/dy|, the change of the
            logit, to first order, when the channel is dropped (Molchanov et al., ICLR 2017).
        weight: length of the channel's filter; needs no images.
    """

    output: Floats
    response: Floats
    effect: Floats
    weight: Floats
