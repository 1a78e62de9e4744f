"""A split of a public set: downloaded, verified, unpacked."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.filesize import decimal

from tff.atomic import lock, write_atomically, write_json
from tff.data.download import hub
from tff.data.download.extract import (
    MARKER,
    find_path_problem,
    import_py7zr,
    require_space,
    unpack,
)
from tff.data.download.sources import Source, Split
from tff.data.download.transfer import RefusedError, RemoteFile, download, note_of, part_of, verify
from tff.foreign_files import read_file, read_json

log = logging.getLogger(__name__)

#: What is known of the files in a folder: name -> url, bytes, sha256, time, ours.
RECORD = ".tff-download.json"
LOCK = ".tff-download.lock"


def fetch(
    source: Source, name: str, to: Path, keep_archives: bool = False, mirror: str = ""
) -> Path:
    """Bring a split into a folder, resuming an earlier attempt.

    Args:
        source: the set.
        name: of the split, a key of `source.splits`.
        to: the folder; the split becomes a folder in it.
        keep_archives: keep the archives after unpacking; archives put there by hand always stay.
        mirror: another hub, or a folder on another server that holds the files; "": where the set
            is published.

    Returns:
        The folder with the images.

    Raises:
        ValueError: the split cannot be fetched; the message says why and what to do.
        OSError: `to` cannot be written.
    """
    split = source.splits[name]
    target = to / split.into
    marker = json.dumps({"set": source.name, "split": name})
    with lock(to / LOCK) as locked:
        if not locked:
            raise ValueError(
                f"to={to}: another process downloads into this folder; wait until it ends, or "
                "choose another folder"
            )
        if _read(target / MARKER) == marker:
            log.info("%s is complete already", target)
        elif not split.unpack:
            target.mkdir(exist_ok=True)
            _download_files(split, target, keep_archives, mirror)
            with write_atomically(target / MARKER) as part:
                part.write_text(marker)
        elif target.exists():
            raise ValueError(
                f"{target}: exists already, and was not made by this command; move or remove it"
            )
        else:
            _unpack_split(split, to, marker, keep_archives, mirror)
        if split.unpack:
            shutil.rmtree(_inner_folder(to, split), ignore_errors=True)
            if not keep_archives:
                _remove_archives(split, to)
    return target


def _unpack_split(split: Split, to: Path, marker: str, keep: bool, mirror: str) -> None:
    target, inner = to / split.into, _inner_folder(to, split)
    if "7z" in split.unpack:
        import_py7zr()  # fails now rather than after hours of downloading
    if len(split.unpack) == 1:
        paths = _download_files(split, to, keep, mirror)
        unpack(paths, split.unpack[0], target, split.holds, marker)
        return
    if inner.exists():
        log.info("%s: the inner archive is unpacked already", split.into)
    else:
        unpack(_download_files(split, to, keep, mirror), split.unpack[0], inner)
    if not keep:
        _remove_archives(split, to)  # before the second unpacking, which needs the space
    archives = [path for path in inner.rglob("*") if path.is_file()]
    if len(archives) != 1:
        raise ValueError(f"{inner}: expected one archive in the archive, found {len(archives)}")
    unpack(archives, split.unpack[1], target, split.holds, marker)


def _download_files(split: Split, folder: Path, keep: bool, mirror: str) -> list[Path]:
    """Paths of the files of a split, all of them complete."""
    files = _list_files(split, folder, mirror)
    if split.unpack[:1] == ["zip"] and len(files) > 1:
        raise ValueError(f"{split.into}: a zip archive is one file, {len(files)} are declared")
    # Images hardly shrink in an archive: its size is about that of the images.
    total = sum(file.size for file in files)
    paths = [folder / file.name for file in files]
    sizes = [p.stat().st_size for path in paths for p in (path, part_of(path)) if p.exists()]
    copies = len(split.unpack) if keep else min(1, len(split.unpack))
    purpose = f"{split.into} with its archives" if split.unpack else split.into
    require_space(folder, max(0, total - sum(sizes)) + copies * total, purpose)
    for file, path in zip(files, paths, strict=True):
        _ensure_file(file, path, folder)
    return paths


def _list_files(split: Split, folder: Path, mirror: str) -> list[RemoteFile]:
    if split.hub is not None:
        key = f"{split.hub.repo}@{split.hub.revision}"
        commit = str(read_record(folder).get(key, {}).get("commit", split.hub.revision))
        commit, files = hub.list_files(split.hub, commit, mirror)
        _add_to_record(folder, key, {"commit": commit, "files": [file.name for file in files]})
        return files
    files = []
    for file in split.files:
        url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
        size = file.bytes or int(file.gigabytes * 1e9)
        files.append(RemoteFile(file.name, url, size, file.bytes, file.sha256))
    return files


def _ensure_file(file: RemoteFile, path: Path, folder: Path) -> None:
    """Download and verify a file, unless that is done already."""
    known = read_record(folder).get(file.name, {})
    ours = True
    if path.exists():
        state = path.stat()
        if [known.get("bytes"), known.get("time")] == [state.st_size, state.st_mtime_ns]:
            return
        # Put there by hand (then without a note), or not yet recorded when the process was killed.
        ours = known.get("ours", note_of(path).exists())
        try:
            sha256 = verify(path, file)
        except RefusedError as error:
            raise ValueError(f"{path}: exists already, but {error}; remove it") from error
    else:
        host = urlsplit(file.url).hostname
        log.info("%s: about %s from %s", file.name, decimal(file.size), host)
        path.parent.mkdir(parents=True, exist_ok=True)
        sha256 = download(file, path)
    state = path.stat()
    facts = {"url": file.url, "bytes": state.st_size, "sha256": sha256, "time": state.st_mtime_ns}
    facts |= {"verified": bool(file.sha256), "ours": ours}
    _add_to_record(folder, file.name, facts)
    note_of(path).unlink(missing_ok=True)
    if file.sha256:
        log.info("%s: its SHA-256 is the published one", file.name)
    else:
        text = "%s: no checksum is published; its SHA-256 is %s, recorded in %s"
        log.info(text, file.name, sha256, folder / RECORD)


def read_record(folder: Path) -> dict[str, Any]:
    """What is known of the files in a folder; empty if nothing is."""
    try:
        record = read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    known = record.items() if isinstance(record, dict) else ()
    return {name: facts for name, facts in known if isinstance(facts, dict)}


def _add_to_record(folder: Path, name: str, facts: dict[str, Any]) -> None:
    write_json(folder / RECORD, read_record(folder) | {name: facts})


def _remove_archives(split: Split, to: Path) -> None:
    record = read_record(to)
    names = [file.name for file in split.files]
    if split.hub is not None:
        found = record.get(f"{split.hub.repo}@{split.hub.revision}", {}).get("files")
        names = list(map(str, found)) if isinstance(found, list) else []
    for name in names:
        # A record that somebody else has left must not name a file outside.
        if record.get(name, {}).get("ours") and not find_path_problem(name):
            (to / name).unlink(missing_ok=True)


def _inner_folder(to: Path, split: Split) -> Path:
    return to / f".{split.into}.inner"


def _read(path: Path) -> str:
    try:
        return read_file(path, 1 << 20).decode(errors="replace")
    except (OSError, ValueError):
        return ""
