"""Progress in bytes: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

log = logging.getLogger(__name__)

LOG_INTERVAL = 30.0  # seconds between two lines in a log


@contextmanager
def track_bytes(
    description: str, total: int | None, done: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes are done; yields the function to call with each increment."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total, completed=done)
            yield lambda increment: bar.advance(task, increment)
        return
    start = last = time.monotonic()
    first = done

    def advance(increment: int) -> None:
        nonlocal done, last
        done += increment
        now = time.monotonic()
        if now - last > LOG_INTERVAL:
            last = now
            percent = f" ({done / total:.0%})" if total else ""
            speed = (done - first) / (now - start)
            log.info("%s: %s%s, %s/s", description, show_bytes(done), percent, show_bytes(speed))

    yield advance


def show_bytes(number: float) -> str:
    """A number of bytes in decimal units, as vendors of disks use them.

    >>> show_bytes(830_792_545), show_bytes(12), show_bytes(74.9e9)
    ('830.8 MB', '12 bytes', '74.9 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number:.0f} bytes"
