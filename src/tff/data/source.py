"""An image of a manifest, from a file of its own or from a row of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tff.data.decode import decode

#: Between the name of a Parquet file and the place of an image in it.
MARK = "::"
#: Column with the bytes of the images, and where they may stand within it.
COLUMN = "image_data"


def pixels(path: str) -> NDArray[np.uint8]:
    """The image behind a path of a manifest as (H, W, 3) RGB; errors as of `read` and `decode`."""
    return decode(read(path), path)


def read(path: str) -> bytes:
    """The bytes behind a path of a manifest.

    Args:
        path: of a file, or `FILE.parquet::GROUP.ROW`.

    Raises:
        ValueError: the file cannot be read; the message names it.
    """
    file, mark, place = path.rpartition(MARK)
    try:
        if not mark:
            return Path(path).read_bytes()
        group, _, row = place.partition(".")
        return _group(file, int(group))[int(row)]
    except (OSError, IndexError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


@lru_cache(maxsize=4)
def _group(file: str, group: int) -> list[bytes]:
    """The images of a row group: the smallest piece that can be read at once."""
    column = pq.ParquetFile(file).read_row_group(group, columns=[COLUMN])[COLUMN]
    return encoded(column.to_pylist())


def encoded(values: Iterable[Any]) -> list[bytes]:
    """The bytes of images in a column, where they may stand in a field of their own."""
    return [value["bytes"] if isinstance(value, dict) else value for value in values]
