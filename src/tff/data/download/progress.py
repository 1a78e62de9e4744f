"""Progress in bytes: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console
from rich.filesize import decimal

log = logging.getLogger(__name__)

LOG_INTERVAL = 30.0  # seconds between two lines in a log


@contextmanager
def track_bytes(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes are done; yields the function to call with each increment."""
    if sys.stderr.isatty():
        text = bars.TextColumn("{task.description}", markup=False)
        numbers = (bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn())
        console = Console(stderr=True)
        with bars.Progress(
            text, bars.BarColumn(), *numbers, console=console, transient=True
        ) as bar:
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
            speed = decimal(int((done - first) / (now - start)))
            log.info("%s: %s%s, %s/s", description, decimal(done), percent, speed)

    yield advance
