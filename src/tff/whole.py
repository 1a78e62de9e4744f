"""Files and folders that are there whole or not at all: written beside, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from tff.faults import writing

_PART = re.compile(r"^\..+-[0-9a-f]{32}\.part$")
_ABANDONED = 3600  # seconds


def beside(path: Path) -> Path:
    """A name in the same folder that nobody else takes.

    Not by the number of the process: those of two containers may be the same.
    """
    return path.with_name(f".{path.name}-{uuid4().hex}.part")


@contextmanager
def whole(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when all of it is there.

    Args:
        path: its folder is made where it is missing.
        lasting: wait until file and name are on the disk, so that they outlive the machine.

    Raises:
        OSError: the disk is full or the like; the message names `path`, which is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = beside(path)
    try:
        with writing(path):
            yield part
            if lasting:
                _to_disk(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if lasting:
        _to_disk(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write what JSON can hold."""
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def remove_abandoned(folder: Path, seconds: float = _ABANDONED) -> None:
    """Remove what writers that were killed have left in a folder.

    Args:
        folder: may be missing.
        seconds: since the last change. A writer may be on another machine: one that lives has
            written within the hour. 0 where nobody else writes.
    """
    for part in folder.glob(".*.part"):
        if _PART.search(part.name):
            with suppress(OSError):  # done by another one, or not ours
                if seconds and time.time() - part.stat().st_mtime <= seconds:
                    continue
                if part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part)
                else:
                    part.unlink()


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
