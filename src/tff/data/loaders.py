"""Batches of images for any number of processes, each image once."""

from __future__ import annotations

import atexit
import re
import signal
from collections.abc import Iterator
from itertools import zip_longest
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakSet, ref

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from tff.data.dataset import Images
from tff.distributed import get_rank, get_world_size
from tff.types import Batch

Keys = list[tuple[int, ...]]  # (epoch, row), or (epoch, row, number of the crop)


class EvaluationBatches(Sampler[Keys]):
    """Each crop of each row once, in batches of images of one size, shared by the processes.

    Batches are composed as in a single process, so that scores do not depend on the number of
    processes, not even in their last bit.

    Args:
        mixed: real and generated images, and images of different sizes, take turns, so that the
            first batches hold both kinds.
    """

    def __init__(self, images: Images, batch_size: int, mixed: bool = False) -> None:
        views = images.view.count if images.transform is None else 1
        sizes = np.repeat(images.sizes(), views, axis=0)
        rows = np.arange(len(sizes))
        turn = rows
        if mixed:
            turn = np.repeat(images.manifest.groupby("label").cumcount().to_numpy(), views)
        order = np.lexsort((rows, turn, sizes[:, 1], sizes[:, 0]))
        cuts = np.flatnonzero(np.any(np.diff(sizes[order], axis=0), axis=1)) + 1
        groups = [
            [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
            for group in np.split(order, cuts)
        ]
        batches = [batch for group in groups for batch in group]
        if mixed:
            rounds = zip_longest(*groups)
            batches = [batch for one in rounds for batch in one if batch is not None]
        self.batches: list[Keys] = [
            [(0, *divmod(int(i), views)) for i in batch] for batch in batches
        ]

    def __iter__(self) -> Iterator[Keys]:
        rank, world = get_rank(), get_world_size()
        return iter(self.batches[rank::world])

    def __len__(self) -> int:
        rank, world = get_rank(), get_world_size()
        return len(self.batches[rank::world])


class TrainingBatches(Sampler[Keys]):
    """A new random order each epoch, by (seed, epoch); rows that fill no batch are skipped.

    All processes get the same number of batches: a gradient needs every one of them.

    Args:
        repeat: the order of the first epoch in each epoch.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, repeat: bool = False) -> None:
        self.rows, self.batch_size, self.seed, self.repeat = rows, batch_size, seed, repeat
        self.epoch = 0
        #: Number of the first batch of the next epoch; above 0 to resume within it.
        self.first = 0
        if len(self) == 0:
            raise ValueError(
                f"{rows} training images do not fill one batch of {batch_size} on each of "
                f"{get_world_size()} processes; lower data.batch_size"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by Lightning before each epoch."""
        self.epoch = epoch

    @property
    def sampler(self) -> TrainingBatches:
        """This one: Lightning announces the epoch only to the `sampler` of a batch sampler."""
        return self

    def __len__(self) -> int:
        return self.rows // (self.batch_size * get_world_size())

    def __iter__(self) -> Iterator[Keys]:
        rank, world = get_rank(), get_world_size()
        drawn = 0 if self.repeat else self.epoch
        order = np.random.default_rng([self.seed, drawn]).permutation(self.rows)
        for i in range(self.first, len(self)):
            start = (i * world + rank) * self.batch_size
            yield [(self.epoch, int(row)) for row in order[start : start + self.batch_size]]


def ignore_signals(worker: int) -> None:
    """Ignore signals, which clusters and terminals send to workers too; the main process acts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def shut_down_at_exit(batches: Any) -> None:
    """Shut down the workers of a loader's iterator properly when this process exits.

    Python would send them SIGTERM, which they ignore, and wait forever. The loader may be deleted
    by then, while the iterator, or an exception from it, is still referenced.

    A process started by multiprocessing runs its finalizers at its end, any other one its atexit
    functions; this one comes before the one by which PyTorch gives up shutting down.
    """
    if batches in _registered or not hasattr(batches, "_shutdown_workers"):
        return
    _registered.add(batches)
    for worker in batches._workers:
        # What multiprocessing and PyTorch call for workers that do not stop.
        worker._popen.terminate = worker._popen.kill
    # Before the queues that tell workers to stop are closed (priority 10).
    Finalize(batches, _shut_down_if_alive, (ref(batches),), exitpriority=100)
    atexit.register(_shut_down_if_alive, ref(batches))


_registered: WeakSet[Any] = WeakSet()


def shut_down(batches: Any) -> None:
    """Stop the workers of an iterator of a loader, if it has any."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()


def _shut_down_if_alive(batches: ref[Any]) -> None:
    if (running := batches()) is not None:
        shut_down(running)


# How torch rewrites the message of an error in a worker.
_IN_WORKER = re.compile(
    r"Caught (?P<kind>\w+) in DataLoader worker process \d+\.\n(?P<traceback>.*)", re.S
)


class Loader(DataLoader[Batch]):
    """Loads batches; an error in a worker is raised as if it had occurred here."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        shut_down_at_exit(batches)
        try:
            yield from batches
        except Exception as error:
            # Now: the error references the workers, and if both are collected as a cycle, the
            # queues that tell workers to stop may go first.
            shut_down(batches)
            self._iterator = None
            if not isinstance(error, ValueError | OSError):
                raise
            raise (_unwrap(error) or error) from None


class TrainingLoader(Loader):
    """Loads training batches, and resumes within an epoch where a checkpoint was written.

    Lightning saves the state in each checkpoint. Batches prefetched by workers do not count.
    """

    def __init__(self, images: Images, batches: TrainingBatches, **options: Any) -> None:
        super().__init__(images, batch_sampler=batches, **options)
        self._batches = batches
        self._delivered, self._interrupted = 0, -1

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # Nothing happens before the first batch is requested: Lightning makes the iterator of a
        # resumed training before it sets the epoch, and workers would load epoch 0.
        if self._batches.epoch != self._interrupted:
            self._delivered = 0
        self._batches.first, self._interrupted = self._delivered, -1
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches delivered in this epoch, and what they are made of."""
        return {
            "epoch": self._batches.epoch,
            "delivered": self._delivered,
            "rows": self._batches.rows,
            "batch_size": self._batches.batch_size,
            "processes": get_world_size(),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that were delivered before the checkpoint was written.

        Raises:
            ValueError: batches are composed differently now.
        """
        for name, now in self.state_dict().items():
            if name in _UNITS and state[name] != now:
                raise ValueError(
                    f"the checkpoint was written in an epoch of {state[name]:,} {_UNITS[name]}, "
                    f"and there are {now:,} now. Resume with the same options, or start from "
                    "best.ckpt (ckpt=FILE)"
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
        "collate_fn": collate,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": ignore_signals,
    }
    if isinstance(batches, TrainingBatches):
        return TrainingLoader(images, batches, **options)
    return Loader(images, batch_sampler=batches, **options)


def _unwrap(error: ValueError | OSError) -> Exception | None:
    """The error of a worker, without the traceback that torch puts into its message."""
    wrapped = _IN_WORKER.match(str(error))
    if wrapped is None:
        return None
    own = wrapped["traceback"].rpartition(f"\n{wrapped['kind']}: ")[2]
    return (ValueError if isinstance(error, ValueError) else OSError)(own.strip())


def collate(samples: list[Batch]) -> Batch:
    """Stack samples of one size into a batch."""
    return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))
