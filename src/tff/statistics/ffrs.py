"""FF-RS (omega): the mean share of positive relevance of each channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

UNIT = 2**44  # shares are counted in units of 1 / UNIT = 6e-14


def ffrs_update(sums: Tensor, shares: Tensor) -> Tensor:
    """Add the shares (B, n_channels) and their squares to the sums (2, n_channels) int64.

    Sums of whole numbers do not depend on their order, so any batches on any number of processes
    give the same omega to the last bit. There is room for 2^63 / UNIT = 524,288 images of share 1.
    """
    shares = shares.double()
    whole = (torch.stack([shares, shares.square()]) * UNIT).round().long()
    return sums + whole.sum(1)


def ffrs_compute(sums: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the images and its standard error, (n_channels,) float64 each.

    The mean is NaN without an image, the standard error with fewer than two.
    """
    mean, square = sums.double() / UNIT / images
    variance = (square - mean.square()).clamp(min=0) / (images - 1)
    return mean, torch.where(images > 1, variance, torch.nan).sqrt()


class FFRS(Metric):
    """Forensic feature relevance statistic of Chandrasegaran et al. (ECCV 2022), streamed.

    omega(c) is the mean over images of [R_c]+ / sum |R| of the layer; see `relevance.lrp`.

    Args:
        n_channels: number of channels; may be left out where every process sees an image.

    Example:
        >>> metric = FFRS()
        >>> metric.update(torch.tensor([[0.5, 0.25], [0.25, 0.25]]))
        >>> metric.compute()
        tensor([0.3750, 0.2500], dtype=torch.float64)
    """

    full_state_update = False
    sums: Tensor
    images: Tensor

    def __init__(self, n_channels: int | None = None) -> None:
        super().__init__()
        size = (2, 1 if n_channels is None else n_channels)
        self.add_state("sums", torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, shares: Tensor | Mapping[str, Tensor]) -> None:
        """Take in the shares (B, n_channels) of a batch, or those of each layer in order."""
        if isinstance(shares, Mapping):
            shares = torch.cat(list(shares.values()), dim=1)
        self.sums = ffrs_update(self.sums, shares)
        self.images += len(shares)

    def compute(self) -> Tensor:
        """Omega, (n_channels,) float64; NaN when no image was seen."""
        return ffrs_compute(self.sums, self.images)[0]

    def report(self) -> tuple[Tensor, Tensor, int]:
        """Omega, its standard error, and the number of images, over all processes."""
        with self.sync_context():
            return *ffrs_compute(self.sums, self.images), int(self.images)
