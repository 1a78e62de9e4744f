"""The manifest of a set: its files with labels and generators, and what their headers tell."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tff.atomic import remove_abandoned, write_atomically
from tff.data.dataset import FORMATS, MAX_PIXELS, Images, damage, read
from tff.data.layout import LABELS, Layout
from tff.progress import track

#: Endings of image files; what a file is, its content says.
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF",
}  # fmt: skip
#: What ends a complete file; some programs put a few bytes of their own behind it.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 65_536


class Header(NamedTuple):
    """What the header says.

    Attributes:
        height, width: in pixels, as stored.
        format: by content, not by name: PNG, JPEG, ...
        mode: of Pillow: RGB, L, RGBA, P, CMYK, I;16, ...
        quality: of a JPEG, 1 to 100, estimated from its quantisation table; else -1.
        chroma: of a JPEG, 444 or 420 or ...; else "".
        problem: why the image cannot be used, or "".
        note: what is odd about it though it can be used, or "".
    """

    height: int = 0
    width: int = 0
    format: str = ""
    mode: str = ""
    quality: int = -1
    chroma: str = ""
    problem: str = ""
    note: str = ""


def probe(stream: BinaryIO, suffix: str, pixels: bool = False) -> Header:
    """Look at an image file.

    Args:
        stream: the open file.
        suffix: how its name ends.
        pixels: also decode all of it, which finds damage in the middle and takes much longer.
    """
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        return Header(problem="empty file")
    facts = Header()
    try:
        stream.seek(0)
        with Image.open(stream, formats=FORMATS) as image:
            facts = _read_header(image, suffix)
            if facts.height * facts.width > MAX_PIXELS:
                return facts._replace(problem=f"more than {MAX_PIXELS} pixels")
            if pixels or facts.format not in (*_ENDS, "WEBP"):
                image.load()
    except UnidentifiedImageError:
        return Header(problem="not an image")
    except Image.DecompressionBombError:
        return Header(problem=f"more than {MAX_PIXELS} pixels")
    except Exception as error:
        return facts._replace(problem=f"damaged ({damage(error)})")
    return facts if _complete(stream, size, facts.format) else facts._replace(problem="truncated")


def _read_header(image: Image.Image, suffix: str) -> Header:
    kind = image.format or ""
    tables = getattr(image, "quantization", None)
    notes = []
    expected = SUFFIXES.get(suffix.lower(), "")
    if expected and kind != expected and (kind, expected) != ("MPO", "JPEG"):
        notes.append(f"named {suffix}, is {kind}")
    if getattr(image, "n_frames", 1) > 1 and kind != "MPO":
        notes.append("animated, first picture used")
    # Pillow would decode all of a PNG to look for EXIF data behind the pixels.
    if (kind != "PNG" or "exif" in image.info) and image.getexif().get(0x0112, 1) != 1:
        notes.append("rotation in EXIF not applied")
    if image.mode not in ("RGB", "L"):
        notes.append(f"mode {image.mode}")
    quality = estimate_quality(tables[0]) if tables else -1
    return Header(
        image.height, image.width, kind, image.mode, quality, _chroma(image), note="; ".join(notes)
    )


def estimate_quality(luminance: list[int]) -> int:
    """The quality, 1 to 100, at which libjpeg's luminance table is nearest to this one in sum."""
    return 1 + int(np.abs(_sums() - np.sum(luminance)).argmin())


@cache
def _sums() -> NDArray[np.int64]:
    sums = []
    for quality in range(1, 101):
        with io.BytesIO() as file:
            Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
            with Image.open(file) as image:
                sums.append(sum(image.quantization[0]))  # type: ignore[attr-defined]
    return np.array(sums)


def _chroma(image: Image.Image) -> str:
    layers = getattr(image, "layer", None)  # (name, horizontal, vertical sampling, table) each
    if not layers or len(layers) < 3:
        return ""
    names = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
    return names.get(tuple(layers[0][1:3]), "other")


def _complete(stream: BinaryIO, size: int, kind: str) -> bool:
    if kind == "WEBP":
        stream.seek(4)
        return size >= 8 + int.from_bytes(stream.read(4), "little")
    stream.seek(max(0, size - _TAIL))
    tail = stream.read()
    if kind == "GIF":
        return tail.endswith(b";")
    return kind not in _ENDS or _ENDS[kind] in tail


log = logging.getLogger(__name__)

