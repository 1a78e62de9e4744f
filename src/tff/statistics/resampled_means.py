"""Means of columns over resamples of the rows, streamed: how stable is what a mean decides?"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

#: Resamples of all rows. A standard error from them is right within 10 % (1 / sqrt(2 x 50)).
DRAWS = 50
#: Disjoint halves of the rows, after the resamples.
HALVES = 2
#: All of them, as rows.
RESAMPLES = DRAWS + HALVES


class ResampledMeans(Metric):
    """Means of columns over `DRAWS` resamples of the rows and `HALVES` halves, in one pass.

    Poisson bootstrap: in each resample a unit counts a Poisson(1) number of times (Chamandy et al.,
    "Estimating uncertainty for massive data streams", 2012), which depends only on the number of
    the unit. So rows may arrive in any batches on any number of processes. Sums are exact: values
    are rounded to whole multiples of 1 / `scale`, whose sums float64 holds. Capacity: 2^53 / scale
    for the sum of a column.

    All metrics see the same resamples.

    Args:
        width: number of columns.
        scale: integer units per 1.
        limit: larger magnitudes are clipped to this; NaN counts as 0.

    Example:
        >>> metric = ResampledMeans(2)
        >>> metric.update(torch.tensor([0, 1]), torch.tensor([[0.5, 0.25], [0.5, 2.0]]))
        >>> metric.compute().shape
        torch.Size([52, 2])
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, width: int, scale: int = 2**40, limit: float = 1.0) -> None:
        super().__init__()
        self.scale, self.limit = scale, limit
        empty = torch.zeros(RESAMPLES, width, dtype=torch.float64)
        self.add_state("sums", empty, dist_reduce_fx="sum")
        self.add_state("counts", empty[:, 0].clone(), dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Always true: a result without images is valid, so torchmetrics need not warn."""
        return True

    def update(self, units: Tensor, values: Tensor) -> None:
        """Add the rows (B, width) of a batch.

        Args:
            units: (B,) numbers of what is resampled: those of the images, or of their groups.
            values: (B, width).
        """
        counts = np.array([_draw_counts(unit) for unit in units.tolist()])
        weights = torch.from_numpy(counts.reshape(-1, RESAMPLES)).to(self.sums)
        steps = values.double().nan_to_num(0.0).clamp(-self.limit, self.limit) * self.scale
        self.sums = self.sums + weights.T @ steps.round()
        self.counts = self.counts + weights.sum(0)

    def compute(self) -> Tensor:
        """(RESAMPLES, width) float64; NaN for a resample without rows."""
        mean: Tensor = self.sums / self.scale / self.counts[:, None]
        return mean


@lru_cache(maxsize=4096)  # several metrics of a pass see the same images
def _draw_counts(unit: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How often a unit counts in each resample and in each half, (RESAMPLES,)."""
    rng = np.random.default_rng([3, unit])
    half = rng.integers(HALVES)
    return np.append(rng.poisson(1.0, DRAWS), np.arange(HALVES) == half).astype(np.float64)
