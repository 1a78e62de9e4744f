"""The manifest of a set: its image files, their labels and generators, and their headers."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from tff.data.dataset import Images, digest_content
from tff.data.image_file import (
    FORMATS,
    MAX_BYTES,
    MAX_PIXELS,
    decode_opened,
    describe_damage,
    find_end,
    require_png_rows,
)  # fmt: skip
from tff.data.layout import LABELS, AnyTree, FolderFacts, Places, name_root, split_of
from tff.data.tree import Tree, folders_above, shorten, walk
from tff.foreign_files import open_regular
from tff.parquet import read, write
from tff.progress import track
from tff.types import Ints

log = logging.getLogger(__name__)

ANY_LAYOUT = AnyTree()
#: Suffixes of image files -> format; the content of a file decides what it really is.
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG",
    ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF",
}  # fmt: skip
_COLUMNS = [
    "path", "label", "generator", "class", "height", "width", "format", "mode", "quality", "chroma",
    "bytes", "digest", "note",
]  # fmt: skip
_MAX_NAMES = 20  # in a message


class Manifest(NamedTuple):
    """The images of a set.

    Attributes:
        table: one row an image, indexed from 0 and sorted by path: `path`, `label` (0 real, 1
            generated), `generator`, `class`, `bytes`, `digest` (see `dataset.digest_content`) and
            the columns of `Header`.
        skipped: `path` and `problem` of the files that cannot be used.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame


def list_images(
    root: Path | Tree,
    layout: Places = ANY_LAYOUT,
    *,
    split: str = "",
    cache: Path | None = None,
    pixels: bool = False,
    on_corrupt: str = "error",
) -> Manifest:
    """List the images below a folder.

    Args:
        root: folder at which the patterns of the layout begin, or what stands in it.
        layout: meaning of the folders.
        split: list only the images that the folders assign to this split.
        cache: folder for the list of files; see `scan`.
        pixels: whether to decode each file; see `probe`.
        on_corrupt: `error` or `skip` for files that cannot be used.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images, no labels, files that cannot be used, or a generator without real or
            without generated images; the message names them.
    """
    tree = root if isinstance(root, Tree) else walk_images(root)
    root, folders = tree.root, tree.holding
    if not folders:
        raise ValueError(f"image folder {root}: no images (of {', '.join(SUFFIXES)}) in it")
    facts = layout.read(tree)
    if not facts or isinstance(layout, AnyTree):
        _require_labels(tree, facts, layout)
    used = {folder: fact for folder, fact in facts.items() if split in ("", fact.split)}
    files = scan(root, cache, pixels, files=tree.files(used), part=split)
    good, skipped = drop_unusable(_add_facts(files, root, used), root, on_corrupt)
    table = good[_COLUMNS].reset_index(drop=True)
    _require_both_labels(table, root, layout, split)
    return Manifest(table, skipped)


