"""Sets whose images lie as bytes in Parquet files, a row an image (Community Forensics)."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tff.data.files import kept, save
from tff.data.manifest import Manifest, usable
from tff.data.probe import Facts, probe
from tff.data.source import COLUMN, MARK, encoded
from tff.progress import track

#: What the label column may hold.
_LABELS = {"0": 0, "1": 1, "real": 0, "fake": 1, "false": 0, "true": 1, "generated": 1}
#: Of the table that is kept of each file.
_COLUMNS = [*Facts._fields, "path", "label", "generator", "bytes", "split", "class"]
#: The `generator` of all real images.
REAL = "real"


def rows(root: Path, split: str, cache: Path | None, on_corrupt: str) -> Manifest:
    """List the images in all Parquet files below a folder whose `split` is the given one.

    Their columns: `image_data` (bytes), `label` (0 and 1, or real and fake), `model_name`, and,
    where there are sets, `split`; a file without it belongs to the set that its name begins with,
    or to every set. Of each file what was found is kept in `cache`.

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
    table = pd.concat([_known(p, cache) for p in track(paths, "rows")], ignore_index=True)
    table = table[table["split"].isin(["", split])]
    if table.empty:
        raise ValueError(f"image folder {root}: its Parquet files hold no images of {split}")
    good, skipped = usable(table, root, on_corrupt)
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
    if (known := kept(store, _COLUMNS)) is not None:
        return known
    table = _looked_at(path)
    save(table, store)
    return table


def _looked_at(path: Path) -> pd.DataFrame:
    try:
        file = pq.ParquetFile(path)
        there = file.schema_arrow.names
        if missing := {COLUMN, "label", "model_name"} - set(there):
            raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
        columns = [c for c in (COLUMN, "label", "model_name", "split") if c in there]
        with ThreadPoolExecutor() as pool:
            parts = [
                _group(path, number, file.read_row_group(number, columns).to_pandas(), pool)
                for number in range(file.num_row_groups)
            ]
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error})") from error
    return pd.concat(parts, ignore_index=True)


def _group(path: Path, number: int, group: pd.DataFrame, pool: ThreadPoolExecutor) -> pd.DataFrame:
    data = encoded(group[COLUMN], str(path))
    facts = pool.map(lambda one: probe(io.BytesIO(one), ""), data)
    labels = group["label"].astype(str).str.lower()
    if unknown := set(labels) - set(_LABELS):
        raise ValueError(f"{path}: labels {sorted(unknown)}; known: {', '.join(_LABELS)}")
    label = labels.map(_LABELS)
    parted = group["split"].astype(str) if "split" in group else _split_of(path)
    table = pd.DataFrame(facts, columns=list(Facts._fields)).assign(
        path=[f"{path}{MARK}{number}.{row}" for row in range(len(group))],
        label=label.to_numpy(),
        generator=group["model_name"].astype(str).where(label == 1, REAL).to_numpy(),
        bytes=[len(one) for one in data],
        split=parted,
    )
    table["class"] = ""
    return table


def _split_of(path: Path) -> str:
    return next((s for s in ("train", "val", "test") if path.name.startswith(s)), "")
