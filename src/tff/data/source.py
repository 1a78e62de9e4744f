"""An image of a manifest, from a file of its own or from a row of a Parquet file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tff.data.decode import decode

#: Between the name of a Parquet file and the place of an image in it.
MARK = "::"
#: Column with the bytes of the images, and where they may stand within it.
COLUMN = "image_data"
# Of a Parquet file only: `::` may also stand in the names of folders.
_ROW = re.compile(rf"(?P<file>.+\.parquet){MARK}(?P<group>\d+)\.(?P<row>\d+)", re.DOTALL)


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
    row = _ROW.fullmatch(path)
    try:
        if row is not None:
            return _group(row["file"], int(row["group"]))[int(row["row"])]
        if Path(path).exists() and not Path(path).is_file():
            raise OSError("no regular file")  # a pipe or a device may have no end
        return Path(path).read_bytes()
    except (OSError, IndexError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


@lru_cache(maxsize=4)
def _group(file: str, group: int) -> list[bytes]:
    """The images of a row group: the smallest piece that can be read at once."""
    column = pq.ParquetFile(file).read_row_group(group, columns=[COLUMN])[COLUMN]
    return encoded(column.to_pylist(), file)


def encoded(values: Iterable[Any], name: str) -> list[bytes]:
    """The bytes of images in a column, where they may stand in a field of their own.

    Args:
        values: of the column; a missing one is no bytes.
        name: of the file, for messages.

    Raises:
        ValueError: it holds anything else than bytes.
    """
    found = [value.get("bytes") if isinstance(value, dict) else value for value in values]
    if odd := [type(one).__name__ for one in found if not isinstance(one, bytes | None)]:
        raise ValueError(
            f"{name}: the column {COLUMN} holds {odd[0]}, expected the bytes of images"
        )
    return [one or b"" for one in found]