def walk_images(root: Path) -> Tree:
    """The image files in a tree of folders.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: see `tree.walk`.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root}: no such folder")
    return walk(root, SUFFIXES)


def _require_labels(tree: Tree, facts: Mapping[str, FolderFacts], layout: Places) -> None:
    """Fail if images have no label; beside the splits of a divided tree they need none."""
    splits = {
        above
        for folder, fact in facts.items()
        for above in folders_above(folder)
        if split_of(above.rpartition("/")[2]) == fact.split != ""
    }
    unknown = [
        folder
        for folder in tree.holding
        if folder not in facts and (not splits or splits & {folder, *folders_above(folder)})
    ]
    if not unknown:
        return
    hint = f"; known: {', '.join(LABELS)}"
    if not isinstance(layout, AnyTree):
        hint = f" where this set has it: {layout.expected}. Is data.root right?"
    files = join_names(pd.Series(tree.files(unknown)))
    raise ValueError(f"image folder {tree.root}: no folder above {files} says real or fake{hint}")


def describe_unread(tree: Tree, layouts: Iterable[Places]) -> list[str]:
    """Remarks on what stands in a tree and is not read by any of the layouts."""

    def is_labelled(folder: str) -> bool:
        return any(layout.is_labelled(folder) for layout in layouts)

    lines = tree.describe_unread(is_labelled)
    if outside := [folder for folder in tree.holding if not is_labelled(folder)]:
        number = sum(len(tree.folders[folder]) for folder in outside)
        lines.append(f"not read: {number:,} images in folders without a label ({shorten(outside)})")
    return lines


def _add_facts(files: pd.DataFrame, root: Path, facts: Mapping[str, FolderFacts]) -> pd.DataFrame:
    """Files with columns `path`, `label`, `generator`, `class`."""
    found = [facts[folder] for folder in files["file"].str.rpartition("/")[0]]
    named = {fact.generator for fact in facts.values()}
    if "" in named and (own := name_root(root)) in named:
        raise ValueError(
            f"image folder {root}: some images are in a folder {own}, others belong to the tree, "
            "which has the same name; pass data.generator=NAME for those"
        )
    return files.assign(
        path=[str(root / file) for file in files["file"]],
        label=[fact.label for fact in found],
        generator=[fact.generator or own for fact in found],
        **{"class": [fact.class_name for fact in found]},
    )


def _require_both_labels(table: pd.DataFrame, root: Path, layout: Places, split: str) -> None:
    real = set(table["generator"][table["label"] == 0])
    fake = set(table["generator"][table["label"] == 1])
    lonely = [f"{g} (only generated)" for g in sorted(fake) if layout.real_source(g) not in real]
    used = {layout.real_source(g) for g in fake}
    lonely += [f"{g} (only real)" for g in sorted(real - used)]
    if lonely:
        where = f" for {split}" if split else ""
        raise ValueError(
            f"image folder {root}: each generator needs real and generated images{where}, but one "
            f"kind is missing for {', '.join(lonely)}; expected {layout.expected}"
        )


def drop_unusable(
    table: pd.DataFrame, root: Path, on_corrupt: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows without a problem, and `path` and `problem` of the others.

    Raises:
        ValueError: there are others, and `on_corrupt` is `error`.
    """
    bad = table["problem"] != ""
    skipped = table[bad][["path", "problem"]].reset_index(drop=True)
    if len(skipped) and on_corrupt == "error":
        raise ValueError(
            f"image folder {root}: {len(skipped)} of {len(table)} images cannot be used: "
            f"{join_names(skipped['path'] + ' (' + skipped['problem'] + ')')}. Remove or repair "
            "them, or skip them with data.on_corrupt=skip"
        )
    if len(skipped):
        generated = int((table["label"][bad] == 1).sum())
        kinds = f"{len(skipped) - generated} real, {generated} generated"
        alone = " Images of one kind only are lost, which can bias the comparison."
        log.warning(
            "image folder %s: %d of %d images cannot be used and are skipped (%s), "
            "such as %s (%s).%s",
            root, len(skipped), len(table), kinds, *skipped.iloc[0],
            alone if generated in (0, len(skipped)) else "",
        )  # fmt: skip
    return table[~bad], skipped


