"""Archives unpacked: no bombs, no files outside of the folder, nothing half written."""

from __future__ import annotations

import io
import logging
import re
import shutil
import stat
import sys
import time
import unicodedata
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from io import FileIO
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZipFile, ZipInfo

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


def require(folder: Path, needed: int, what: str) -> None:
    """See that so many bytes fit on the disk of a folder.

    Raises:
        ValueError: they do not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {what} needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on "
            "this disk; free some, or choose a folder on another disk with to=DIR"
        )


_KINDS = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
}  # fmt: skip
# Marks that let text run from right to left.
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class DamagedError(Exception):
    """An archive cannot be read to its end."""


class Member(NamedTuple):
    """One entry of an archive.

    Attributes:
        name: as it stands in the archive.
        size: in bytes, unpacked, as the archive says.
        folder: whether it is one.
        mode: type bits of Unix, or 0 where the archive tells none.
    """

    name: str
    size: int
    folder: bool
    mode: int


def places(archive: Path, members: Iterable[Member]) -> dict[str, PurePosixPath]:
    """Where each member that is a file belongs, below the folder that it is unpacked into.

    What macOS adds (`__MACOSX`) is left out.

    Returns:
        Name of the member in the archive -> relative path.

    Raises:
        ValueError: a member would lie outside the folder, is neither file nor folder, or has the
            place of another; then nothing of the archive may be unpacked.
    """
    found: dict[str, PurePosixPath] = {}
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in members:
        path = _place(archive, member)
        kind = stat.S_IFMT(member.mode)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(archive, member, f"is {_KINDS.get(kind, 'neither file nor folder')}")
        if member.folder:
            folders.update((path, *path.parents))
            continue
        if path in files or not path.parts:
            raise _unsafe(archive, member, "has the place of another one")
        files.add(path)
        folders.update(path.parents)
        if path.parts[0] != "__MACOSX":
            found[member.name] = path
    if both := sorted(files & folders):
        raise ValueError(
            f"{archive}: {both[0]} is a file and a folder at once; nothing was unpacked from it"
        )
    return found


def _place(archive: Path, member: Member) -> PurePosixPath:
    name = member.name.replace("\\", "/")  # as Windows writes them
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        raise _unsafe(archive, member, "has an absolute path")
    if ".." in name.split("/"):
        raise _unsafe(archive, member, "has `..` in its path")
    if "\0" in name:
        raise _unsafe(archive, member, "has a zero byte in its path")
    # They would steer the terminal, or show a name that is another one.
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING for c in name):
        raise _unsafe(archive, member, "has a control character in its path")
    return PurePosixPath(name)


def _unsafe(archive: Path, member: Member, why: str) -> ValueError:
    return ValueError(
        f"{archive}: its member {member.name!r} {why}, which this set should not have. Nothing was "
        "unpacked from it; remove the archive and get it from the place that published it"
    )


_BLOCK = 1 << 20


class Zipped:
    """A zip archive that is open."""

    def __init__(self, file: ZipFile) -> None:
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, paths: Sequence[Path]) -> Iterator[Zipped]:
        (path,) = paths
        try:
            file = ZipFile(path)
        except Exception as error:  # whatever the damage makes zipfile stumble over
            raise DamagedError(error) from error
        with file:
            yield cls(file)

    def members(self) -> list[Member]:
        return [
            Member(
                m.orig_filename, m.file_size, m.orig_filename.endswith("/"), m.external_attr >> 16
            )
            for m in self._file.infolist()
        ]

    def unpack(self, create: Callable[[str], FileIO | None]) -> None:
        """Write each file to what `create` gives for its name; None: leave it out."""
        for member in self._file.infolist():
            sink = None if member.is_dir() else create(member.orig_filename)
            if sink is not None:
                with sink:
                    for block in self._blocks(member):
                        sink.write(block)

    def _blocks(self, member: ZipInfo) -> Iterator[bytes]:
        try:
            with self._file.open(member) as content:  # which tests the checksum at the end
                while block := content.read(_BLOCK):
                    yield block
        except Exception as error:  # damage of any kind, an unknown compression, a password
            raise DamagedError(f"{member.filename}: {error}") from error


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


_MOST_UNFOLDED = 100  # times its size; images, compressed already, hardly shrink
_LITTLE = 1 << 30  # bytes that may come of an archive in any case
MARK = ".tff-unpacked.json"  # file in a folder that was unpacked, so that it is known again


def unpack(
    paths: Sequence[Path], kind: str, target: Path, holds: str | None = None, mark: str = ""
) -> None:
    """Unpack an archive into a folder that does not exist yet.

    It grows under another name beside and is renamed when all is there, so that a folder of the
    name `target` is complete whenever the process is killed.

    Args:
        paths: the archive, or its volumes in order.
        kind: `zip` or `7z`.
        target: the folder that it becomes.
        holds: a folder that is at the top of `target`; folders around it are left out.
        mark: text of the file `MARK` that is put into `target`; "": none is.

    Raises:
        ValueError: the archive is damaged or truncated, a member would lie outside the folder or
            is a link or device, it would unfold into far more than images do, there is no folder
            `holds`, or the disk is full.
    """
    draft = target.with_name(f".{target.name}.draft")
    if draft.exists():
        shutil.rmtree(draft)  # of a process that was killed
    try:
        draft.mkdir()
        _write(paths, kind, draft)
        top = _top(draft, holds, paths[0])
        if mark:
            (top / MARK).write_text(mark)
        top.rename(target)
    except DamagedError as error:
        raise ValueError(
            f"{paths[0]}: damaged, or no {kind} archive that can be read ({error}). Nothing was "
            "unpacked; remove it and run the same command again to download it anew"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{error.filename or target}: cannot be written ({error.strerror}); the archive is "
            "kept: mend that and run the same command again to go on"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(paths: Sequence[Path], kind: str, draft: Path) -> None:
    archive = paths[0]
    reader: type[Zipped | SevenZip] = Zipped if kind == "zip" else SevenZip
    with reader.opened(paths) as opened:
        members = opened.members()
        where = places(archive, members)
        if not where:
            raise DamagedError("no file in it")
        total = sum(member.size for member in members)
        _refuse_bomb(archive, sum(path.stat().st_size for path in paths), total)
        require(draft, total, f"unpacking {archive.name}")
        with counted(f"unpack {archive.name}", total) as advance:
            maker = _Maker(draft, where, advance)
            opened.unpack(maker)
    if missing := set(where.values()) - maker.made:
        raise DamagedError(f"{len(missing)} files are missing, such as {min(missing)}")


def _refuse_bomb(archive: Path, packed: int, total: int) -> None:
    if total > max(_LITTLE, _MOST_UNFOLDED * packed):
        raise ValueError(
            f"{archive}: its {packed:,} bytes would unfold into {total:,}, which images do not. "
            "Nothing was unpacked; remove it and get it from the place that published it"
        )


class _Maker:
    """Opens a new file for a member of an archive."""

    def __init__(
        self, draft: Path, where: Mapping[str, PurePosixPath], advance: Callable[[int], None]
    ) -> None:
        self._draft, self._where, self._advance = draft, where, advance
        self._places = set(where.values())
        self.made: set[PurePosixPath] = set()

    def __call__(self, name: str) -> io.FileIO | None:
        # py7zr tidies names ("./a" is "a"), as paths do.
        place = self._where.get(name, PurePosixPath(name))
        if place not in self._places:
            return None
        path = self._draft / place
        path.parent.mkdir(parents=True, exist_ok=True)
        self.made.add(place)
        return _Counting(path, self._advance)


class _Counting(io.FileIO):
    """A new file that tells how many bytes were written."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path, "xb")
        self._advance = advance

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        self._advance(len(data))
        return len(data)


def _top(draft: Path, holds: str | None, archive: Path) -> Path:
    """The folder, as high up as possible, that holds a folder of that name."""
    if holds is None:
        return draft
    waiting = deque([draft])
    while waiting:
        folder = waiting.popleft()
        if (folder / holds).is_dir():
            return folder
        waiting.extend(sorted(path for path in folder.iterdir() if path.is_dir()))
    raise ValueError(
        f"{archive}: no folder {holds} in it, so it is not the archive that was expected; remove it"
    )
