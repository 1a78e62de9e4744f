"""Batches of images for any number of processes, each image once."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from multiprocessing.context import ForkContext
from multiprocessing.queues import Queue
from multiprocessing.util import Finalize
from pathlib import Path
from threading import Thread
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tff.data.dataset import Images
from tff.distributed import get_rank, get_world_size
from tff.errors import explain_limit, is_killed_worker
from tff.types import Batch

log = logging.getLogger(__name__)
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
        #: Number of the first batch of this process; above 0 to go on with an interrupted pass.
        self.first = 0

    def __iter__(self) -> Iterator[Keys]:
        return iter(self._own())

    def __len__(self) -> int:
        return len(self._own())

    def _own(self) -> list[Keys]:
        return self.batches[get_rank() :: get_world_size()][self.first :]


class TrainingBatches(Sampler[Keys]):
    """A new random order each epoch, by (seed, epoch); rows that fill no batch are skipped.

    All processes get the same number of batches: a gradient needs every one of them.

    Args:
        repeat: the order of the first epoch in each epoch.
        views: number of views of each image, which epochs take in turn; None: a new one in each.
    """

    def __init__(
        self, rows: int, batch_size: int, seed: int, repeat: bool = False, views: int | None = None
    ) -> None:
        self.rows, self.batch_size, self.seed, self.repeat = rows, batch_size, seed, repeat
        self.views = views
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
            rows = order[start : start + self.batch_size]
            yield [(self.epoch % (self.views or sys.maxsize), int(row)) for row in rows]


def ignore_signals(worker: int) -> None:
    """Ignore signals, which clusters and terminals send to workers too; the main process acts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


_NO_BATCH = "cannot load a batch of images"


class HandOverError(OSError):
    """A worker has a batch, or shall make one, and cannot hand it over."""


class _Queue(Queue):  # type: ignore[type-arg]
    """A queue that sends an error in place of a batch that it cannot send.

    A thread sends the batches; Python prints its errors and goes on, and the reader would wait for
    ever.
    """

    def _on_queue_feeder_error(self, error: Exception, item: object) -> None:
        if not isinstance(item, tuple):  # it could be packed, and not be sent
            os._exit(1)
        number, found = item
        reason: Exception = HandOverError(f"{type(error).__name__}: {error}")
        if isinstance(found, ExceptionWrapper):  # an error whose class cannot be sent
            last = found.exc_msg.strip().rpartition("\n")[2]
            reason = ValueError(f"{_NO_BATCH}: {last}")
        where = f"in DataLoader worker process {os.getpid()}"
        wrapped = ExceptionWrapper((type(reason), reason, None), where)  # type: ignore[no-untyped-call]
        self.put((number, wrapped))


class _Fork(ForkContext):
    """Forks processes, whose queues send errors too."""

    def Queue(self, maxsize: int = 0) -> _Queue:  # noqa: N802 as in Python
        return _Queue(maxsize, ctx=self.get_context())


PATIENCE = 600.0  # seconds to wait for one batch
WARNING = 60.0  # seconds after which a log says so
STOPPED = 5.0  # seconds for which a worker may be stopped while this process is not


_OF_SEMAPHORES = {
    errno.ENOSPC, errno.ENOENT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSYS
}  # fmt: skip


def limit_waiting(seconds: float = PATIENCE) -> None:
    """Set how long this process waits for one batch; less once a signal has asked it to end."""
    _Iterator.patience = seconds


class _Iterator(_MultiProcessingDataLoaderIter):
    """Batches from workers, with bounded waits, which ends its workers in any case.

    Attributes:
        patience: seconds to wait for one batch.
        fault: why the workers were ended; empty: they were not.
        waiting: number of the batch that this process waits for; 0: it does not wait.
    """

    patience = PATIENCE
    # Until PyTorch's own `__init__` has begun to start workers, there is nothing to shut down.
    _shutdown = True

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self.fault, self.waiting, self._waits = "", 0, 0
        try:
            super().__init__(loader)
            Thread(target=_watch, args=(ref(self),), daemon=True).start()
        except (OSError, RuntimeError, MemoryError, ImportError) as error:
            if self.__dict__.get("_worker_pids_set"):  # PyTorch would raise at their end
                signal_handling._remove_worker_pids(id(self))  # type: ignore[attr-defined]
                self._worker_pids_set = False
            for worker in self.__dict__.get("_workers", ()):
                worker.kill()
                worker.join(STOPPED)
            self._shutdown = True
            if is_killed_worker(error):  # the first one, while others were being started
                raise
            # Semaphores are files in /dev/shm, which Python does not name.
            where = "/dev/shm: " if getattr(error, "errno", None) in _OF_SEMAPHORES else ""
            raise HandOverError(f"{where}{error}") from error
        self._shut_down_at_exit()

    def _get_data(self) -> Any:
        self._waits += 1
        self.waiting = self._waits
        try:
            return super()._get_data()  # type: ignore[no-untyped-call]
        finally:
            self.waiting = 0

    def end(self, fault: str) -> None:
        """Kill the workers, for which this process waits in vain: it then gets an error."""
        self.fault = fault
        for worker in self._workers:
            worker.kill()

    def shut_down(self) -> None:
        """Stop the workers."""
        self._shutdown_workers()

    def _shut_down_at_exit(self) -> None:
        """Stop the workers properly when this process exits.

        Python would send them SIGTERM, which they ignore, and wait forever. The loader may be
        deleted by then, while the iterator, or an exception from it, is still referenced.

        A process started by multiprocessing runs its finalizers at its end, any other one its
        atexit functions; this one comes before the one by which PyTorch gives up shutting down.
        """
        for worker in self._workers:
            # What multiprocessing and PyTorch call for workers that do not stop.
            worker._popen.terminate = worker._popen.kill  # type: ignore[attr-defined]
        # Before the queues that tell workers to stop are closed (priority 10).
        Finalize(self, _shut_down_if_alive, (ref(self),), exitpriority=100)
        atexit.register(_shut_down_if_alive, ref(self))