def join_names(names: pd.Series[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names.head(_MAX_NAMES)) + more


def compare_counts(table: pd.DataFrame, expected: Mapping[str, int]) -> list[str]:
    """Sentences on generators whose number of images is not the published one.

    Args:
        table: of a manifest.
        expected: generator -> published number of images, real and generated together.
    """
    counts = table["generator"].value_counts()
    missing = [f"{name} ({number:,})" for name, number in expected.items() if name not in counts]
    wrong = [
        f"{name} has {counts[name]:,} images, {number:,} are published"
        for name, number in expected.items()
        if counts.get(name, number) != number
    ]
    return wrong + ([f"missing are {', '.join(missing)}"] if missing else [])


class Header(NamedTuple):
    """Header of an image file.

    Attributes:
        height, width: in pixels, as stored.
        format: PNG, JPEG, ..., by content, not by name.
        mode: Pillow's: RGB, L, RGBA, P, CMYK, I;16, ...
        quality: of a JPEG, 1 to 100, estimated from its quantization table; else -1.
        chroma: chroma subsampling of a JPEG, 444 or 420 or ...; else "".
        problem: why the image cannot be used, or "".
        note: peculiarity of a usable image, or "".
    """

    height: int = 0
    width: int = 0
    format: str = ""
    mode: str = ""
    quality: int = -1
    chroma: str = ""
    problem: str = ""
    note: str = ""


#: A file with the same stamp counts as unchanged. `changed` is the time at which the system last
#: changed its entry: other content of the same size cannot pass for the old one by its `modified`.
_STAMP = ["file", "bytes", "modified", "changed"]
#: Columns of a header -> type of their values.
HEADER_TYPES: dict[str, type] = {name: type(value) for name, value in Header()._asdict().items()}
_CACHED: dict[str, type] = {
    "file": str, **dict.fromkeys([*_STAMP[1:], "digest"], int), "checked": str, **HEADER_TYPES
}  # fmt: skip
_INTEGERS = [name for name, kind in _CACHED.items() if kind is int]
_CHUNK = 500  # files between two steps of the progress bar
_SAVE_INTERVAL = 20.0  # seconds
_THREADS = min(16, 4 * (os.cpu_count() or 1))  # most of the time they wait for the disk


def scan(
    root: Path,
    cache: Path | None,
    pixels: bool = False,
    *,
    files: Sequence[str] | None = None,
    part: str = "",
) -> pd.DataFrame:
    """List image files below a folder, and read their headers and digests.

    The list is cached as a Parquet file, which is also saved while the scan runs, so that little is
    lost if it is killed. The next scan reads only new and changed files.

    Args:
        root: the folder.
        cache: folder for the cached list; None caches nothing.
        pixels: whether to decode each file; see `probe`.
        files: relative to the root; None: all, see `tree.walk`.
        part: name of this part of the files, which has a cached list of its own.

    Returns:
        Columns `file` (relative to the root, with `/`), `bytes`, `modified` and `changed` (ns),
        `checked` (`header` or `pixels`), `digest` and those of `Header`; sorted by file.
    """
    names = walk_images(root).files() if files is None else files
    found = pd.DataFrame([(name, *_read_state(root / name)) for name in names], columns=_STAMP)
    digest = hashlib.sha256(str(root.resolve() / part).encode()).hexdigest()[:12]
    path = cache and cache / f"{root.resolve().name}-{digest}.parquet"
    cached = load_cache(path, _CACHED)
    if cached is None:
        cached = found.iloc[:0].assign(checked="", digest=0, **Header()._asdict())
    known = found.merge(cached, on=_STAMP)
    known = known[known["checked"].isin(["pixels"] if pixels else ["header", "pixels"])]
    known = known.astype(dict.fromkeys(_INTEGERS, "int64"))
    new = found[~found["file"].isin(known["file"])]
    parts = [known]
    starts, saved = range(0, len(new), _CHUNK), time.monotonic()
    for start in track(starts, f"files of {root.name}") if len(starts) > 1 else starts:
        parts.append(_probe_files(new.iloc[start : start + _CHUNK], root, pixels))
        if start == starts[-1] or time.monotonic() - saved > _SAVE_INTERVAL:
            save_cache(pd.concat(parts, ignore_index=True), path)
            saved = time.monotonic()
    return pd.concat(parts, ignore_index=True).sort_values("file", ignore_index=True)


def _read_state(path: Path) -> tuple[int, int, int]:
    state = path.stat() if path.exists() else path.lstat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _probe_files(files: pd.DataFrame, root: Path, pixels: bool) -> pd.DataFrame:
    def probe_file(file: str, size: int) -> tuple[Header, int]:
        if size > MAX_BYTES:
            return Header(problem=f"more than {MAX_BYTES:,} bytes"), 0
        try:
            with open_regular(root / file) as stream:
                content = io.BytesIO(stream.read())
        except ValueError:
            return Header(problem="not a regular file"), 0
        except OSError as error:
            return Header(problem=f"cannot be opened ({error.strerror})"), 0
        return probe(content, Path(file).suffix, pixels), digest_content(content)

    with ThreadPoolExecutor(_THREADS) as pool:
        headers, digests = zip(*pool.map(probe_file, files["file"], files["bytes"]), strict=True)
    table = pd.DataFrame(headers, columns=list(Header._fields), index=files.index)
    checked = "pixels" if pixels else "header"
    return pd.concat([files.assign(checked=checked, digest=digests), table], axis=1)


def load_cache(path: Path | None, columns: Mapping[str, type]) -> pd.DataFrame | None:
    """Table written by `save_cache`; None if there is none, or it is damaged.

    Args:
        path: of the file.
        columns: that it must have -> type of their values.
    """
    if path is None or not path.is_file():
        return None
    try:
        return read(path, columns)[0]
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ").removesuffix("; delete it and run again")
        log.warning("%s: not readable (%s); the files are read again", path, reason)
        return None


def save_cache(table: pd.DataFrame, path: Path | None) -> None:
    """Cache a table; if the folder cannot be written, this is logged."""
    if path is None:
        return
    try:
        write(path, table, {})
    except OSError as error:
        log.warning("%s: cannot be written (%s); nothing is cached", path, error)


# Formats without a structure that says whether a file is whole, or with pictures that are small.
_DECODED_FORMATS = ("BMP", "TIFF", "GIF")


def probe(stream: BinaryIO, suffix: str, pixels: bool = False) -> Header:
    """Read the header of an image file.

    Args:
        stream: the open file.
        suffix: of its name.
        pixels: decode the whole image too, which finds damage in its middle and takes much longer.
    """
    data = stream.read()
    if not data:
        return Header(problem="empty file")
    header = Header()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            header = _read_header(image, suffix)
            if header.height * header.width > MAX_PIXELS:
                return header._replace(problem=f"more than {MAX_PIXELS} pixels")
            rest = len(data) - find_end(data, header.format)
            if pixels and header.format == "PNG":
                require_png_rows(data)
            if pixels:
                decode_opened(image, data)
            elif header.format in _DECODED_FORMATS:
                image.load()
    except UnidentifiedImageError:
        return Header(problem="not an image")
    except Image.DecompressionBombError:
        return Header(problem=f"more than {MAX_PIXELS} pixels")
    except Exception as error:
        return header._replace(problem=f"damaged ({describe_damage(error)})")
    if rest > 0 and header.format != "MPO":  # the other pictures of an MPO stand behind the first
        behind = f"{rest:,} bytes behind the picture"
        header = header._replace(note="; ".join(filter(None, [header.note, behind])))
    return header


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
    facts = (image.height, image.width, kind, image.mode, quality, _read_chroma(image))
    return Header(*facts, note="; ".join(notes))


def estimate_quality(luminance: list[int]) -> int:
    """JPEG quality, 1 to 100, whose luminance table in libjpeg is nearest to this one in sum."""
    return 1 + int(np.abs(_table_sums() - np.sum(luminance)).argmin())


@cache
def _table_sums() -> Ints:
    sums = []
    for quality in range(1, 101):
        with io.BytesIO() as file:
            Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
            with Image.open(file) as image:
                sums.append(sum(image.quantization[0]))  # type: ignore[attr-defined]
    return np.array(sums)


def _read_chroma(image: Image.Image) -> str:
    layers = getattr(image, "layer", None)  # (name, horizontal, vertical sampling, table) each
    if not layers or len(layers) < 3:
        return ""
    names = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
    return names.get(tuple(layers[0][1:3]), "other")


def duplicates(sets: Mapping[str, Images]) -> pd.DataFrame:
    """Identical files in several sets, or among both the real and the generated images.

    Args:
        sets: name -> images.

    Returns:
        Columns `set`, `path`, `same_as_set`, `same_as`: each such file except the first of its
        kind, and that first one.
    """
    every = pd.concat(
        [
            images.manifest[["path", "label"]].assign(set=name, digest=images.digests)
            for name, images in sets.items()
        ]
    )
    every = every.drop_duplicates(["set", "path"])
    first = every.drop_duplicates("digest")
    pairs = every.merge(first, on="digest", suffixes=("", "_first"))
    leaks = (pairs["set"] != pairs["set_first"]) | (pairs["label"] != pairs["label_first"])
    found = pairs[leaks & (pairs["path"] != pairs["path_first"])]
    names = {"set_first": "same_as_set", "path_first": "same_as"}
    return found.rename(columns=names)[["set", "path", *names.values()]].reset_index(drop=True)
