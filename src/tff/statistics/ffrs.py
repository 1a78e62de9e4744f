"""FF-RS (omega): mean relevance of each channel, summed exactly over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

#: A sum is 2^50 `carries` plus `sums`: neither overflows, also when processes add theirs up.
_BITS = 50


class ExactMean(Metric):
    """Mean of each column of rows that arrive in batches, over all processes.

    Values are rounded to fixed-point integers, whose sums do not depend on their order: any batches
    on any number of processes give the same mean to the last bit. Capacity: 2^103 / scale rows of
    value 1 in total, 2^62 / scale in one batch.

    Args:
        width: number of columns; may be omitted if every process sees a row.
        scale: integer units per 1.
        limit: larger magnitudes are clipped to this; NaN is a missing value.

    Example:
        >>> metric = ExactMean()
        >>> metric.update(torch.tensor([[0.5, torch.nan], [0.25, 2.0]]))
        >>> metric.compute()
        tensor([0.3750, 2.0000], dtype=torch.float64)
    """

    full_state_update = False
    sums: Tensor
    carries: Tensor
    counts: Tensor

    def __init__(self, width: int | None = None, scale: int = 2**24, limit: float = 2**15) -> None:
        super().__init__()
        self.scale, self.limit = scale, limit
        empty = torch.zeros(1 if width is None else width, dtype=torch.int64)
        for state in ("sums", "carries", "counts"):
            self.add_state(state, empty.clone(), dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Always true: a result without images is valid, so torchmetrics need not warn."""
        return True

    def update(self, values: Tensor) -> None:
        """Add the rows (B, width) of a batch."""
        units = values.double().nan_to_num(0.0).clamp(-self.limit, self.limit) * self.scale
        sums = self.sums + units.round().long().sum(0)
        self.carries = self.carries + (sums >> _BITS)
        self.sums = sums & (2**_BITS - 1)
        self.counts = self.counts + (~values.isnan()).sum(0)

    def compute(self) -> Tensor:
        """(width,) float64; NaN for a column without values."""
        carries = self.carries + (self.sums >> _BITS)
        sums = self.sums & (2**_BITS - 1)
        # Both parts are exact in float64; their sum is rounded once.
        mean: Tensor = (carries.double() * 2**_BITS + sums.double()) / self.scale / self.counts
        return mean


class FFRS(ExactMean):
    """Forensic feature relevance statistic (Chandrasegaran et al., ECCV 2022), streamed.

    omega(c) is the mean over images of [R_c]+ / sum |R| of the layer; see `relevance.lrp`. Any
    batches on any number of processes give the same omega to the last bit; capacity: 2^59 images.

    Args:
        n_channels: number of channels; may be omitted if every process sees an image.

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
        """Add the shares (B, n_channels) of a batch, or those of each layer in order."""
        if isinstance(shares, Mapping):
            shares = torch.cat(list(shares.values()), dim=1)
        shares = shares.double()
        super().update(torch.cat([shares, shares.square()], dim=1))

    def compute(self) -> Tensor:
        """Omega, (n_channels,) float64; NaN without images."""
        return super().compute().chunk(2)[0] if len(self.sums) > 1 else super().compute()

    def summary(self) -> tuple[Tensor, Tensor, int]:
        """Omega, its standard error (NaN with fewer than two images), and the number of images."""
        with self.sync_context():
            n_images = int(self.counts.max())
            mean, mean_square = ExactMean.compute(self).chunk(2)
            variance = (mean_square - mean.square()).clamp(min=0) / max(n_images - 1, 1)
            return mean, variance.sqrt() if n_images > 1 else variance * torch.nan, n_images