_STAMP = ["file", "bytes", "modified"]  # while these are the same, a file is taken for unchanged
_NUMBERS = ["bytes", "modified", *(n for n, v in Header()._asdict().items() if isinstance(v, int))]
_PORTION = 500  # files between two steps of the progress bar
_SAVING = 20.0  # seconds between two savings
_THREADS = min(16, 4 * (os.cpu_count() or 1))  # most of the time they wait for the disk


def scan(root: Path, cache: Path | None, pixels: bool = False) -> pd.DataFrame:
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
        those of `probe.Header`; sorted by file.
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
            save_cache(pd.concat(parts, ignore_index=True), store)
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
    def look(file: str) -> Header:
        try:
            # Seen before it is opened: a pipe would wait for ever.
            if (root / file).exists() and not stat.S_ISREG((root / file).stat().st_mode):
                return Header(problem="no regular file")
            with (root / file).open("rb") as stream:
                return probe(stream, Path(file).suffix, pixels)
        except OSError as error:
            return Header(problem=f"cannot be opened ({error.strerror})")

    with ThreadPoolExecutor(_THREADS) as pool:
        facts = list(pool.map(look, new["file"]))
    found = pd.DataFrame(facts, columns=list(Header._fields), index=new.index)
    return pd.concat([new.assign(checked="pixels" if pixels else "header"), found], axis=1)


def _read(store: Path | None) -> pd.DataFrame:
    columns = [*_STAMP, "checked", *Header._fields]
    if (known := load_cache(store, columns)) is not None:
        return known
    kinds = {column: "int64" if column in _NUMBERS else "str" for column in columns}
    return pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in kinds.items()})


def load_cache(store: Path | None, columns: list[str]) -> pd.DataFrame | None:
    """What `save` has written; None where there is nothing, or nothing that can be used."""
    if store is None or not store.is_file():
        return None
    try:  # all that pandas and pyarrow were seen to raise at damaged bytes
        return pd.read_parquet(store, page_checksum_verification=True)[columns]
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        log.warning("%s: not readable (%s); the files are looked at anew", store, error)
        return None


def save_cache(table: pd.DataFrame, store: Path | None) -> None:
    """Keep what was found; a folder that cannot be written costs time only."""
    if store is None:
        return
    try:
        remove_abandoned(store.parent)
        with write_atomically(store) as part:
            table.to_parquet(part, index=False, write_page_checksum=True)
    except OSError as error:
        log.warning("%s: cannot be written (%s); nothing is kept for next time", store, error)


def _digest(root: Path) -> str:
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]


#: Any tree: the nearest folder above an image says what it is, the first one which generator.
ANY_LAYOUT = Layout(["{generator}/{class*}/{label}", "{label}"])
_FACTS = ["height", "width", "format", "mode", "quality", "chroma", "bytes", "note"]
_SHOWN = 20  # names in a message


class Manifest(NamedTuple):
    """The images of a set.

    Attributes:
        table: one row an image, numbered from 0 and sorted by path: `path`, `label` (0 real, 1
            generated), `generator`, `class`, and what `probe.Header` tells of the file.
        skipped: `path` and `problem` of the files that cannot be used.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame


def list_images(
    root: Path,
    layout: Layout = ANY_LAYOUT,
    *,
    cache: Path | None = None,
    pixels: bool = False,
    on_corrupt: str = "error",
) -> Manifest:
    """List the images of a set.

    Args:
        root: folder below which the layout's patterns begin.
        cache: see `files.files`.
        pixels: see `probe.probe`.
        on_corrupt: `error` or `skip`, for files that cannot be used.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, images in folders that say nothing, files that cannot be used, or a
            generator with images of one kind only; the message names them.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root}: no such folder")
    found = scan(root, cache, pixels)
    if found.empty:
        raise ValueError(f"image folder {root}: no images (of {', '.join(SUFFIXES)}) in it")
    placed = _placed(found, root, layout)
    good, skipped = drop_unusable(placed, root, on_corrupt)
    columns = ["path", "label", "generator", "class", *_FACTS]
    table = good[columns].reset_index(drop=True)
    _require_both(table, root, layout)
    return Manifest(table, skipped)