def _shut_down_if_alive(batches: ref[_Iterator]) -> None:
    if (running := batches()) is not None:
        running.shut_down()


def _watch(batches: ref[_Iterator]) -> None:
    """End workers that are stopped, or give no batch, while their process waits for one.

    In a thread, since that process may wait for one worker where nothing bounds the wait. Counts
    its own seconds: they do not pass while the whole job is suspended.
    """
    batch, waited, stopped = 0, 0.0, 0.0
    while (running := batches()) is not None and not running._shutdown:
        if running.waiting != batch or not batch:
            batch, waited, stopped = running.waiting, 0.0, 0.0
        else:
            waited += 1
            still = [w.pid for w in running._workers if w.pid and _is_stopped(w.pid)]
            stopped = stopped + 1 if still else 0.0
            if stopped >= STOPPED:
                running.end(
                    f"a process that loads images is stopped (`kill -STOP {still[0]}`, or a "
                    "debugger); start again with resume=auto"
                )
            elif waited >= running.patience:
                running.end(
                    f"the {len(running._workers)} processes that load images have given no batch "
                    f"for {waited:.0f} s; see whether the disk with the images answers, and start "
                    "again with resume=auto"
                )
            elif waited == WARNING:
                log.warning("waiting for a batch of images for %.0f s", waited)
        del running
        time.sleep(1)


def _is_stopped(process: int) -> bool:
    """Whether a process is stopped by a signal; False where the system does not say so."""
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return False
    return state.split()[0] == b"T"


# How torch rewrites the message of an error in a worker, or in the thread that pins its batches.
_REWRITTEN = re.compile(r"Caught (?P<kind>\w+) in [^\n]*\.\nOriginal (?P<traceback>.*)", re.S)


class Loader(DataLoader[Batch]):
    """Loads batches; an error in a worker is raised as if it had occurred here, in a sentence."""

    def _get_iterator(self) -> Any:
        return _Iterator(self) if self.num_workers else super()._get_iterator()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except Exception as error:
            # Now: the error references the workers, and if both are collected as a cycle, the
            # queues that tell workers to stop may go first.
            iterator, self._iterator = self._iterator, None
            fault = ""
            if isinstance(iterator, _Iterator):
                iterator.shut_down()
                fault = iterator.fault
            raise (OSError(fault) if fault else _simplify(error, self.num_workers)) from None


class TrainingLoader(Loader):
    """Loads training batches, and resumes within an epoch where a checkpoint was written.

    Lightning saves the state in each checkpoint. Batches prefetched by workers do not count.
    """

    def __init__(self, images: Dataset[Batch], batches: TrainingBatches, **options: Any) -> None:
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


def loader(
    images: Dataset[Batch], batches: Sampler[Keys] | list[Keys], workers: int
) -> DataLoader[Batch]:
    """Load the given batches of the images, or of another data set with such keys."""
    options: dict[str, Any] = {
        "collate_fn": collate,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": ignore_signals,
        "multiprocessing_context": _Fork() if workers else None,
    }
    if isinstance(batches, TrainingBatches):
        return TrainingLoader(images, batches, **options)
    return Loader(images, batch_sampler=batches, **options)


def _simplify(error: Exception, workers: int) -> Exception:
    """The error of a worker without the traceback that torch puts into its message.

    Errors that no image has caused, and those of unknown kinds, become a sentence.
    """
    rewritten = _REWRITTEN.match(str(error))
    if rewritten is None:
        kind, text = type(error).__name__, str(error)
    else:
        kind = rewritten["kind"]
        text = re.split(rf"(?:^|\n)(?:[\w.<>]+\.)?{kind}: ", rewritten["traceback"])[-1].strip()
    machine = isinstance(error, HandOverError) or (workers and rewritten is None)
    if not machine and isinstance(error, ValueError | OSError):
        same = ValueError if isinstance(error, ValueError) else OSError
        return error if rewritten is None else same(text)
    if is_killed_worker(error):
        return error
    limit = explain_limit(f"{kind}: {text}")
    if machine:
        fewer = (
            "use fewer of them (data.workers=N in a training, subject.workers=N in an analysis; "
            "0: none), or smaller batches (data.batch_size=N, subject.batch_size=N)"
        )
        return OSError(
            f"the {workers} processes that load images cannot hand over their batches, since "
            f"{limit or text}; or {fewer}"
        )
    if limit:
        return OSError(limit)
    unknown = ValueError(f"{_NO_BATCH}: {kind}: {text}")
    unknown.add_note(str(error))  # shown with HYDRA_FULL_ERROR=1
    return unknown


def collate(samples: list[Batch]) -> Batch:
    """Stack samples of one size into a batch."""
    return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))
