"""FF-RS (omega): the mean share of positive relevance of each channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tff.statistics.exact_mean import ExactMean


class FFRS(ExactMean):
    """Forensic feature relevance statistic of Chandrasegaran et al. (ECCV 2022), streamed.

    omega(c) is the mean over images of [R_c]+ / sum |R| of the layer; see `relevance.lrp`. Any
    batches on any number of processes give the same omega to the last bit; there is room for 2^59
    images.

    Args:
        n_channels: number of channels; may be left out where every process sees an image.

    Example:
        >>> metric = FFRS()
        >>> metric.update(torch.tensor([[0.5, 0.25], [0.25, 0.25]]))
        >>> metric.compute()
        tensor([0.3750, 0.2500], dtype=torch.float64)
    """

    def __init__(self, n_channels: int | None = None) -> None:
        # Shares and their squares, in units of 2^-44 = 6e-14.
        super().__init__(None if n_channels is None else 2 * n_channels, scale=2**44, limit=1.0)

    def update(self, shares: Tensor | Mapping[str, Tensor]) -> None:
        """Take in the shares (B, n_channels) of a batch, or those of each layer in order."""
        if isinstance(shares, Mapping):
            shares = torch.cat(list(shares.values()), dim=1)
        shares = shares.double()
        super().update(torch.cat([shares, shares.square()], dim=1))

    def compute(self) -> Tensor:
        """Omega, (n_channels,) float64; NaN when no image was seen."""
        return super().compute().chunk(2)[0] if len(self.sums) > 1 else super().compute()

    def report(self) -> tuple[Tensor, Tensor, int]:
        """Omega, its standard error (NaN with fewer than two images), and the number of images."""
        with self.sync_context():
            images = int(self.counts.max())
            mean, square = ExactMean.compute(self).chunk(2)
            variance = (square - mean.square()).clamp(min=0) / max(images - 1, 1)
            return mean, variance.sqrt() if images > 1 else variance * torch.nan, images
