"""A value for each image, gathered from all processes in order."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class PerImage(Metric):
    """Keeps a few numbers of each image: logits, responses of the ranked channels.

    For what cannot be computed without all values (average precision, medians).

    Args:
        width: how many numbers each image has.
        dtype: in which they are kept.
    """

    full_state_update = False
    index: list[Tensor]
    values: list[Tensor]

    def __init__(self, width: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.width, self.stored_dtype = width, dtype
        self.add_state("index", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """Whether there is something to compute: no image is an answer too, so no warning."""
        return True

    def update(self, index: Tensor, values: Tensor) -> None:
        """Take in rows (B,) of the manifest and their values (B, width)."""
        # float64 holds every row number below 2^53.
        self.index.append(index.to(self.device, torch.float64))
        self.values.append(
            values.to(self.device, self.stored_dtype).reshape(len(index), self.width)
        )

    def compute(self) -> Tensor:
        """(N, width) in the order of the rows; the mean where a row came several times."""
        values = concatenate(self.values).reshape(-1, self.width).to(self.stored_dtype)
        rows, place, times = torch.unique(
            concatenate(self.index), return_inverse=True, return_counts=True
        )
        if len(rows) == len(values):  # none came twice: no need for a third copy
            return values[place.argsort()]
        means: Tensor = values.new_zeros(len(rows), self.width).index_add_(0, place, values)
        return means.div_(times[:, None])

    def sync(self, *args: object, **kwargs: object) -> None:
        """Gather from all processes; one that saw no image takes part with no rows."""
        if not self.index:
            self.index.append(torch.empty(0, dtype=torch.float64, device=self.device))
            self.values.append(self.index[0].new_empty(0, self.width, dtype=self.stored_dtype))
        super().sync(*args, **kwargs)  # type: ignore[arg-type]


def concatenate(state: list[Tensor] | Tensor) -> Tensor:
    """A `cat` state as one tensor: before synchronisation it is a list, afterwards joined."""
    return torch.cat(state) if isinstance(state, list) else state
