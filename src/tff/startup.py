"""What a process does first: it reads names as UTF-8, and its output can no longer end it."""

from __future__ import annotations

import io
import logging
import os
import pwd
import select
import sys
from contextlib import suppress
from typing import Any

PATIENCE = 10.0  # seconds for a terminal that takes nothing more at the moment


def prepare_process() -> None:
    """Prepare the process of a script for any terminal, log file, locale and user.

    Called before everything else. In a locale without UTF-8 it starts Python again, in UTF-8 mode:
    Python then reads names of files and arguments as UTF-8, which they are.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        # The terminal is the same.
        os.environ.setdefault("PYTHONIOENCODING", f"{_encoding()}:backslashreplace")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    guard_output()
    _name_user()
    sys.excepthook = _shorten_interrupt


def _shorten_interrupt(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print a word instead of a stack trace for Ctrl-C before a run has begun."""
    if issubclass(kind, KeyboardInterrupt):
        write_now(b"\nInterrupted.\n")
    else:
        sys.__excepthook__(kind, error, trace)


def guard_output() -> None:
    """Let no error of writing to standard output or error reach the caller.

    What the encoding of a terminal or log file lacks is escaped. What cannot be written at all (the
    reader is gone, the disk is full, the stream is closed) is lost. Called in spawned processes,
    too.
    """
    logging.raiseExceptions = False  # a log file on a full disk prints no stack traces
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed; the next file that is opened would take its place
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            raw: Any = _Lossy(os.devnull, "w")
            guarded: Any = io.TextIOWrapper(raw, errors="backslashreplace", encoding="utf-8")
        elif not _is_standard(stream):
            continue
        else:
            with suppress(OSError):
                stream.flush()
            raw = _Lossy(stream.fileno(), "w", closefd=False)
            unbuffered = stream.buffer is _raw(stream)  # PYTHONUNBUFFERED
            guarded = io.TextIOWrapper(
                raw if unbuffered else io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering or name == "stderr",
                write_through=stream.write_through,
            )
        setattr(sys, name, guarded)
        setattr(sys, f"__{name}__", guarded)


def write_now(text: bytes) -> None:
    """Write to standard error, from a signal handler too, where streams cannot be used."""
    with suppress(OSError):
        os.write(2, text)


class _Lossy(io.FileIO):
    """A file in which nothing is written where writing fails."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
            if written is None:  # it does not block, and is full
                select.select([], [self], [], PATIENCE)
                written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def _is_standard(stream: Any) -> bool:
    """Whether a stream is that of the process: not one of a test or a notebook."""
    try:
        return stream.fileno() in (1, 2) and type(_raw(stream)) is io.FileIO
    except (AttributeError, OSError, ValueError):
        return False


def _raw(stream: Any) -> Any:
    return getattr(stream.buffer, "raw", stream.buffer)


def _encoding() -> str:
    stream = sys.stdout or sys.stderr
    return getattr(stream, "encoding", None) or "ascii"


def _name_user() -> None:
    """Name the user and a home where the system knows neither, as in a container.

    Python and libraries ask for them to find a folder for caches, and fail otherwise.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("LOGNAME", f"user-{os.getuid()}")
        os.environ.setdefault("USER", os.environ["LOGNAME"])
        os.environ.setdefault("HOME", "/")
