"""Zip and 7z archives: unpacked completely or not at all, and never outside their folder."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from zipfile import ZipFile

from tff.data.download.progress import track_bytes

#: Written into each unpacked folder, so that a later run recognizes it.
MARKER = ".tff-unpacked.json"
MAX_RATIO = 100  # unpacked to packed size; images are compressed already and hardly shrink
ALWAYS_ALLOWED = 1 << 30  # unpacked bytes that no archive is refused for
_BLOCK = 1 << 20
_KINDS = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
}  # fmt: skip
_BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_REPARSE, _UNIX = 0x400, 0x8000  # 7z attributes: a Windows link; the upper half is the Unix mode


class DamagedError(Exception):
    """An archive cannot be read to its end."""


class Member(NamedTuple):
    """One entry of an archive.

    Attributes:
        name: as stored in the archive.
        size: unpacked size in bytes, as stored in the archive.
        is_folder: whether it is a folder.
        mode: Unix file mode, or 0 if the archive stores none.
    """

    name: str
    size: int
    is_folder: bool
    mode: int


def unpack(
    paths: Sequence[Path], kind: str, target: Path, holds: str | None = None, marker: str = ""
) -> None:
    """Unpack an archive into a new folder.

    Files are written to a draft folder, which is renamed to `target` at the end. A folder named
    `target` is therefore complete, even if the process is killed.

    Args:
        paths: the archive, or its volumes in order.
        kind: `zip` or `7z`.
        target: the new folder.
        holds: name of a folder to become a direct child of `target`; parents are dropped.
        marker: content of the file `MARKER` in `target`; "" writes none.

    Raises:
        ValueError: the archive is damaged, holds a link, a device or a path outside the folder,
            unpacks into far more than images do, holds no folder `holds`, or the disk is full.
    """
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # left by a process that was killed
    try:
        draft.mkdir()
        _extract(paths, kind, draft)
        top = draft
        if holds is not None:  # the topmost folder with such a child
            parents = [path.parent for path in draft.rglob(holds) if path.is_dir()]
            if not parents:
                raise ValueError(
                    f"{paths[0]}: no folder {holds} in it, so it is not the expected archive; "
                    "remove it"
                )
            top = min(parents, key=lambda folder: (len(folder.parts), folder))
        if marker:
            (top / MARKER).write_text(marker)
        top.rename(target)
    except DamagedError as error:
        raise ValueError(
            f"{paths[0]}: damaged, or not a {kind} archive ({error}). Nothing was unpacked; remove "
            "it and run the same command again to download it once more"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{error.filename or target}: cannot be written ({error.strerror}). The archive is "
            "kept; fix the problem and run the same command again"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(paths: Sequence[Path], kind: str, draft: Path) -> None:
    archive = paths[0]
    with ExitStack() as stack:
        members, extract = (_open_zip if kind == "zip" else _open_7z)(paths, stack)
        places = plan(archive, members)
        if not places:
            raise DamagedError("it holds no files")
        total = sum(member.size for member in members)
        packed = sum(path.stat().st_size for path in paths)
        if total > max(ALWAYS_ALLOWED, MAX_RATIO * packed):
            raise ValueError(
                f"{archive}: {packed:,} bytes would unpack into {total:,}, which images never do. "
                "Nothing was unpacked; remove the archive and get it from its publisher"
            )
        require_space(draft, total, f"unpacking {archive.name}")
        output = _Output(
            draft, places, stack.enter_context(track_bytes(f"unpack {archive.name}", total))
        )
        with _reading_errors(but=OSError):  # those are of the disk that is written to
            extract(output)
    if missing := set(places.values()) - output.written:
        raise DamagedError(f"{len(missing)} files are missing, such as {min(missing)}")


def plan(archive: Path, members: Iterable[Member]) -> dict[str, PurePosixPath]:
    """Name of each file to unpack -> relative path; `__MACOSX`, which macOS adds, is skipped.

    Raises:
        ValueError: a member would lie outside the folder, is neither file nor folder, or has the
            same path as another.
    """
    places: dict[str, PurePosixPath] = {}
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))  # as Windows writes them
        kind = stat.S_IFMT(member.mode)
        if problem := find_path_problem(member.name):
            raise _unsafe(archive, member, problem)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(archive, member, f"is {_KINDS.get(kind, 'neither file nor folder')}")
        if member.is_folder:
            folders.update((path, *path.parents))
            continue
        if path in files or not path.parts:
            raise _unsafe(archive, member, "has the same path as another member")
        files.add(path)
        folders.update(path.parents)
        if path.parts[0] != "__MACOSX":
            places[member.name] = path
    if both := sorted(files & folders):
        raise ValueError(f"{archive}: {both[0]} is both a file and a folder; nothing was unpacked")
    return places


def find_path_problem(name: str) -> str:
    """Why a path from the network is unsafe below a folder; "" if it is safe."""
    name = name.replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has `..` in its path"
    # They would steer the terminal, or disguise the name.
    if any(unicodedata.category(c) in ("Cc", "Cs") or c in _BIDIRECTIONAL for c in name):
        return "has a control character in its path"
    return ""


def _unsafe(archive: Path, member: Member, problem: str) -> ValueError:
    return ValueError(
        f"{archive}: its member {member.name!r} {problem}, so the archive is not trusted. Nothing "
        "was unpacked; remove the archive and get it from its publisher"
    )


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Check that `needed` bytes fit on the disk of a folder; a ValueError says what to do."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {purpose} needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are "
            "free on this disk; free some space, or choose a folder on another disk with to=DIR"
        )


def import_py7zr() -> Any:
    """The package py7zr; a ValueError if it is not installed."""
    try:
        return import_module("py7zr")
    except ModuleNotFoundError as error:
        raise ValueError(
            "7z archives need the package py7zr, which is not installed: pip install py7zr, then "
            "run the same command again"
        ) from error


class _Output:
    """Creates the planned files; a py7zr `WriterFactory`."""

    def __init__(
        self, folder: Path, places: Mapping[str, PurePosixPath], advance: Callable[[int], None]
    ) -> None:
        self._folder, self._places, self._advance = folder, places, advance
        self._planned = set(places.values())
        self.written: set[PurePosixPath] = set()

    def create(self, name: str) -> _CountedFile:
        """A new file for a member; bytes of a member that is not planned are discarded."""
        place = self._places.get(name, PurePosixPath(name))  # py7zr normalizes "./a" to "a"
        if place not in self._planned:
            return _CountedFile(os.devnull, "wb", lambda increment: None)
        path = self._folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.add(place)
        return _CountedFile(path, "xb", self._advance)


class _CountedFile(io.FileIO):
    """A file written from beginning to end; a py7zr `Py7zIO`."""

    def __init__(self, path: Path | str, mode: str, advance: Callable[[int], None]) -> None:
        super().__init__(path, mode)
        self._advance = advance

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        self._advance(len(data))
        return len(data)

    def seekable(self) -> bool:
        return False

    def size(self) -> int:
        return self.tell()


Opened = tuple[list[Member], Callable[[_Output], None]]


def _open_zip(paths: Sequence[Path], stack: ExitStack) -> Opened:
    """The members of a zip archive, and the function that extracts them."""
    with _reading_errors():
        archive = stack.enter_context(ZipFile(paths[0]))
    infos = archive.infolist()

    def extract(output: _Output) -> None:
        for info in infos:
            if info.orig_filename.endswith("/"):
                continue
            with _reading_errors():  # OSErrors too: of an offset outside the file
                content = archive.open(info)
            with content, output.create(info.orig_filename) as file:
                shutil.copyfileobj(content, file, _BLOCK)  # verifies the checksum at the end

    return [
        Member(i.orig_filename, i.file_size, i.orig_filename.endswith("/"), i.external_attr >> 16)
        for i in infos
    ], extract


def _open_7z(paths: Sequence[Path], stack: ExitStack) -> Opened:
    """The members of a 7z archive in volumes, and the function that extracts them."""
    py7zr = import_py7zr()
    volumes = Volumes([stack.enter_context(path.open("rb")) for path in paths])
    with _reading_errors(but=OSError):
        archive = stack.enter_context(py7zr.SevenZipFile(io.BufferedReader(volumes, _BLOCK)))
        members = [
            Member(file.filename, file.uncompressed, file.is_directory, _find_mode(file))
            for file in archive.files
        ]
    return members, lambda output: archive.extract(factory=output)


def _find_mode(file: Any) -> int:
    attributes = file.file_properties().get("attributes") or 0
    if attributes & _UNIX:
        return int(attributes >> 16)
    return stat.S_IFLNK if attributes & _REPARSE else 0


@contextmanager
def _reading_errors(but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Damaged bytes make the readers raise exceptions of any type: all become DamagedError."""
    try:
        yield
    except but:
        raise
    except Exception as error:
        raise DamagedError(str(error) or type(error).__name__) from error


class Volumes(io.RawIOBase):
    """Several files, read as one."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        sizes = [file.seek(0, io.SEEK_END) for file in files]
        self._files, self._starts = files, [0, *accumulate(sizes)]
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._starts[-1])[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._starts[-1]:
            return 0
        index = bisect_right(self._starts, self._position) - 1
        file = self._files[index]
        file.seek(self._position - self._starts[index])
        count: int = file.readinto(memoryview(buffer))  # type: ignore[attr-defined]
        self._position += count
        return count
