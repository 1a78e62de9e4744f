"""A file that is not complete yet, in a state that the next process can go on from.

What has come stands in `NAME.part`, what the server said of the file in `NAME.part.json`. The note
is written first and removed last, so that a process may be killed at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from tff.atomic import write_json
from tff.data.download.server import Remote


class Note(NamedTuple):
    """Where the bytes come from."""

    url: str
    remote: Remote


class Partial:
    """The part of a file that has come.

    Args:
        target: the name of the file once it is complete.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = self.path.with_name(self.path.name + ".json")

    def size(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    def note(self) -> Note | None:
        """What the server said; None: nothing is known."""
        try:
            told = json.loads(self._note.read_text())
            return Note(told["url"], Remote(told["size"], told["sha256"], told["tag"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def usable(self, url: str) -> Note | None:
        """The note to go on from; None, and nothing is left, if that is not possible."""
        note = self.note()
        if (
            note is not None
            and note.url == url
            and (note.remote.tag or note.remote.sha256)
            and 0 < self.size() <= (note.remote.size or float("inf"))
        ):
            return note
        self.discard()
        return None

    def discard(self) -> None:
        """Remove all."""
        self.path.unlink(missing_ok=True)  # first, so that no bytes stand there without their note
        self._note.unlink(missing_ok=True)

    def start(self, url: str, remote: Remote) -> None:
        """Begin anew."""
        self.discard()
        write_json(self._note, {"url": url, **remote._asdict()})

    def forget(self) -> None:
        """Remove the note, once what it says is known otherwise."""
        self._note.unlink(missing_ok=True)

    def append(self) -> Appending:
        """The part, open for more bytes."""
        return Appending(self.path, "ab")


class Appending(FileIO):
    """An unbuffered file: what is written is there, even if the process is killed."""

    def put(self, block: bytes, told: Callable[[int], None]) -> None:
        """Write all of a block.

        Raises:
            ValueError: the disk does not take it.
        """
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[self.write(rest) :]
        except OSError as error:
            raise ValueError(
                f"{self.name!s}: cannot be written ({error.strerror}); what has come is kept: mend "
                "that and run the same command again to go on"
            ) from None
        told(len(block))