def drop_unusable(
    table: pd.DataFrame, root: Path, on_corrupt: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows without a problem, and `path` and `problem` of the others.

    Raises:
        ValueError: there are others, and `on_corrupt` is `error`.
    """
    bad = table["problem"] != ""
    skipped = table[bad][["path", "problem"]].reset_index(drop=True)
    if len(skipped) and on_corrupt == "error":
        raise ValueError(
            f"image folder {root}: {len(skipped)} of {len(table)} images cannot be used: "
            f"{join_names(skipped['path'] + ' (' + skipped['problem'] + ')')}. Remove or repair "
            "them, or leave them out with data.on_corrupt=skip"
        )
    return table[~bad], skipped


def join_names(names: pd.Series[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names.head(_SHOWN)) + more


def compare_counts(table: pd.DataFrame, expected: Mapping[str, int]) -> list[str]:
    """In words, which generators have another number of images than published.

    Args:
        table: of a manifest.
        expected: generator -> its images, real and generated together.
    """
    counts = table["generator"].value_counts()
    missing = [f"{name} ({number:,})" for name, number in expected.items() if name not in counts]
    wrong = [
        f"{name} has {counts[name]:,} images, {number:,} are published"
        for name, number in expected.items()
        if counts.get(name, number) != number
    ]
    return wrong + ([f"missing are {', '.join(missing)}"] if missing else [])


def _placed(found: pd.DataFrame, root: Path, layout: Layout) -> pd.DataFrame:
    """The files whose folders say what they are, with what these say."""
    folders = found["file"].str.rpartition("/")[0]
    places = {folder: layout.place(folder) for folder in folders.unique()}
    known = folders.map({f: place is not None for f, place in places.items()}).astype(bool)
    if not known.all() and (layout is ANY_LAYOUT or not known.any()):
        raise ValueError(
            f"image folder {root}: no folder above {join_names(found['file'][~known])} says real "
            + (
                f"or fake; known: {', '.join(LABELS)}"
                if layout is ANY_LAYOUT
                else f"or fake where this set has it: {' or '.join(layout.folders)}. "
                "Is data.root right?"
            )
        )
    found, folders = found[known], folders[known]
    own = root.resolve().name  # a tree without a generator level is one, by its own name
    says = {f: place for f, place in places.items() if place is not None}
    generators = {
        f: own
        if not p.generator or (layout is ANY_LAYOUT and p.generator in LABELS)
        else p.generator
        for f, p in says.items()
    }
    placed = found.assign(
        path=[str(root / file) for file in found["file"]],
        label=folders.map({f: place.label for f, place in says.items()}).astype("int64"),
        generator=folders.map(generators),
    )
    placed["class"] = folders.map({f: place.group for f, place in says.items()})
    return placed


def _require_both(table: pd.DataFrame, root: Path, layout: Layout) -> None:
    real = set(table["generator"][table["label"] == 0])
    fake = set(table["generator"][table["label"] == 1])
    lonely = [f"{g} (only generated)" for g in sorted(fake) if layout.real(g) not in real]
    belongs = {layout.real(g) for g in fake}
    lonely += [f"{g} (only real)" for g in sorted(real - belongs)]
    if lonely:
        raise ValueError(
            f"image folder {root}: need real and generated images of each generator, but of "
            f"{', '.join(lonely)} there is one kind; expected GENERATOR/.../0_real and 1_fake"
            if layout is ANY_LAYOUT
            else f"image folder {root}: need real and generated images of each generator, but of "
            f"{', '.join(lonely)} there is one kind; expected {' or '.join(layout.folders)}"
        )


def duplicates(sets: Mapping[str, Images]) -> pd.DataFrame:
    """Files that stand in several sets, or among the real and the generated images.

    Only files of one length are read at all.

    Args:
        sets: name -> images.

    Returns:
        Columns `set`, `path`, `same_as_set`, `same_as`: each such file but the first of its bytes,
        and that one.
    """
    every = pd.concat(
        [images.manifest[["path", "label", "bytes"]].assign(set=s) for s, images in sets.items()]
    )
    every = every.drop_duplicates(["set", "path"])
    alike = every[every.duplicated("bytes", keep=False)].copy()
    rows = track(alike["path"].tolist(), "duplicates")
    alike["sha256"] = [hashlib.sha256(read(path)).hexdigest() for path in rows]
    first = alike.drop_duplicates("sha256")[["sha256", "set", "path", "label"]]
    pairs = alike.merge(first, on="sha256", suffixes=("", "_first"))
    leaks = (pairs["set"] != pairs["set_first"]) | (pairs["label"] != pairs["label_first"])
    found = pairs[leaks & (pairs["path"] != pairs["path_first"])]
    names = {"set_first": "same_as_set", "path_first": "same_as"}
    return found.rename(columns=names)[["set", "path", *names.values()]].reset_index(drop=True)
