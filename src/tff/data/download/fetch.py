"""One part of a set: its files downloaded and verified, unpacked, and the archives removed."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from tff.data.download.bar import amount
from tff.data.download.folder import RECORD, locked, record, recorded
from tff.data.download.partial import Partial
from tff.data.download.server import RefusedError
from tff.data.download.sevenzip import library
from tff.data.download.sources import File, Source, Split
from tff.data.download.space import require
from tff.data.download.transfer import transfer
from tff.data.download.unpack import MARK, unpack
from tff.data.download.verify import verify

log = logging.getLogger(__name__)


def fetch(
    source: Source, name: str, to: Path, keep_archives: bool = False, mirror: str = ""
) -> Path:
    """Bring a part of a set into `to`, going on where an earlier process was.

    Args:
        source: the set.
        name: of the part, a key of `source.splits`.
        to: the folder; the part becomes a folder in it.
        keep_archives: whether the archives stay once they are unpacked; those that were put there
            by hand always do.
        mirror: a folder on another server that holds the files; "": where the set is published.

    Returns:
        The folder with the images.

    Raises:
        ValueError: it could not be had; the message says why and what to do.
    """
    split = source.splits[name]
    target = to / split.into
    mark = json.dumps({"set": source.name, "split": name})
    with locked(to):
        if _marked(target, mark):
            log.info("%s is there already", target)
        elif split.unpack and target.exists():
            raise ValueError(
                f"{target}: is there already, and this command did not make it; move or remove it"
            )
        else:
            _bring(split, to, target, mark, keep_archives, mirror)
        if split.unpack:
            _tidy(split, to, keep_archives)
    return target


def _bring(split: Split, to: Path, target: Path, mark: str, keep: bool, mirror: str) -> None:
    if "7z" in split.unpack:
        library()  # its lack is better told before hours of downloading than after
    inner = _inner(to, split)
    if split.unpack and inner.exists():
        log.info("%s: the archive in the archive is there already", split.into)
    else:
        where = to if split.unpack else target
        where.mkdir(exist_ok=True)
        _require_space(split, where, keep)
        paths = [_have(file, where, mirror) for file in split.files]
        if not split.unpack:
            (target / MARK).write_text(mark)
            return
        if len(split.unpack) == 1:
            unpack(paths, split.unpack[0], target, split.holds, mark)
            return
        unpack(paths, split.unpack[0], inner)
    if not keep:
        _remove(split, to)  # before the second unpacking, which needs the room
    found = [path for path in inner.rglob("*") if path.is_file()]
    if len(found) != 1:
        raise ValueError(f"{inner}: one archive was expected in the archive, {len(found)} came")
    unpack(found, split.unpack[1], target, split.holds, mark)


def _have(file: File, folder: Path, mirror: str) -> Path:
    """The file, downloaded unless it is there."""
    path = folder / file.name
    url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
    known = recorded(folder).get(file.name, {})
    if path.exists():
        # A file that was put there by hand has no note, and is never removed.
        ours = known.get("ours", Partial(path).note() is not None)
        state = path.stat()
        if [known.get("bytes"), known.get("time")] == [state.st_size, state.st_mtime_ns]:
            return path
        try:  # it was put there by hand, or the process was killed before it was recorded
            checked = verify(path, path, file.bytes, file.sha256, url)
        except RefusedError as error:
            raise ValueError(f"{path}: is there already, but {error}; remove it") from error
    else:
        host = urlsplit(url).hostname
        log.info("%s: about %s from %s", file.name, amount(file.about), host)
        checked, ours = transfer(url, path, file.bytes, file.sha256), True
    line = {"url": url, **checked._asdict(), "time": path.stat().st_mtime_ns, "ours": ours}
    record(folder, file.name, line)
    Partial(path).forget()
    if checked.against == "nothing":
        log.info(
            "%s: no checksum is published; the SHA-256 of what came is %s, recorded in %s",
            file.name, checked.sha256, folder / RECORD,
        )  # fmt: skip
    else:
        whose = "published" if checked.against == "published" else "named by the host"
        log.info("%s: its SHA-256 is the one %s", file.name, whose)
    return path


def _require_space(split: Split, folder: Path, keep: bool) -> None:
    """Room for what is still to come and for what it is unpacked into.

    Images hardly shrink in an archive, so that the archives' size stands for that of the images.
    """
    whole = sum(file.about for file in split.files)
    there = 0
    for file in split.files:
        path = folder / file.name
        there += path.stat().st_size if path.exists() else Partial(path).size()
    copies = len(split.unpack) if keep else min(1, len(split.unpack))
    require(folder, max(0, whole - there) + copies * whole, f"{split.into} with its archives")


def _tidy(split: Split, to: Path, keep: bool) -> None:
    shutil.rmtree(_inner(to, split), ignore_errors=True)
    if not keep:
        _remove(split, to)


def _remove(split: Split, to: Path) -> None:
    known = recorded(to)
    for file in split.files:
        if known.get(file.name, {}).get("ours"):
            (to / file.name).unlink(missing_ok=True)


def _inner(to: Path, split: Split) -> Path:
    return to / f".{split.into}.inner"


def _marked(target: Path, mark: str) -> bool:
    try:
        return (target / MARK).read_text() == mark
    except OSError:
        return False
