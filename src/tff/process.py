"""Which of several processes this one is, and how they agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

from torch.distributed import (
    all_gather_object,
    broadcast_object_list,
    distributed_c10d,
    get_rank,
    get_world_size,
    is_available,
    is_initialized,
)

T = TypeVar("T")
_blocks = count()


class OtherProcessError(RuntimeError):
    """One of the other processes failed; the message says which, and why."""


class _LeaveError(Exception):
    """Another process has failed: to the end of the block."""


def place() -> tuple[int, int]:
    """(rank, number of processes) of the running process; (0, 1) when it is alone."""
    if is_available() and is_initialized():
        return get_rank(), get_world_size()
    return 0, 1


def agreed(value: T) -> T:
    """What the first process has, on all of them: a file may appear between two looks at it."""
    if place()[1] == 1:
        return value
    answer = [value]
    broadcast_object_list(answer)
    return answer[0]


@contextmanager
def together() -> Iterator[Callable[[], None]]:
    """What one of the processes cannot do, none of them does: its error is raised on all.

    All processes must enter it, and none may exchange anything within: it would wait for one that
    is not coming. Yields what is to be called now and then, once a batch: it leaves the block early
    when another process has failed.

    Raises:
        OtherProcessError: another process raised an exception within.
    """
    rank, world = place()
    if world == 1:
        yield lambda: None
        return
    # The store is not public; without it processes would learn of an error at the end of a pass
    # only, which may be hours away.
    store, key = distributed_c10d._get_default_store(), f"tff/failed/{next(_blocks)}"
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        if time.monotonic() - looked > 0.5:
            looked = time.monotonic()
            if store.check([key]):
                raise _LeaveError

    error: Exception | None = None
    try:
        yield look
    except _LeaveError:
        pass
    except Exception as raised:
        error = raised
        store.set(key, "")
    told = [""] * world
    all_gather_object(told, "" if error is None else str(error) or repr(error))
    failed = [number for number, text in enumerate(told) if text]
    if error is not None and failed[0] == rank:
        raise error
    if failed:
        raise OtherProcessError(f"process {failed[0]} of {world}: {told[failed[0]]}") from error
