"""Several processes as one: ranks, agreement, and errors that are raised on all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

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
    """What the first process has, on all of them: a file may appear between two looks at it.

    Raises:
        OtherProcessError: another process has failed before, within `all_or_none`.
    """
    if place()[1] == 1:
        return value
    with together():
        pass  # one that failed on its way here has said so
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
    block = _Block()
    error: Exception | None = None
    try:
        yield block.look
    except _LeaveError:
        pass
    except Exception as raised:
        error = raised
    told = block.leave(error)
    if error is not None and not any(one.error for one in told[:rank]):
        raise error
    _raise_first(told, error)


@contextmanager
def all_or_none() -> Iterator[None]:
    """Either all processes get through it or none, wherever in it one of them fails.

    All must enter it, and may meet in `together` and `agreed` within, but not in another one of
    this. A process that fails on its own goes to the end of it, and there tells the others: those
    that are in a `together` still take it for that one, fail as well, and come after. So all meet
    at the end, and exchange as often on the way. Where several fail, each keeps its own error.

    An error while tensors are being exchanged is beyond this: the others wait for them.

    Raises:
        OtherProcessError: another process has failed.
    """
    if place()[1] == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    told = _Block().leave(error, ended=True)
    while not all(one.ended for one in told):
        told = _Block().leave(error, ended=True)
    if error is not None:
        raise error
    _raise_first(told)


class _Told(NamedTuple):
    """What a process says when it leaves a block."""

    error: str  # empty: all went well
    ended: bool  # whether it is at the end of `all_or_none`


class _Block:
    """What all processes leave together. Each counts its own, and all come to the same number."""

    def __init__(self) -> None:
        self.rank, self.world = place()
        # The store is not public; without it processes would learn of an error at the end of a
        # pass only, which may be hours away.
        self.store = distributed_c10d._get_default_store()
        # Counted there and not here: the first process of a sweep lives on from job to job, while
        # the others, and the store, are new.
        self.key = f"tff/failed/{self.store.add(f'tff/blocks/{self.rank}', 1)}"
        self.looked = time.monotonic()

    def look(self) -> None:
        """Leave early if another process has failed; asks twice a second at most."""
        if time.monotonic() - self.looked > 0.5:
            self.looked = time.monotonic()
            if self.store.check([self.key]):
                raise _LeaveError

    def leave(self, error: Exception | None, ended: bool = False) -> list[_Told]:
        """Wait for the others; what each of them says."""
        if error is not None:
            self.store.set(self.key, "")
        told = [_Told("", False)] * self.world
        text = "" if error is None else str(error) or repr(error)
        all_gather_object(told, _Told(text, ended))
        return told


def _raise_first(told: Sequence[_Told], cause: Exception | None = None) -> None:
    for number, one in enumerate(told):
        if one.error:
            raise OtherProcessError(f"process {number} of {len(told)}: {one.error}") from cause
