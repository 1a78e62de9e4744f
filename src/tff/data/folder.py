"""A set of images in folders or Parquet files."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa

from tff.data.datamodule import SPLITS, Data, Splits
from tff.data.dataset import IMAGE_COLUMN, ROW_SEPARATOR, digest_content, extract_bytes
from tff.data.layout import (
    AnyTree,
    FolderFacts,
    Layout,
    Places,
    find_named_folder,
    name_root,
    split_of,
)
from tff.data.manifest import (
    HEADER_TYPES,
    Header,
    Manifest,
    compare_counts,
    describe_unread,
    drop_unusable,
    load_cache,
    probe,
    save_cache,
    walk_images,
)
from tff.data.tree import Tree, shorten, walk
from tff.foreign_files import open_regular
from tff.options import NAMES, PATH, TEXT, Allowed, checked, each, number, to_names
from tff.parquet import open_parquet, read_columns, refuse_damage
from tff.progress import track

log = logging.getLogger(__name__)

#: The `generator` of all real images in Parquet files.
REAL = "real"
_LABELS = {"0": 0, "1": 1, "real": 0, "fake": 1, "false": 0, "true": 1, "generated": 1}
_CACHED: dict[str, type] = HEADER_TYPES | {
    **dict.fromkeys(("path", "generator", "split", "class"), str),
    **dict.fromkeys(("label", "bytes", "digest"), int),
}
_NAME = Allowed(lambda name: isinstance(name, str) and name.strip() != "", TEXT.expected)
#: Shares of the training and the validation set.
FRACTIONS = Allowed(
    lambda shares: len(shares) == 2 and each(number(above=0, below=1)).holds(shares)
    and sum(shares) < 1,
    "the shares of the training and the validation set, which leave some images for the test",
)  # fmt: skip


class Folder(Data):
    """A tree of images.

    Without a layout: any tree with folders `0_real` and `1_fake` (or real/fake, nature/ai,
    REAL/FAKE) in it, see `layout.AnyTree`. Folders `train`, `val` and `test` at any depth are the
    splits. A tree without them is divided into three by a hash of the file names, which keeps files
    of the same name together, or of the names of groups (`group`).

    With a layout: where each split has its labels and generators. If it has `train` but not `val`,
    a share `fractions[1]` of `train`, drawn by the hash of the names, is the validation set.

    Args:
        root: the folder.
        layout: split -> arguments of `layout.Layout`, or `parquet: true`.
        expected: split -> generator -> published number of images; differences are reported.
        fractions: shares of the training and the validation set in a tree without splits.
        generator: name of the generator in a tree whose folders name none; None: name of the tree.
        test_only: generators of which all images are test images, or `all`.
        split_folders: whether folders train, val and test are splits or names; see
            `layout.AnyTree`.
        options: see `Data`.
    """

    @checked("data")
    def __init__(
        self,
        root: Annotated[str, PATH],
        layout: Mapping[str, Mapping[str, Any]] | None = None,
        expected: Mapping[str, Mapping[str, int]] | None = None,
        fractions: Annotated[tuple[float, float], FRACTIONS] = (0.6, 0.2),
        generator: Annotated[str, _NAME] | None = None,
        test_only: Annotated[Sequence[str] | str, NAMES] | None = None,
        split_folders: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.fractions = Path(root).expanduser(), fractions
        self.expected = expected or {}
        #: Split -> its layout; None for Parquet files.
        self.layout: dict[str, Layout | None] | None = None
        if layout is not None:
            self.layout = {
                split: None if arguments.get("parquet") else Layout(**arguments)
                for split, arguments in layout.items()
            }
        whole = test_only if test_only == "all" else to_names("data.test_only", test_only)
        #: Meaning of the folders of a tree without a layout.
        self.places = AnyTree(generator or "", whole or (), split_folders)
        if layout is not None and self.places != AnyTree():
            raise ValueError(
                "data.generator, data.test_only and data.split_folders are for data=folder; the "
                "folders of this set have a fixed meaning"
            )

    def prepare_data(self) -> None:
        # Lists the files once, before several processes would.
        for split in ("train", "val"):
            self.images(split)

    @property
    def unit(self) -> str:
        return self.group if self._is_parquet and self.group else super().unit

    @property
    def undivided(self) -> bool:
        return not (self.has_splits or self.places.test_only)

    @cached_property
    def _tree(self) -> Tree:
        if self._is_parquet:
            tree = walk_parquet(self.root)
            self._remark(tree.describe_unread(lambda folder: bool(tree.folders[folder])))
        else:
            tree = walk_images(self.root)
            self._remark(describe_unread(tree, self._layouts))
        return tree

    @property
    def _layouts(self) -> list[Places]:
        if self.layout is None:
            return [self.places]
        return [layout for layout in self.layout.values() if layout is not None]

    @property
    def _is_parquet(self) -> bool:
        return self.layout is not None and None in self.layout.values()

    def _remark(self, lines: list[str]) -> None:
        """Keep remarks on the whole tree for reports, and log them, once."""
        if lines:
            self.remarks.append(f"Image folder {self.root}: {'; '.join(lines)}.")
            log.warning("%s", self.remarks[-1])

    @cached_property
    def _facts(self) -> dict[str, FolderFacts]:
        facts = self.places.read(self._tree)
        named = sorted({fact.generator or name_root(self.root) for fact in facts.values()})
        if named and (own := self.places.generator) and own not in named:
            raise ValueError(
                f"data.generator={own}: the folders of {self.root} name the generators already: "
                f"{', '.join(named)}; rename the folder instead"
            )
        if self.places.test_only != "all":
            unknown = sorted(set(self.places.test_only) - set(named))
            if unknown and named:
                raise ValueError(f"data.test_only={unknown}: unknown; known are {', '.join(named)}")
        self._remark(self.places.describe(facts))
        return facts

    @cached_property
    def has_splits(self) -> bool:
        """Whether layout or folders divide the tree into splits."""
        return self.layout is not None or any(fact.split for fact in self._facts.values())

    def available_splits(self) -> list[str]:
        if self.layout is not None:
            found = {split for split, layout in self.layout.items() if self._matches(layout)}
            if "train" in found and "val" not in self.layout:
                found.add("val")
            # If nothing exists, listing a declared split fails with the folders it expects.
            return [split for split in SPLITS if split in (found or self.layout)]
        if self.has_splits:
            return [s for s in SPLITS if any(fact.split == s for fact in self._facts.values())]
        return list(SPLITS)

    def _matches(self, layout: Layout | None) -> bool:
        """Whether any folder below the root matches a layout; some may not be downloaded."""
        return layout is None or any(map(layout.is_labelled, self._tree.folders))

    def list_images(self, split: str) -> Manifest:
        if self.layout is not None:
            return self._list_by_layout(self.layout, split)
        if self.has_splits:
            self._require_split(split)
            return self._list_folder(self._tree, self.places, split)
        if split == "all":
            return self._whole_tree
        train, val = self.fractions
        bounds = {"train": (0.0, train), "val": (train, train + val), "test": (train + val, 1.0)}
        table, skipped = self._whole_tree
        whole = table["generator"].isin(self.places.test_only)
        share = self._take_share(Manifest(table[~whole], skipped), *bounds[split], split)
        if split != "test" or not whole.any():
            return share
        both = pd.concat([share.table, table[whole]]).sort_values("path", ignore_index=True)
        return Manifest(both, skipped)

    def _require_split(self, split: str) -> None:
        if split in (there := self.available_splits()):
            return
        if self.places.test_only == "all":
            hint = "because of data.test_only=all"
        else:
            hint = (
                f"add a folder {split}, or if these folders are names of generators or classes, "
                "pass data.split_folders=false: then a hash of the file names assigns the split"
            )
        raise ValueError(
            f"image folder {self.root}: no {split} images, only {' and '.join(there)}; {hint}"
        )

    def _list_by_layout(self, layouts: Mapping[str, Layout | None], split: str) -> Manifest:
        source = "train" if split == "val" and "val" not in layouts else split
        if source not in layouts:
            raise ValueError(
                f"data.root={self.root}: this set has no {split} images, only {', '.join(layouts)};"
                " use another set"
            )
        layout = layouts[source]
        if layout is None:
            manifest = select_split(self._rows, self.root, source, self.on_corrupt)
        else:
            manifest = self._list_folder(self._tree, layout)
        if split == "test" or "val" in layouts or "train" not in layouts:
            return manifest
        bound = 1 - self.fractions[1]
        bounds = (0.0, bound) if split == "train" else (bound, 1.0)
        return self._take_share(manifest, *bounds, split)

    @cached_property
    def _rows(self) -> pd.DataFrame:
        table = list_rows(self._tree, self.files)
        if self.group is not None:
            table = table.assign(group=read_group_column(self._tree, self.group))
        other = table["split"][~table["split"].isin([*(self.layout or {})])]
        if len(other):
            self._remark(
                [f"not read: {len(other):,} images of other splits ({shorten(sorted({*other}))})"]
            )
        return table

    @cached_property
    def _whole_tree(self) -> Manifest:
        return self._list_folder(self._tree, self.places)

    def _take_share(self, manifest: Manifest, low: float, high: float, split: str) -> Manifest:
        """Images whose names hash to a fraction in (low, high], or in [0, high].

        Names are those of groups where they are known: a group is never divided.
        """
        names = manifest.table["path"].map(lambda p: p if ROW_SEPARATOR in p else Path(p).stem)
        if "group" in manifest.table:
            names = names.where(manifest.table["group"] == "", manifest.table["group"])
        hashes = names.map(lambda name: zlib.crc32(f"{self.seed}/{name}".encode()))
        fraction = hashes / 2**32
        table = manifest.table[((fraction > low) | (low == 0)) & (fraction <= high)]
        if table["label"].nunique() < 2:
            few = f"groups ({len(set(names)):,} of data.group)" if self.group else "images"
            raise ValueError(
                f"image folder {self.root}: too few {few} for a {split} set with both real and "
                "generated images"
            )
        return Manifest(table.reset_index(drop=True), manifest.skipped)

    @property
    def named_folder(self) -> Path | None:
        """The folder around the tree after which a generator in it is called, if any is."""
        if self._is_parquet:
            return None
        facts = [layout.read(self._tree) for layout in self._layouts]
        unnamed = any(not fact.generator for found in facts for fact in found.values())
        return find_named_folder(self.root) if unnamed else None

    def all_splits(self) -> Splits:
        """All splits; all images as both discovery and test where only a hash divides them."""
        if not self.undivided:
            return super().all_splits()
        return Splits(self.images("all"), self.images("all"))

    def real_of(self, split: str) -> Mapping[str, str]:
        if self.layout is None:
            return {}
        layout = self.layout.get(split, self.layout.get("train"))
        return {"*": REAL} if layout is None else layout.real_of

    def notes(self, split: str) -> list[str]:
        """A sentence on numbers of images that are not the published ones."""
        if split not in self.expected or split not in self._manifests:
            return []
        names = self.generators or self.expected[split]
        expected = {name: n for name, n in self.expected[split].items() if name in names}
        found = compare_counts(self._manifests[split].table, expected)
        return [f"The set differs from the published one: {'; '.join(found)}."] if found else []


def require_one_root(ranked: Data, tested: Data) -> None:
    """Refuse two sets whose generator is called after their folders, which are only namesakes.

    Raises:
        ValueError: the folders differ, but not their names.
    """
    first, second = (
        data.named_folder if isinstance(data, Folder) else None for data in (ranked, tested)
    )
    if first and second and first != second and first.name == second.name:
        raise ValueError(
            f"{first} and {second}: folders of the same name, after which the generator of both is "
            f"called; if they hold different generators, pass data.generator=NAME, if not, "
            f"data.generator={first.name}"
        )


def walk_parquet(root: Path) -> Tree:
    """The Parquet files in a tree of folders.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no Parquet files, or see `tree.walk`.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"image folder {root}: no such folder")
    tree = walk(root, {".parquet"})
    if not tree.holding:
        raise ValueError(f"image folder {root}: no .parquet files in it")
    return tree


