"""An archive becomes a folder: completely and safely, or not at all."""

from __future__ import annotations

import io
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tff.data.download.bar import counted
from tff.data.download.members import DamagedError, places
from tff.data.download.sevenzip import SevenZip
from tff.data.download.space import require
from tff.data.download.zipped import Zipped

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
