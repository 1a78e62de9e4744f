"""Processes that this one has started, when a signal ends them all."""

from __future__ import annotations

import multiprocessing
from multiprocessing.process import BaseProcess
from typing import Any


def trains_elsewhere(launcher: Any) -> bool:
    """Whether processes that Lightning has spawned do the training, and this one only waits.

    Args:
        launcher: of the strategy. One that starts scripts trains in this process as well.
    """
    procs = getattr(launcher, "procs", None) or ()
    return any(isinstance(process, BaseProcess) and process.is_alive() for process in procs)


def kill_started() -> None:
    """End those that were spawned: Python would wait for them, and they for each other.

    Nothing is lost with them: what is written is written beside and renamed. Workers of a loader
    end with it.
    """
    for process in multiprocessing.active_children():
        if not process.daemon:
            process.kill()
