"""Is this file what was published?"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from tff.data.download.bar import counted
from tff.data.download.partial import Partial
from tff.data.download.server import RefusedError

_BLOCK = 1 << 20


class Checked(NamedTuple):
    """A file that is there completely.

    Attributes:
        bytes: its size.
        sha256: of what is there, in hex.
        against: where the checksum comes from that it was held against: `published` with the set,
            `host`, or `nothing`.
    """

    bytes: int
    sha256: str
    against: str


def verify(part: Path, target: Path, size: int | None, sha256: str | None, url: str) -> Checked:
    """Hold a complete file against what is known of it, and give it its name.

    Args:
        part: the file, which may be `target` itself.
        target: the name that it gets.
        size: published size in bytes, if any.
        sha256: published checksum, if any; else the one that the server named counts.
        url: where it comes from.

    Raises:
        RefusedError: it is another file.
    """
    note = Partial(target).note()
    named = note.remote.sha256 if note is not None else None
    there = part.stat().st_size
    if size not in (None, there):
        raise RefusedError(f"{url}: {there} bytes have come, {size} are published")
    digest = digest_of(part)
    if (sha256 or named) not in (None, digest):
        raise RefusedError(
            f"{url}: what has come is not the file: its SHA-256 is {digest}, "
            f"{'published is' if sha256 else 'the server names'} {sha256 or named}. Run the same "
            "command again; if it happens again, the server or something on the way is broken"
        )
    if part != target:
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    return Checked(there, digest, "published" if sha256 else "host" if named else "nothing")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    name = path.name.removesuffix(".part")
    with open(path, "rb") as file, counted(f"verify {name}", path.stat().st_size) as advance:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
