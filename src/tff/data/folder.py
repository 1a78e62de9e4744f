"""A set of images that lies in folders or Parquet files."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tff.data.datamodule import SPLITS, Data, Splits
from tff.data.dataset import IMAGE_COLUMN, ROW_SEPARATOR, Images, encoded
from tff.data.layout import Layout
from tff.data.manifest import (
    Header,
    Manifest,
    compare_counts,
    drop_unusable,
    load_cache,
    probe,
    save_cache,
)
from tff.progress import track

#: What the label column may hold.
_LABELS = {"0": 0, "1": 1, "real": 0, "fake": 1, "false": 0, "true": 1, "generated": 1}
#: Of the table that is kept of each file.
_COLUMNS = [*Header._fields, "path", "label", "generator", "bytes", "split", "class"]
#: The `generator` of all real images.
REAL = "real"


def list_parquet_images(root: Path, split: str, cache: Path | None, on_corrupt: str) -> Manifest:
    """List the images in all Parquet files below a folder whose `split` is the given one.

    Columns: `image_data` (bytes), `label` (0 and 1, or real and fake), `model_name`, and `split`,
    if any. The split of a file is the folder `train`, `val` or `test` directly below `root` that
    holds it; else its rows say it (`split`), or the beginning of its name. A file of which nothing
    says it belongs to every split. The list of each file is kept in `cache`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no Parquet files, a column that is missing, an unknown label, no rows of the
            set, or images that cannot be used.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root}: no such folder")
    found = root.rglob("*.parquet")
    paths = sorted(p for p in found if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise ValueError(f"image folder {root}: no .parquet files in it")
    tables = []
    for path in track(paths, "rows"):
        table = _known(path, cache)
        folder = path.relative_to(root).parts[0]
        tables.append(table.assign(split=folder) if folder in SPLITS else table)
    table = pd.concat(tables, ignore_index=True)
    table = table[table["split"].isin(["", split])]
    if table.empty:
        raise ValueError(f"image folder {root}: its Parquet files hold no images of {split}")
    good, skipped = drop_unusable(table, root, on_corrupt)
    good = good.drop(columns=["problem", "split"])
    if good["label"].nunique() < 2:
        raise ValueError(
            f"image folder {root}: images of one kind only; this set needs real ones beside the "
            "generated, such as those of its small version"
        )
    return Manifest(good.reset_index(drop=True), skipped)


def _known(path: Path, cache: Path | None) -> pd.DataFrame:
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    store = cache and cache / f"rows-{hashlib.sha256(key.encode()).hexdigest()[:16]}.parquet"
    if (known := load_cache(store, _COLUMNS)) is not None:
        return known
    table = _looked_at(path)
    save_cache(table, store)
    return table


def _looked_at(path: Path) -> pd.DataFrame:
    try:
        file = pq.ParquetFile(path)
        there = file.schema_arrow.names
        if missing := {IMAGE_COLUMN, "label", "model_name"} - set(there):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        columns = [c for c in (IMAGE_COLUMN, "label", "model_name", "split") if c in there]
        with ThreadPoolExecutor() as pool:
            parts = [
                _group(path, number, file.read_row_group(number, columns).to_pandas(), pool)
                for number in range(file.num_row_groups)
            ]
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error})") from error
    return pd.concat(parts, ignore_index=True)


def _group(path: Path, number: int, group: pd.DataFrame, pool: ThreadPoolExecutor) -> pd.DataFrame:
    data = encoded(group[IMAGE_COLUMN], str(path))
    facts = pool.map(lambda one: probe(io.BytesIO(one), ""), data)
    labels = group["label"].astype(str).str.lower()
    if unknown := set(labels) - set(_LABELS):
        raise ValueError(f"{path}: labels {sorted(unknown)}; known: {', '.join(_LABELS)}")
    label = labels.map(_LABELS)
    parted = group["split"].astype(str) if "split" in group else _split_of(path)
    table = pd.DataFrame(facts, columns=list(Header._fields)).assign(
        path=[f"{path}{ROW_SEPARATOR}{number}.{row}" for row in range(len(group))],
        label=label.to_numpy(),
        generator=group["model_name"].astype(str).where(label == 1, REAL).to_numpy(),
        bytes=[len(one) for one in data],
        split=parted,
    )
    table["class"] = ""
    return table


def _split_of(path: Path) -> str:
    return next((s for s in ("train", "val", "test") if path.name.startswith(s)), "")


