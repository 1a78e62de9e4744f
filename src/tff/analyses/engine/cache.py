"""Cache of the results of passes, in memory and on disk.

On disk each pass is one Parquet file, named by a digest of everything that its numbers depend on;
the file holds that description as well. A pass that holds more than is requested is used too. So an
interrupted run continues after its last complete pass, and within the next one (`parts`); runs that
differ in one cue share the other passes; and tables can be rebuilt without images and network
(`replay`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tff.analyses.engine.parts import remove_parts, store_parts
from tff.analyses.engine.passes import CueRemoval, Table
from tff.data.dataset import Images
from tff.distributed import broadcast, fail_together, get_rank
from tff.parquet import read, read_facts, write

#: Column of the responses of all channels: the bytes of float32.
_SAMPLE = "all channels"


@dataclass(frozen=True)
class Expected:
    """What a file of a pass must hold, since numbers are computed from it.

    Args:
        rows: number of images or channels.
        columns: names; all hold float64.
        channels: number of those of the detector.
        sizes: names of columns of bytes -> number of bytes in each row.
        fits: whether the facts can be used.
    """

    rows: int
    columns: Sequence[str]
    channels: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    fits: Callable[[Mapping[str, Any]], bool] = lambda facts: True


@dataclass(eq=False)
class Cache:
    """Results of passes, each computed once.

    Args:
        folder: of the files; None: in memory only.
        detector: digest of the detector, see `digest_network`; needed with a folder.
    """

    folder: Path | None = None
    detector: str = ""
    _tables: dict[str, list[tuple[Mapping[str, Any], Table]]] = field(default_factory=dict)

    def get(
        self,
        name: str,
        key: Mapping[str, Any],
        compute: Callable[[], Table],
        expected: Expected,
    ) -> Table:
        """Result of a pass, computed only if neither memory nor folder hold it.

        Collective: all ranks agree on which passes the folder holds, and one of them writes.

        Args:
            name: kind of the pass, with which its file's name begins.
            key: everything besides the detector that the numbers depend on.
            compute: runs the pass.
            expected: what its file must hold; other columns are not read.

        Raises:
            ValueError: a file is damaged, or holds another pass than its name says.
        """
        tables = self._tables.setdefault(name, [])
        for held, table in tables:
            if covers(held, key):
                return table
        if self.folder is None:
            table = compute()
        else:
            full = {**key, "detector": self.detector}
            if "cue" in full:
                full["cue"] = describe_cue(full["cue"])
            with fail_together():  # a single rank may see a damaged file
                path = find(self.folder, name, full)
            path, exists = broadcast((path, path.exists()))
            with store_parts(path, digest(full)):
                table = Table(pd.DataFrame()) if exists else compute()
            with fail_together():
                if exists:
                    table = _read_pass(path, full, expected)
                elif get_rank() == 0:
                    _write_pass(path, full, table)
                    remove_parts(path)
        tables.append((key, table))
        return table


def find(folder: Path, name: str, key: Mapping[str, Any]) -> Path:
    """File of a pass: its own, one of the same kind that covers it, or the one to write."""
    path = folder / f"{name}-{digest(key)[:12]}.parquet"
    if path.exists():
        return path
    others = sorted(folder.glob(f"{name}-*.parquet"))
    return next((other for other in others if covers(read_facts(other).get("key"), key)), path)


def covers(held: Any, key: Mapping[str, Any]) -> bool:
    """Whether a pass with the key `held` holds everything that `key` requests.

    Lists and mappings may hold more, all else must be equal. So a pass that recorded responses
    serves a request for logits.
    """

    def fits(has: Any, needs: Any) -> bool:
        if type(has) is not type(needs):
            return False
        if isinstance(needs, list):
            # As text: a forged list may hold anything.
            return set(map(repr, needs)) <= set(map(repr, has))
        return bool(needs.items() <= has.items() if isinstance(needs, dict) else has == needs)

    same = isinstance(held, Mapping) and held.keys() == key.keys()
    return same and all(fits(held[name], value) for name, value in key.items())


def _write_pass(path: Path, key: Mapping[str, Any], table: Table) -> None:
    rows = table.rows
    if table.sample is not None:
        column = pd.Series([None] * len(rows), dtype=object)
        column[table.sampled] = [responses.tobytes() for responses in table.sample]
        rows = rows.assign(**{_SAMPLE: column})
    write(path, rows, {"key": key, "facts": table.facts})


def _read_pass(path: Path, key: Mapping[str, Any], expected: Expected) -> Table:
    columns: dict[str, type] = dict.fromkeys(expected.columns, float)
    columns |= dict.fromkeys(expected.sizes, bytes)
    if key.get("sample"):
        columns[_SAMPLE] = bytes
    rows, written = read(path, columns, expected.rows)
    held: Any = written.get("key")
    facts = written.get("facts")
    if not covers(held, key):
        raise ValueError(f"{path}: holds another pass than its name says; delete it and run again")
    if not isinstance(facts, dict) or not expected.fits(facts):
        raise ValueError(f"{path}: its facts cannot be used; delete it and run again")
    for name, size in expected.sizes.items():
        if {len(value) if isinstance(value, bytes) else -1 for value in rows[name]} - {size}:
            raise ValueError(
                f"{path}: the column {name} holds values of another size; delete it and run again"
            )
    if _SAMPLE not in rows:
        return Table(rows, facts)
    column = rows.pop(_SAMPLE)
    sampled = np.flatnonzero(column.notna())
    values = list(column.iloc[sampled])
    if sampled.tolist() != held["sample"] or {len(v) for v in values} != {4 * expected.channels}:
        raise ValueError(
            f"{path}: holds responses of other images or channels than it says; delete it and run "
            "again"
        )
    sample = np.frombuffer(bytearray().join(values), np.float32).reshape(len(values), -1)
    return Table(rows, facts, sampled, sample)


def identify(images: Images) -> dict[str, object]:
    """Key of a set of images: names, labels and content of files, order, crop, resize, compression.

    The content counts, not the size: an image that was replaced by another of its size is another.
    """
    columns = [c for c in ("path", "label", "generator") if c in images.manifest]
    # As text, since a type may change on its way through a file.
    text = images.manifest[columns].assign(digest=images.digests).astype(str).astype(object)
    content = pd.util.hash_pandas_object(text, index=False).to_numpy()
    return {
        "images": hashlib.sha256(content.tobytes()).hexdigest(),
        "view": str(images.view),
        "match_format": images.match_format,
        "seed": images.seed,
    }


def digest_network(network: nn.Module, *more: object) -> str:
    """Digest of the layers of a network, of all weights, and of other values."""
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(network))  # the state dict has no strides
    state = hashlib.sha256(json.dumps([layers, *(str(m) for m in more)]).encode())
    for name, value in sorted(network.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def digest(value: object) -> str:
    """Digest of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def describe_cue(ablation: CueRemoval | None) -> str:
    """Text that tells apart images as they are, and without each cue.

    Raises:
        ValueError: the ablation's options are not in its repr.
    """
    if " at 0x" in repr(ablation):  # an address: another object may have it in the next run
        raise ValueError(
            f"passes without a cue cannot be cached for {ablation!r}, whose repr does not show its "
            "options; make it a frozen dataclass, as those in tff.ablations"
        )
    return "as they are" if ablation is None else f"without {ablation!r}"
