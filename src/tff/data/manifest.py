"""One set of images as a table: what each file is, what it shows, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tff.data.files import files
from tff.data.layout import LABELS, Layout
from tff.data.probe import SUFFIXES

#: Any tree: the nearest folder above an image says what it is, the first one which generator.
ANY = Layout(["{generator}/{class*}/{label}", "{label}"])
_FACTS = ["height", "width", "format", "mode", "quality", "chroma", "bytes", "note"]
_SHOWN = 20  # names in a message


class Manifest(NamedTuple):
    """The images of a set.

    Attributes:
        table: one row an image, numbered from 0 and sorted by path: `path`, `label` (0 real, 1
            generated), `generator`, `class`, and what `probe.Facts` tells of the file.
        skipped: `path` and `problem` of the files that cannot be used.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame


def index(root: Path, layout: Layout = ANY, **options: object) -> pd.DataFrame:
    """The table of a set; see `manifest`."""
    return manifest(root, layout, **options).table  # type: ignore[arg-type]


def manifest(
    root: Path,
    layout: Layout = ANY,
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
    found = files(root, cache, pixels)
    if found.empty:
        raise ValueError(f"image folder {root}: no images (of {', '.join(SUFFIXES)}) in it")
    placed = _placed(found, root, layout)
    good, skipped = usable(placed, root, on_corrupt)
    columns = ["path", "label", "generator", "class", *_FACTS]
    table = good[columns].reset_index(drop=True)
    _require_both(table, root, layout)
    return Manifest(table, skipped)


def usable(table: pd.DataFrame, root: Path, on_corrupt: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows without a problem, and `path` and `problem` of the others.

    Raises:
        ValueError: there are others, and `on_corrupt` is `error`.
    """
    bad = table["problem"] != ""
    skipped = table[bad][["path", "problem"]].reset_index(drop=True)
    if len(skipped) and on_corrupt == "error":
        raise ValueError(
            f"image folder {root}: {len(skipped)} of {len(table)} images cannot be used: "
            f"{named(skipped['path'] + ' (' + skipped['problem'] + ')')}. Remove or repair them, "
            "or leave them out with data.on_corrupt=skip"
        )
    return table[~bad], skipped


def named(names: pd.Series[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names.head(_SHOWN)) + more


def miscounted(table: pd.DataFrame, expected: Mapping[str, int]) -> list[str]:
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
    if not known.all() and (layout is ANY or not known.any()):
        raise ValueError(
            f"image folder {root}: no folder above {named(found['file'][~known])} says real or "
            + (
                f"fake; known: {', '.join(LABELS)}"
                if layout is ANY
                else f"fake where this set has it: {' or '.join(layout.folders)}. "
                "Is data.root right?"
            )
        )
    found, folders = found[known], folders[known]
    own = root.resolve().name  # a tree without a generator level is one, by its own name
    says = {f: place for f, place in places.items() if place is not None}
    generators = {
        f: own if not p.generator or (layout is ANY and p.generator in LABELS) else p.generator
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
            if layout is ANY
            else f"image folder {root}: need real and generated images of each generator, but of "
            f"{', '.join(lonely)} there is one kind; expected {' or '.join(layout.folders)}"
        )
