"""A mean that does not depend on the order of what is added, to the last bit."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ExactMean(Metric):
    """Mean of each column of rows that come in batches, over all processes.

    Values are counted in whole units, and sums of whole numbers do not depend on their order: any
    batches on any number of processes give the same mean to the last bit. There is room for
    2^63 / scale rows of value 1.

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
    counts: Tensor

    def __init__(self, width: int | None = None, scale: int = 2**24, limit: float = 2**15) -> None:
        super().__init__()
        self.scale, self.limit = scale, limit
        empty = torch.zeros(1 if width is None else width, dtype=torch.int64)
        self.add_state("sums", empty, dist_reduce_fx="sum")
        self.add_state("counts", empty.clone(), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Take in the rows (B, width) of a batch."""
        whole = values.double().nan_to_num(0.0).clamp(-self.limit, self.limit) * self.scale
        self.sums = self.sums + whole.round().long().sum(0)
        self.counts = self.counts + (~values.isnan()).sum(0)

    def compute(self) -> Tensor:
        """(width,) float64; NaN for a column without a value."""
        return self.sums.double() / self.scale / self.counts
