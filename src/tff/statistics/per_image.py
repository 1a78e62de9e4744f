"""Values per image, gathered from all processes in the order of the manifest."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class PerImage(Metric):
    """A few values per image: logits, responses of the ranked channels.

    For statistics that need all values at once (average precision, medians).

    Args:
        width: number of values per image.
        dtype: in which they are stored.
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
        """Always true: a result without images is valid, so torchmetrics need not warn."""
        return True

    def update(self, index: Tensor, values: Tensor) -> None:
        """Add the values (B, width) of manifest rows (B,)."""
        # float64 represents every row number below 2^53.
        self.index.append(index.to(self.device, torch.float64))
        values = values.to(self.device, self.stored_dtype)
        self.values.append(values.reshape(len(index), self.width))

    def compute(self) -> Tensor:
        """(N, width) in the order of the rows; the mean where a row occurs more than once."""
        values = concatenate(self.values).reshape(-1, self.width).to(self.stored_dtype)
        rows, position, counts = torch.unique(
            concatenate(self.index), return_inverse=True, return_counts=True
        )
        if len(rows) == len(values):  # no row twice: a permutation saves a third copy
            return values[position.argsort()]
        sums: Tensor = values.new_zeros(len(rows), self.width).index_add_(0, position, values)
        return sums.div_(counts[:, None])

    def sync(self, *args: object, **kwargs: object) -> None:
        """Gather from all processes; one without images takes part with no rows."""
        if not self.index:
            self.index.append(torch.empty(0, dtype=torch.float64, device=self.device))
            self.values.append(self.index[0].new_empty(0, self.width, dtype=self.stored_dtype))
        super().sync(*args, **kwargs)  # type: ignore[arg-type]


def concatenate(state: list[Tensor] | Tensor) -> Tensor:
    """A `cat` state as one tensor: a list before synchronisation, a tensor after it."""
    return torch.cat(state) if isinstance(state, list) else state
