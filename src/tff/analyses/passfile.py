"""Tables in Parquet files with facts beside them, and digests of what they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from tff.data.images import Images


def write(path: Path, table: pd.DataFrame, facts: Mapping[str, object]) -> None:
    """Write a table with facts beside it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata(
        {**(arrow.schema.metadata or {}), b"tff": json.dumps(facts).encode()}
    )
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        pq.write_table(arrow, beside, compression="zstd")
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table and its facts.

    Raises:
        ValueError: the file is broken or was not written by `write`.
    """
    try:
        arrow = pq.read_table(path)
        facts: dict[str, Any] = json.loads(arrow.schema.metadata[b"tff"])
    except (pa.ArrowException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a file of tff ({error}); delete it and run again") from None
    return arrow.to_pandas(), facts


def digest_of(network: nn.Module, *more: object) -> str:
    """Of all weights of a network, and of what else there is."""
    state = hashlib.sha256(json.dumps([str(m) for m in more]).encode())
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