def list_parquet_images(root: Path, split: str, cache: Path | None, on_corrupt: str) -> Manifest:
    """List the images of a split in all Parquet files below a folder.

    Raises:
        FileNotFoundError, ValueError: see `walk_parquet`, `list_rows` and `select_split`.
    """
    return select_split(list_rows(walk_parquet(root), cache), root, split, on_corrupt)


def select_split(rows: pd.DataFrame, root: Path, split: str, on_corrupt: str) -> Manifest:
    """The images of a split.

    Raises:
        ValueError: there are none, all are real or all generated, or images cannot be used.
    """
    table = rows[rows["split"] == split]
    if table.empty:
        raise ValueError(f"image folder {root}: its Parquet files hold no images of {split}")
    good, skipped = drop_unusable(table, root, on_corrupt)
    good = good.drop(columns=["problem", "split"])
    if good["label"].nunique() < 2:
        raise ValueError(
            f"image folder {root}: its images are all real or all generated, both are needed; the "
            "small version of Community Forensics has both"
        )
    return Manifest(good.reset_index(drop=True), skipped)


def list_rows(tree: Tree, cache: Path | None) -> pd.DataFrame:
    """List the images in Parquet files.

    Columns: `image_data` (bytes), `label` (0 and 1, or real and fake), `model_name`, and `split`,
    if any. A file below a folder `train`, `val` or `test` belongs to that split. Otherwise the
    column `split` decides, or else the first word of the file name. The list of each file is cached
    in `cache`.

    Raises:
        ValueError: a missing column, an unknown label, or nothing names the split of a file.
    """
    tables = []
    for file in track(tree.files(), "rows"):
        table = _list_file(tree.root / file, cache)
        by_folder = next(filter(None, map(split_of, file.split("/")[:-1])), "")
        by_column = table["split"].map(lambda name: split_of(name) or name)
        by_name = split_of(re.split("[^A-Za-z]", PurePath(file).name)[0])
        splits = by_column.where(by_column != "", by_name)
        table = table.assign(split=by_folder or splits)
        if (table["split"] == "").any():
            raise ValueError(
                f"{tree.root / file}: nothing says whether it is for training or for the test: no "
                "folder train or test, no column split, no name such as train-0.parquet"
            )
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def read_group_column(tree: Tree, column: str) -> list[str]:
    """Group of each image in Parquet files, in the order of `list_rows`; "" for a missing value.

    Raises:
        ValueError: a file has no such column, or one that holds no texts or numbers.
    """
    found: list[str] = []
    for file in tree.files():
        path = tree.root / file
        with (
            open_regular(path) as stream,
            refuse_damage(
                path,
                f"data.group={column} cannot be read",
                "name a column of texts or whole numbers",
            ),
        ):
            values = read_columns(open_parquet(stream), [column])[column].cast(pa.string())
        found += values.fill_null("").to_pylist()
    return found


