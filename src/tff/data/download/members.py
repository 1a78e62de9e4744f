"""What is in an archive, and whether it may be unpacked."""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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
