"""Files and folders that are complete or absent, and locks on them."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO
from uuid import uuid4
from weakref import ref

from tff.foreign_files import open_regular
from tff.strict_json import dumps

log = logging.getLogger(__name__)
_PART = re.compile(r"^\..+-[0-9a-f]{32}\.part$")


def temporary_path(path: Path) -> Path:
    """A unique path in the same folder, for a file that is then renamed to `path`.

    Without the number of the process, which may be the same in two containers.
    """
    return path.with_name(f".{path.name}-{uuid4().hex}.part")


@contextmanager
def name_file_in_errors(path: Path | str) -> Iterator[None]:
    """Name the file in errors of writing, as Python does in errors of opening.

    Raises:
        OSError: with `filename`, also in place of a RuntimeError that torch raises from it.
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
    """Yield a temporary path, and rename it to `path` once it is written completely.

    Args:
        path: its folder is created if missing.
        lasting: wait until file and name are on the disk, so that they survive a power failure.

    Raises:
        OSError: such as a full disk; the message names `path`, which is unchanged.
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


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically; numbers that are not finite become null."""
    with write_atomically(path) as part:
        part.write_text(dumps(content, indent=1) + "\n", encoding="utf-8")


def remove_abandoned(folder: Path, seconds: float = 3600) -> None:
    """Remove temporary files that killed writers have left in a folder.

    Args:
        folder: may be missing.
        seconds: minimum age, since a running writer, even on another machine, writes at least once
            an hour; 0 where nobody else writes.
    """
    for part in folder.glob(".*.part"):
        if _PART.search(part.name):
            with suppress(OSError):  # removed by another process, or not permitted
                if seconds and time.time() - part.stat().st_mtime <= seconds:
                    continue
                if part.is_dir() and not part.is_symlink():
                    shutil.rmtree(part)
                else:
                    part.unlink()


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Lock a file, which is created if missing; yields False if another process holds the lock.

    The lock ends with the block, and with this process however it exits. On a file system without
    locks it always succeeds.

    Raises:
        ValueError: there is a pipe, a device or a folder in place of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(path, "ab") as file:
        locked = _lock(file, fcntl.LOCK_EX)
        if locked:
            # A forked process, such as a worker of a loader, may outlive this one and would keep
            # the lock. Processes that start another program close the file anyway.
            os.register_at_fork(after_in_child=partial(_close, ref(file)))
        yield locked


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    try:
        with open_regular(path) as file:
            return not _lock(file, fcntl.LOCK_SH)
    except (OSError, ValueError):  # missing, or no file
        return False


def _lock(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file.fileno(), how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.debug("continuing without a lock: %s", error)
    return True


def _close(file: ref[IO[bytes]]) -> None:
    if (still := file()) is not None:
        still.close()
