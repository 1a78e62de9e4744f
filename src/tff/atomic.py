"""Files and folders that are complete or absent, and locks on them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from uuid import uuid4
from weakref import ref

log = logging.getLogger(__name__)
_PART = re.compile(r"^\..+-[0-9a-f]{32}\.part$")
_ABANDONED = 3600  # seconds


def temporary_path(path: Path) -> Path:
    """A name in the same folder that nobody else takes.

    Not by the number of the process: those of two containers may be the same.
    """
    return path.with_name(f".{path.name}-{uuid4().hex}.part")


@contextmanager
def name_file_in_errors(path: Path | str) -> Iterator[None]:
    """Errors of writing within name the file, as those of opening one do.

    Raises:
        OSError: with `filename`; also where torch has hidden it behind a RuntimeError of its own.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or cause.errno is None:
            raise
        raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error


@contextmanager
def write_atomically(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when all of it is there.

    Args:
        path: its folder is made where it is missing.
        lasting: wait until file and name are on the disk, so that they outlive the machine.

    Raises:
        OSError: the disk is full or the like; the message names `path`, which is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_path(path)
    try:
        with name_file_in_errors(path):
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
    with write_atomically(path) as part:
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


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Lock a file, which is made where it is missing; False: another process has locked it.

    The lock ends with the block, and with this process however it ends. Where the file system knows
    no locks, nobody is kept out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        ours = _lock(file, fcntl.LOCK_EX)
        if ours:
            # A process that is forked from this one (it may load images) outlives it for a while,
            # and would keep the lock. Those that begin another program close the file anyway.
            os.register_at_fork(after_in_child=partial(_close, ref(file)))
        yield ours


def is_locked(path: Path) -> bool:
    """Whether a process has locked a file, as `lock` does."""
    try:
        with open(path, "rb") as file:
            return not _lock(file, fcntl.LOCK_SH)
    except OSError:  # not there
        return False


def _lock(file: BufferedIOBase, how: int) -> bool:
    try:
        fcntl.flock(file.fileno(), how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.debug("goes on without a lock: %s", error)
    return True


def _close(file: ref[BufferedIOBase]) -> None:
    if (still := file()) is not None:
        still.close()


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
