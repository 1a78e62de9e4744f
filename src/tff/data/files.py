"""The image files below a folder and what is known of them, kept from one run to the next."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from tff.atomic import remove_abandoned, whole
from tff.data.probe import SUFFIXES, Facts, probe
from tff.progress import track

log = logging.getLogger(__name__)

_STAMP = ["file", "bytes", "modified"]  # while these are the same, a file is taken for unchanged
_NUMBERS = ["bytes", "modified", *(n for n, v in Facts()._asdict().items() if isinstance(v, int))]
_PORTION = 500  # files between two steps of the progress bar
_SAVING = 20.0  # seconds between two savings
_THREADS = min(16, 4 * (os.cpu_count() or 1))  # most of the time they wait for the disk


def files(root: Path, cache: Path | None, pixels: bool = False) -> pd.DataFrame:
    """List the image files below a folder.

    What was found is kept as a Parquet file in `cache`, saved now and then while the work goes on,
    so that nothing is lost when it is killed; next time only new and changed files are looked at.

    Args:
        root: the folder; links to folders are followed.
        cache: folder for what was found, None to keep nothing.
        pixels: see `probe`.

    Raises:
        ValueError: a name is not UTF-8, so that neither the list nor a report could hold it.

    Returns:
        Columns `file` (relative to the root, `/` between), `bytes`, `modified` (ns), `checked` and
        those of `probe.Facts`; sorted by file.
    """
    there = pd.DataFrame(sorted(_walk(root)), columns=_STAMP)
    store = cache and cache / f"{root.resolve().name}-{_digest(root)}.parquet"
    known = there.merge(_read(store), how="left", on=_STAMP)
    enough = ["pixels"] if pixels else ["header", "pixels"]
    known = known[known["checked"].isin(enough)].astype(dict.fromkeys(_NUMBERS, "int64"))
    new = there[~there["file"].isin(known["file"])]
    parts = [known]
    starts, saved = range(0, len(new), _PORTION), time.monotonic()
    for start in track(starts, f"files of {root.name}") if len(starts) > 1 else starts:
        parts.append(_probed(new.iloc[start : start + _PORTION], root, pixels))
        if start == starts[-1] or time.monotonic() - saved > _SAVING:
            save(pd.concat(parts, ignore_index=True), store)
            saved = time.monotonic()
    return pd.concat(parts, ignore_index=True).sort_values("file", ignore_index=True)


def _walk(root: Path) -> Iterator[tuple[str, int, int]]:
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # links that lead back
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = Path(folder) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith("._"):  # macOS leaves these
                _require_text(path)
                state = path.stat() if path.exists() else path.lstat()
                yield path.relative_to(root).as_posix(), state.st_size, state.st_mtime_ns


def _require_text(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"image file {str(path)!a}: its name or that of a folder is not UTF-8; rename it"
        ) from None


def _probed(new: pd.DataFrame, root: Path, pixels: bool) -> pd.DataFrame:
    def look(file: str) -> Facts:
        try:
            # Seen before it is opened: a pipe would wait for ever.
            if (root / file).exists() and not stat.S_ISREG((root / file).stat().st_mode):
                return Facts(problem="no regular file")
            with (root / file).open("rb") as stream:
                return probe(stream, Path(file).suffix, pixels)
        except OSError as error:
            return Facts(problem=f"cannot be opened ({error.strerror})")

    with ThreadPoolExecutor(_THREADS) as pool:
        facts = list(pool.map(look, new["file"]))
    found = pd.DataFrame(facts, columns=list(Facts._fields), index=new.index)
    return pd.concat([new.assign(checked="pixels" if pixels else "header"), found], axis=1)


def _read(store: Path | None) -> pd.DataFrame:
    columns = [*_STAMP, "checked", *Facts._fields]
    if (known := kept(store, columns)) is not None:
        return known
    kinds = {column: "int64" if column in _NUMBERS else "str" for column in columns}
    return pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in kinds.items()})


def kept(store: Path | None, columns: list[str]) -> pd.DataFrame | None:
    """What `save` has written; None where there is nothing, or nothing that can be used."""
    if store is None or not store.is_file():
        return None
    try:  # all that pandas and pyarrow were seen to raise at damaged bytes
        return pd.read_parquet(store, page_checksum_verification=True)[columns]
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        log.warning("%s: not readable (%s); the files are looked at anew", store, error)
        return None


def save(table: pd.DataFrame, store: Path | None) -> None:
    """Keep what was found; a folder that cannot be written costs time only."""
    if store is None:
        return
    try:
        remove_abandoned(store.parent)
        with whole(store) as part:
            table.to_parquet(part, index=False, write_page_checksum=True)
    except OSError as error:
        log.warning("%s: cannot be written (%s); nothing is kept for next time", store, error)


def _digest(root: Path) -> str:
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
