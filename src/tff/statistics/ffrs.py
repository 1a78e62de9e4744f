"""FF-RS (omega): the mean relevance of each channel, summed exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

_BITS = 50


class ExactMean(Metric):
    """Mean of each column of rows that come in batches, over all processes.

    Values are counted in whole units, and sums of whole numbers do not depend on their order: any
    batches on any number of processes give the same mean to the last bit. There is room for
    2^103 / scale rows of value 1; a batch has room for 2^62 / scale.

    Args:
        width: number of columns; may be left out where every process sees a row.
        scale: units in 1.
        limit: larger values count as this large; NaN is a value that is missing.

    Example:
        >>> metric = ExactMean()
        >>> metric.update(torch.tensor([[0.5, torch.nan], [0.25, 2.0]]))
        >>> metric.compute()
        tensor([0.3750, 2.0000], dtype=torch.float64)
    """

    full_state_update = False
    sums: Tensor
    carried: Tensor
    counts: Tensor

    def __init__(self, width: int | None = None, scale: int = 2**24, limit: float = 2**15) -> None:
        super().__init__()
        self.scale, self.limit = scale, limit
        empty = torch.zeros(1 if width is None else width, dtype=torch.int64)
        # A sum is 2^50 times what was carried, and the rest: neither overflows, in no exchange.
        self.add_state("sums", empty, dist_reduce_fx="sum")
        self.add_state("carried", empty.clone(), dist_reduce_fx="sum")
        self.add_state("counts", empty.clone(), dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Whether there is something to compute: no image is an answer too, so no warning."""
        return True

    def update(self, values: Tensor) -> None:
        """Take in the rows (B, width) of a batch."""
        whole = values.double().nan_to_num(0.0).clamp(-self.limit, self.limit) * self.scale
        sums = self.sums + whole.round().long().sum(0)
        self.carried = self.carried + (sums >> _BITS)
        self.sums = sums & (2**_BITS - 1)
        self.counts = self.counts + (~values.isnan()).sum(0)

    def compute(self) -> Tensor:
        """(width,) float64; NaN for a column without a value."""
        carried = self.carried + (self.sums >> _BITS)
        sums = self.sums & (2**_BITS - 1)
        # Both parts are exact in float64; their sum is rounded once.
        mean: Tensor = (carried.double() * 2**_BITS + sums.double()) / self.scale / self.counts
        return mean


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

    def summary(self) -> tuple[Tensor, Tensor, int]:
        """Omega, its standard error (NaN with fewer than two images), and the number of images."""
        with self.sync_context():
            images = int(self.counts.max())
            mean, square = ExactMean.compute(self).chunk(2)
            variance = (square - mean.square()).clamp(min=0) / max(images - 1, 1)
            return mean, variance.sqrt() if images > 1 else variance * torch.nan, images
