"""How many bytes are done: a bar on a terminal, a line now and then in a log."""

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

SILENCE = 30.0  # seconds between two lines in a log


@contextmanager
def counted(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` bytes are done; call what this yields with each further number."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total, completed=done)
            yield lambda number: bar.advance(task, number)
        return
    start = said = time.monotonic()
    first = done

    def advance(number: int) -> None:
        nonlocal done, said
        done += number
        now = time.monotonic()
        if now - said > SILENCE:
            said = now
            share = f" ({done / total:.0%})" if total else ""
            speed = (done - first) / (now - start)
            log.info("%s: %s%s, %s/s", description, amount(done), share, amount(speed))

    yield advance


def amount(number: float) -> str:
    """Bytes in words, with decimal units as sellers of disks count them.

    >>> amount(830_792_545), amount(12), amount(74.9e9)
    ('830.8 MB', '12 bytes', '74.9 GB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number:.0f} bytes"
