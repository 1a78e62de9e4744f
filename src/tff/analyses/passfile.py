"""Tables in Parquet files with facts beside them, and digests of what they depend on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from tff.atomic import remove_abandoned, whole
from tff.data.dataset import Images

# RecursionError: of JSON that is nested thousands of times.
_BROKEN = (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError)


def write(path: Path, table: pd.DataFrame, facts: Mapping[str, object]) -> None:
    """Write a table with facts beside it, whole or not at all."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata(
        {**(arrow.schema.metadata or {}), b"tff": json.dumps(facts).encode()}
    )
    remove_abandoned(path.parent)
    with whole(path) as part:
        pq.write_table(arrow, part, compression="zstd")


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its facts.

    Raises:
        ValueError: the file is broken or was not written by `write`.
    """
    facts = _facts(path)
    with _readable(path):
        return pq.read_table(path).to_pandas(), facts


def _facts(path: Path) -> dict[str, Any]:
    """What stands beside the table in a file, without the table."""
    with _readable(path):
        return dict(json.loads(pq.read_schema(path).metadata[b"tff"]))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ValueError(f"{path}: not a file of tff ({error}); delete it and run again") from None


def fitting(folder: Path, name: str, key: Mapping[str, Any]) -> Path:
    """The file of a pass, or one of the same kind that holds it and more, or where it belongs.

    Raises:
        ValueError: a file of this kind is broken.
    """
    path = folder / f"{name}-{digest(key)[:12]}.parquet"
    if path.exists():
        return path
    others = sorted(folder.glob(f"{name}-*.parquet"))
    return next((other for other in others if covers(_facts(other).get("key"), key)), path)


def covers(kept: Any, wanted: Mapping[str, Any]) -> bool:
    """Whether a pass holds all that is wanted: lists and mappings may hold more, the rest is equal.

    Thus logits are found in a pass that kept responses of channels too.
    """
    if not isinstance(kept, Mapping) or kept.keys() != wanted.keys():
        return False
    for name, value in wanted.items():
        if type(kept[name]) is not type(value):
            return False
        if isinstance(value, list):
            fits = set(value) <= set(kept[name])
        elif isinstance(value, dict):
            fits = value.items() <= kept[name].items()
        else:
            fits = kept[name] == value
        if not fits:
            return False
    return True


def digest_of(network: nn.Module, *more: object) -> str:
    """Of the layers of a network with all their weights, and of what else there is."""
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(network))  # strides and the like are no weights
    state = hashlib.sha256(json.dumps([layers, *(str(m) for m in more)]).encode())
    for name, value in sorted(network.state_dict().items()):
        state.update(name.encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def identity(images: Images) -> dict[str, object]:
    """What tells a set of images, as it is seen, from any other one."""
    columns = [c for c in ("path", "label", "generator", "bytes") if c in images.manifest]
    # As text, since a type may change on its way through a file.
    text = images.manifest[columns].astype(str).astype(object)
    content = pd.util.hash_pandas_object(text, index=False).to_numpy()
    return {
        "images": hashlib.sha256(content.tobytes()).hexdigest(),
        "view": str(images.view),
        "match_format": images.match_format,
        "seed": images.seed,
    }


def digest(value: object) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
