"""Which process sees which rows: no row twice, none lost, the same batches for all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from tff.data.images import Images
from tff.distributed import place

Keys = list[tuple[int, ...]]  # (epoch, row), or (epoch, row, number of the view)


class EvaluationBatches(Sampler[Keys]):
    """Each view of each row once, in batches of one size; every process takes each n-th batch.

    Because whole batches are dealt out, each is composed as in one process, and a score does not
    depend on the number of processes in its last bit.
    """

    def __init__(self, images: Images, batch_size: int) -> None:
        views = images.view.count if images.transform is None else 1
        sizes = np.repeat(images.sizes(), views, axis=0)
        order = np.lexsort((np.arange(len(sizes)), sizes[:, 1], sizes[:, 0]))
        cuts = np.flatnonzero(np.any(np.diff(sizes[order], axis=0), axis=1)) + 1
        self.batches: list[Keys] = [
            [(0, *divmod(int(i), views)) for i in group[start : start + batch_size]]
            for group in np.split(order, cuts)
            for start in range(0, len(group), batch_size)
        ]

    def __iter__(self) -> Iterator[Keys]:
        rank, world = place()
        return iter(self.batches[rank::world])

    def __len__(self) -> int:
        rank, world = place()
        return len(self.batches[rank::world])


class TrainingBatches(Sampler[Keys]):
    """A new order each epoch, drawn from (seed, epoch); rows that fill no batch sit out.

    All processes get the same number of batches: a gradient needs every one of them.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.epoch = 0
        #: Number of the first batch of the next epoch that is begun; above 0 to go on within one.
        self.first = 0
        if len(self) == 0:
            raise ValueError(
                f"{rows} training images do not fill one batch of {batch_size} on each of "
                f"{place()[1]} processes; lower data.batch_size"
            )

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    @property
    def sampler(self) -> TrainingBatches:
        """Of a batch sampler Lightning tells the epoch only to the sampler within; that is this."""
        return self

    def __len__(self) -> int:
        return self.rows // (self.batch_size * place()[1])

    def __iter__(self) -> Iterator[Keys]:
        rank, world = place()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.rows)
        for i in range(self.first, len(self)):
            start = (i * world + rank) * self.batch_size
            yield [(self.epoch, int(row)) for row in order[start : start + self.batch_size]]
