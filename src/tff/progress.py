"""Progress bars on a terminal, and plain lines in a log; on rank zero only."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tff.distributed import get_rank
from tff.safe_text import make_printable

T = TypeVar("T")
log = logging.getLogger(__name__)


def track(items: Iterable[T], description: str) -> Iterator[T]:
    """Yield the items and show the progress; in a log, a line for what takes more than a second."""
    if get_rank() > 0:
        yield from items
        return
    description = make_printable(description)
    total = len(items) if isinstance(items, Sized) else None
    if not sys.stderr.isatty():
        start = time.monotonic()
        yield from items
        if (seconds := time.monotonic() - start) > 1:
            log.info("%s: %.0f s", description, seconds)
        return
    title = TextColumn("{task.description}", markup=False)
    columns = title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(items, total=total, description=description)
