"""Ranks, broadcasts, and blocks in which an error of one rank is raised on all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from torch import distributed
from torch.distributed import distributed_c10d

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process failed; the message names its rank and its error."""


class _LeaveBlockError(Exception):
    """Another process failed: leave the block early."""


def get_rank() -> int:
    """Rank of this process; 0 without a process group, where torch's own raises."""
    return distributed.get_rank() if _is_initialized() else 0


def get_world_size() -> int:
    """Number of processes; 1 without a process group."""
    return distributed.get_world_size() if _is_initialized() else 1


def _is_initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def broadcast(value: T) -> T:
    """Value of rank 0, on all ranks.

    For what ranks may see differently, such as whether a file exists yet.

    Raises:
        OtherProcessError: another process failed earlier, within `guard_collectives`.
    """
    if get_world_size() == 1:
        return value
    with fail_together():
        pass  # a process that failed on its way here reports it now
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


@contextmanager
def fail_together() -> Iterator[Callable[[], None]]:
    """Collective block without communication inside: if one rank raises, all raise.

    All ranks must enter it. A collective inside would wait for a rank that has already failed; see
    `guard_collectives`. Yields a function to call now and then, such as once a batch: it leaves the
    block early when another process has failed.

    Raises:
        OtherProcessError: another process raised within.
    """
    if get_world_size() == 1:
        yield lambda: None
        return
    block = _Block()
    error: Exception | None = None
    try:
        yield block.check
    except _LeaveBlockError:
        pass
    except Exception as raised:
        error = raised
    outcomes = block.leave(error)
    if error is not None and not any(outcome.error for outcome in outcomes[: get_rank()]):
        raise error
    _raise_first(outcomes, error)


@contextmanager
def guard_collectives() -> Iterator[None]:
    """Collective block around `fail_together` and `broadcast`: if one rank raises, all raise.

    All ranks must enter it; blocks of this kind do not nest. A rank that fails between two inner
    blocks goes to the end of this one and reports its error there. Ranks that are in an inner block
    take the report for one of that block, fail as well and come to the end, too: all ranks take
    part in the same number of exchanges. Where several ranks fail, each keeps its own error.

    It does not help against an error in the middle of an exchange of tensors: the others wait.

    Raises:
        OtherProcessError: another process failed.
    """
    if get_world_size() == 1:
        yield
        return
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    outcomes = _Block().leave(error, at_end=True)
    while not all(outcome.at_end for outcome in outcomes):
        outcomes = _Block().leave(error, at_end=True)
    if error is not None:
        raise error
    _raise_first(outcomes)


class _Outcome(NamedTuple):
    """What a process reports when it leaves a block."""

    error: str  # empty: none
    at_end: bool  # whether it is at the end of `guard_collectives`


class _Block:
    """A block that all ranks leave together; each counts its blocks, so the numbers agree."""

    def __init__(self) -> None:
        # The store is not public. Without it, processes would learn of an error at the end of a
        # pass only, which may be hours later.
        self.store = distributed_c10d._get_default_store()
        # The store counts, not this process: rank 0 of a sweep lives on from job to job, while the
        # other processes and the store are new.
        self.key = f"tff/failed/{self.store.add(f'tff/blocks/{get_rank()}', 1)}"
        self.checked = time.monotonic()

    def check(self) -> None:
        """Leave early if another process has failed; asks the store at most twice a second."""
        if time.monotonic() - self.checked > 0.5:
            self.checked = time.monotonic()
            if self.store.check([self.key]):
                raise _LeaveBlockError

    def leave(self, error: Exception | None, at_end: bool = False) -> list[_Outcome]:
        """Wait for all ranks; their outcomes."""
        if error is not None:
            self.store.set(self.key, "")
        outcomes = [_Outcome("", False)] * get_world_size()
        text = "" if error is None else str(error) or repr(error)
        distributed.all_gather_object(outcomes, _Outcome(text, at_end))
        return outcomes


def _raise_first(outcomes: Sequence[_Outcome], cause: Exception | None = None) -> None:
    for rank, outcome in enumerate(outcomes):
        if outcome.error:
            text = f"process {rank} of {len(outcomes)}: {outcome.error}"
            raise OtherProcessError(text) from cause