def _list_file(path: Path, cache: Path | None) -> pd.DataFrame:
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"
    store = cache and cache / f"rows-{hashlib.sha256(key.encode()).hexdigest()[:16]}.parquet"
    if (table := load_cache(store, _CACHED)) is None:
        table = _read_file(path)[[*_CACHED]]
        save_cache(table, store)
    return table


def _read_file(path: Path) -> pd.DataFrame:
    refuse = partial(refuse_damage, path, "not a readable Parquet file", "repair or remove it")
    with open_regular(path) as stream:
        with refuse():
            file = open_parquet(stream)
            names = file.schema_arrow.names
        if missing := {IMAGE_COLUMN, "label", "model_name"} - set(names):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        columns = [c for c in (IMAGE_COLUMN, "label", "model_name", "split") if c in names]
        parts = []
        with ThreadPoolExecutor() as pool:
            for group in range(file.num_row_groups):
                with refuse():
                    rows = read_columns(file, columns, group).to_pandas(ignore_metadata=True)
                parts.append(_read_group(path, group, rows, pool))
    if not parts:
        raise ValueError(f"{path}: holds no images")
    return pd.concat(parts, ignore_index=True)


def _read_group(
    path: Path, group: int, rows: pd.DataFrame, pool: ThreadPoolExecutor
) -> pd.DataFrame:
    data = extract_bytes(rows[IMAGE_COLUMN], str(path))
    headers = pool.map(lambda image: probe(io.BytesIO(image), ""), data)
    labels = rows["label"].astype(str).str.lower()
    if unknown := set(labels) - set(_LABELS):
        raise ValueError(f"{path}: labels {sorted(unknown)[:5]}; known: {', '.join(_LABELS)}")
    label = labels.map(_LABELS)
    table = pd.DataFrame(headers, columns=list(Header._fields)).assign(
        path=[f"{path}{ROW_SEPARATOR}{group}.{row}" for row in range(len(rows))],
        label=label.to_numpy(),
        generator=rows["model_name"].astype(str).where(label == 1, REAL).to_numpy(),
        bytes=[len(image) for image in data],
        digest=[digest_content(io.BytesIO(image)) for image in data],
        split=rows["split"].astype(str) if "split" in rows else "",
    )
    table["class"] = ""
    return table
