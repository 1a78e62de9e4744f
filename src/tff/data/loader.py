"""Loaders of batches, which tell errors plainly, end their workers and go on within an epoch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from tff.data.images import Images
from tff.data.shard import Keys, TrainingBatches
from tff.data.workers import deaf, end, end_with_process
from tff.distributed import place
from tff.types import Batch

# What torch makes of the message of an error in a worker.
_IN_WORKER = re.compile(
    r"Caught (?P<kind>\w+) in DataLoader worker process \d+\.\n(?P<traceback>.*)", re.S
)


class Loader(DataLoader[Batch]):
    """Loads batches; what fails in a worker is told as if it had failed here."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        end_with_process(batches)
        try:
            yield from batches
        except Exception as error:
            # At once: whoever holds the error holds the workers, and where both are collected as a
            # cycle, the queues by which workers are told to end go first.
            end(batches)
            self._iterator = None
            if not isinstance(error, ValueError | OSError):
                raise
            raise (_unwrapped(error) or error) from None


class TrainingLoader(Loader):
    """Loads training batches, and goes on within an epoch where a checkpoint was written.

    Lightning keeps the state in each checkpoint. What workers have prepared ahead does not count.
    """

    def __init__(self, images: Images, batches: TrainingBatches, **options: Any) -> None:
        super().__init__(images, batch_sampler=batches, **options)
        self._batches = batches
        self._delivered, self._interrupted = 0, -1

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Nothing is begun before the first batch is asked for: Lightning makes the iterator of a
        # resumed training before it says which epoch that is, and workers would load epoch 0.
        if self._batches.epoch != self._interrupted:
            self._delivered = 0
        self._batches.first, self._interrupted = self._delivered, -1
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How far the epoch is, and in what units."""
        return {
            "epoch": self._batches.epoch,
            "delivered": self._delivered,
            "rows": self._batches.rows,
            "batch_size": self._batches.batch_size,
            "processes": place()[1],
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what was delivered of the epoch that the checkpoint interrupted.

        Raises:
            ValueError: batches are composed otherwise now, so there is no way to tell them apart.
        """
        for name, now in self.state_dict().items():
            if name in _UNITS and state[name] != now:
                raise ValueError(
                    f"the checkpoint was written in an epoch of {state[name]:,} {_UNITS[name]}, "
                    f"and there are {now:,} now. Go on as it was, or from best.ckpt (ckpt=FILE)"
                )
        self._interrupted, self._delivered = state["epoch"], state["delivered"]


_UNITS = {
    "rows": "training images",
    "batch_size": "images in a batch (data.batch_size)",
    "processes": "processes (trainer.devices)",
}


def loader(images: Images, batches: Sampler[Keys], workers: int) -> DataLoader[Batch]:
    """Load the given batches of the images."""
    options: dict[str, Any] = {
        "collate_fn": stack,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": deaf,
    }
    if isinstance(batches, TrainingBatches):
        return TrainingLoader(images, batches, **options)
    return Loader(images, batch_sampler=batches, **options)


def _unwrapped(error: ValueError | OSError) -> Exception | None:
    """The error that a worker met, without the traceback that torch puts into its message."""
    wrapped = _IN_WORKER.match(str(error))
    if wrapped is None:
        return None
    own = wrapped["traceback"].rpartition(f"\n{wrapped['kind']}: ")[2]
    return (ValueError if isinstance(error, ValueError) else OSError)(own.strip())


def stack(samples: list[Batch]) -> Batch:
    """Samples of one size -> a batch."""
    return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))