class Folder(Data):
    """A tree of images.

    Without a layout: any tree of `0_real`/`1_fake` folders (or real/fake, nature/ai, REAL/FAKE).
    With `train`, `val` and `test` folders under the root, these are the three sets. Otherwise the
    tree is divided by a hash of each file's name, so that an image and its counterpart of the same
    name fall on the same side; an analysis then uses all of it.

    With a layout: where each set has its labels and generators. If it has `train` and no `val`, the
    hash of the names takes `fractions[1]` of `train` for validation.

    Args:
        root: the folder.
        layout: set -> arguments of `layout.Layout`, or `parquet: true`.
        expected: set -> generator -> how many images are published; others are told.
        fractions: shares of the training and the validation set in an undivided tree.
        options: see `Data`.
    """

    def __init__(
        self,
        root: str,
        layout: Mapping[str, Mapping[str, Any]] | None = None,
        expected: Mapping[str, Mapping[str, int]] | None = None,
        fractions: tuple[float, float] = (0.6, 0.2),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.fractions = Path(root).expanduser(), fractions
        self.expected = expected or {}
        #: Set -> where its labels stand; None for rows of Parquet files.
        self.layout: dict[str, Layout | None] | None = None
        if layout is not None:
            self.layout = {
                split: None if own.get("parquet") else Layout(**own)
                for split, own in layout.items()
            }
        train, val = fractions
        if min(train, val) <= 0 or train + val >= 1:
            raise ValueError(
                f"data.fractions={list(fractions)}: shares of training and validation must be "
                "positive and leave some images for the test"
            )

    def prepare_data(self) -> None:
        """Look at the files before there are several processes that would all do so."""
        for split in ("train", "val"):
            self.images(split)

    @cached_property
    def has_splits(self) -> bool:
        """Whether there is a place for each set."""
        there = any((self.root / split).is_dir() for split in SPLITS)
        return self.layout is not None or there

    def available_splits(self) -> list[str]:
        """Which of train, val and test there are."""
        if self.layout is not None:
            there = {split for split, own in self.layout.items() if self._holds(own)}
            drawn = {"val"} if "train" in there and "val" not in self.layout else set()
            # With nothing there, whoever asks for one of them is told what was expected where.
            return [s for s in SPLITS if s in (there | drawn or self.layout)]
        if self.has_splits:
            return [s for s in SPLITS if (self.root / s).is_dir()]
        return list(SPLITS)

    def _holds(self, layout: Layout | None) -> bool:
        """Whether any folder below the root, which may have come in part, is of a set."""
        if layout is None:
            return True
        folders = (Path(folder) for folder, _, _ in os.walk(self.root))
        return any(layout.place(folder.relative_to(self.root).as_posix()) for folder in folders)

    def list_images(self, split: str) -> Manifest:
        """All images of a set, and the files that cannot be used."""
        if self.layout is not None:
            return self._of_layout(self.layout, split)
        if self.has_splits:
            return self._list(self.root / split)
        table, skipped = self._whole
        train, val = self.fractions
        bounds = {"train": (0.0, train), "val": (train, train + val), "test": (train + val, 1.0)}
        return Manifest(self._part(table, *bounds[split], split), skipped)

    def _of_layout(self, layouts: Mapping[str, Layout | None], split: str) -> Manifest:
        own = "train" if split == "val" and "val" not in layouts else split
        if own not in layouts:
            raise ValueError(
                f"data.root={self.root}: this set has no images for {split}, only for "
                f"{', '.join(layouts)}; take another set for that"
            )
        layout = layouts[own]
        table, skipped = (
            self._list(self.root, layout)
            if layout is not None
            else list_parquet_images(self.root, own, self.files, self.on_corrupt)
        )
        if split == "test" or "val" in layouts or "train" not in layouts:
            return Manifest(table, skipped)
        bound = 1 - self.fractions[1]
        bounds = (0.0, bound) if split == "train" else (bound, 1.0)
        return Manifest(self._part(table, *bounds, split), skipped)

    @cached_property
    def _whole(self) -> Manifest:
        return self._list(self.root)

    def _part(self, table: pd.DataFrame, low: float, high: float, split: str) -> pd.DataFrame:
        """The rows whose names' hash, as a fraction, lies in (low, high], or in [0, high]."""
        names = table["path"].map(lambda p: p if ROW_SEPARATOR in p else Path(p).stem)
        hashes = names.map(lambda name: zlib.crc32(f"{self.seed}/{name}".encode()))
        fraction = hashes / 2**32
        rows = table[((fraction > low) | (low == 0)) & (fraction <= high)]
        if rows["label"].nunique() < 2:
            raise ValueError(
                f"image folder {self.root}: too few images for a {split} set of both kinds"
            )
        return rows.reset_index(drop=True)

    def real_of(self, split: str) -> Mapping[str, str]:
        """Generator -> the `generator` of the real images that belong to it, where they differ."""
        if self.layout is None:
            return {}
        layout = self.layout.get(split, self.layout.get("train"))
        return {"*": "real"} if layout is None else layout.real_of

    def notes(self, split: str) -> list[str]:
        """Where the number of images is not the published one."""
        if split not in self.expected or split not in self._manifests:
            return []
        chosen = self.generators or self.expected[split]
        expected = {name: n for name, n in self.expected[split].items() if name in chosen}
        return compare_counts(self._manifests[split].table, expected)

    def test(self) -> Images:
        """The test set of a divided tree; of an undivided one, all images."""
        return super().test() if self.has_splits else self._all()

    def discovery(self) -> Images:
        """The validation set of a divided tree; of an undivided one, all images."""
        return super().discovery() if self.has_splits else self._all()

    def all_splits(self) -> Splits:
        """All sets of a divided tree; an undivided one is looked at as a whole."""
        return super().all_splits() if self.has_splits else self.splits()

    def _all(self) -> Images:
        self._manifests["all"] = self._whole
        return self.images("all")
