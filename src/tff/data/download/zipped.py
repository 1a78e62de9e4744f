"""Zip archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from tff.data.download.members import DamagedError, Member

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
