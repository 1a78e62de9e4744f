"""7z archives of one volume or several, by the optional package py7zr."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from tff.data.download.members import DamagedError, Member

_REPARSE, _UNIX = 0x400, 0x8000  # attributes: a link of Windows; the upper half holds Unix' mode
_LINK = 0o120000


def library() -> Any:
    """The package py7zr.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module("py7zr")
    except ModuleNotFoundError as error:
        raise ValueError(
            "a 7z archive is unpacked with the package py7zr, which is not installed: "
            "pip install py7zr, then run the same command again to go on"
        ) from error


@contextmanager
def _readable() -> Iterator[None]:
    """What a damaged archive makes py7zr stumble over is of any kind, but no error of the disk."""
    try:
        yield
    except (OSError, DamagedError):
        raise
    except Exception as error:
        raise DamagedError(str(error) or type(error).__name__) from error


class SevenZip:
    """A 7z archive that is open."""

    def __init__(self, file: Any) -> None:
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, paths: Sequence[Path]) -> Iterator[SevenZip]:
        with ExitStack() as stack:
            volumes = Volumes([stack.enter_context(open(path, "rb")) for path in paths])
            joined = io.BufferedReader(volumes, 1 << 20)
            package = library()
            with _readable():
                file = package.SevenZipFile(joined)
            yield cls(stack.enter_context(file))

    def members(self) -> list[Member]:
        with _readable():
            return [
                Member(m.filename, m.uncompressed, m.is_directory, _mode(m))
                for m in self._file.files
            ]

    def unpack(self, create: Callable[[str], io.FileIO | None]) -> None:
        """Write each file to what `create` gives for its name; None: leave it out."""
        with _readable():
            self._file.extract(factory=_Sinks(create))


def _mode(member: Any) -> int:
    attributes = member.file_properties().get("attributes") or 0
    return attributes >> 16 if attributes & _UNIX else _LINK if attributes & _REPARSE else 0


class _Sinks:
    """py7zr's WriterFactory: gives a place to write to for each file."""

    def __init__(self, create: Callable[[str], io.FileIO | None]) -> None:
        self._create = create

    def create(self, filename: str) -> _Sink:
        return _Sink(self._create(filename))


class _Sink:
    """py7zr's Py7zIO over a file; it is written from the beginning to the end."""

    def __init__(self, file: io.FileIO | None) -> None:
        self._file, self._size = file, 0

    def write(self, data: bytes) -> int:
        if self._file is not None:
            self._file.write(data)
        self._size += len(data)
        return len(data)

    def seekable(self) -> bool:
        return False

    def size(self) -> int:
        return self._size

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Volumes(io.RawIOBase):
    """Files one behind the other, read as one."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        sizes = [file.seek(0, io.SEEK_END) for file in files]
        self._files, self._starts = files, [0, *accumulate(sizes)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._starts[-1]:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        file = self._files[number]
        file.seek(self._at - self._starts[number])
        count: int = file.readinto(memoryview(buffer))  # type: ignore[attr-defined]
        self._at += count
        return count
