"""Processes that load images: they hear no signal, and end with the process that started them."""

from __future__ import annotations

import atexit
import signal
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakSet, ref


def deaf(worker: int) -> None:
    """Ignore signals: clusters and terminals send them to workers too, whose end breaks a step."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def end_with_process(batches: Any) -> None:
    """Have the workers behind an iterator of a loader ended in their own way with this process.

    Python would send them SIGTERM, to which they are deaf, and wait for them for ever. The loader
    may be gone by then: whoever holds the iterator, or an error that came out of it, holds them.

    A process that multiprocessing has started ends by its finalizers, any other one by atexit,
    where this comes before PyTorch declares that nothing can be ended any more.
    """
    if batches in _known or not hasattr(batches, "_shutdown_workers"):
        return
    _known.add(batches)
    for worker in batches._workers:
        # What multiprocessing and PyTorch end those with that do not end otherwise.
        worker._popen.terminate = worker._popen.kill
    # Before queues are closed (10), by which workers are told.
    Finalize(batches, _end, (ref(batches),), exitpriority=100)
    atexit.register(_end, ref(batches))


_known: WeakSet[Any] = WeakSet()


def end(batches: Any) -> None:
    """End the workers behind an iterator of a loader, if it has any."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()


def _end(batches: ref[Any]) -> None:
    if (running := batches()) is not None:
        end(running)
