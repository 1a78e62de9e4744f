"""Effects of a cue on the logit through each channel, estimated by attribution patching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tff.data.dataset import Images
from tff.types import Floats, Ints


def number_strata(images: Images) -> Ints:
    """Number of the stratum of each image, (N,): images of one name and label."""
    return np.asarray(images.manifest.groupby(["generator", "label"]).ngroup(), np.int64)


@dataclass(frozen=True)
class Attribution:
    """Effects of a cue through each channel, estimates, in logits.

    The effect in an image x is the sum over positions of (y(x) - y(x')) df/dy, where x' is x
    without the cue, y the raw output of the channel and f the logit (attribution patching: Nanda,
    2023; Syed et al., arXiv 2310.10348). The slope df/dy is the mean of those at x and at x', a
    coarse integral (Hanna et al., arXiv 2403.17806): with the slope at x alone, channels are ranked
    far less like exact effects (docs/cues.md). The exact effect is f(x) minus f(x with y taken from
    x'); a positive one speaks for "generated".

    Attributes:
        images: S strata of these images are told apart, see `number_strata`.
        effects: (S, n_channels) means over the images of a stratum.
        errors: (S, n_channels) standard errors of these means; NaN with fewer than two images.
    """

    images: Images
    effects: Floats
    errors: Floats

    def gap(self, generators: Iterable[str]) -> tuple[Floats, Floats]:
        """Effects on the gap between the mean logits of generated and real images.

        Args:
            generators: the mean over these is given.

        Returns:
            Effects and their standard errors, (n_channels,) each; NaN where a generator has no
            images of either kind.
        """
        weights = self._weights(generators)
        used = weights != 0
        variance = np.square(weights[used, None] * self.errors[used]).sum(0)
        return weights[used] @ self.effects[used], np.sqrt(variance)

    def _weights(self, generators: Iterable[str]) -> Floats:
        """(S,) what the mean of a stratum counts for: several generators may share real images."""
        strata, labels = number_strata(self.images), self.images.manifest["label"].to_numpy()
        weights = []
        for generator in generators:
            rows = self.images.rows_of(generator)
            counts = [
                np.bincount(strata[rows[labels[rows] == label]], minlength=len(self.effects))
                for label in (0, 1)
            ]
            with np.errstate(invalid="ignore"):  # no images of a kind: NaN
                weights.append(counts[1] / counts[1].sum() - counts[0] / counts[0].sum())
        return np.asarray(np.mean(weights, axis=0), np.float64)
