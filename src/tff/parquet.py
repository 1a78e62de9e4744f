"""Tables in Parquet files: complete or absent, and checked before they are used.

A Parquet file of some kilobytes may unfold to terabytes: it names a value once and repeats it. So
numbers of rows and bytes are checked before values are unfolded, and types before they are used.
Tables that `write` wrote hold a digest of each column: a single wrong bit is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tff.atomic import remove_abandoned, write_atomically
from tff.foreign_files import open_regular, parse_json
from tff.strict_json import dumps

_ROWS = 10_000_000  # more than any set has images
_FOLDED = 2_000_000_000  # bytes of a column that Arrow holds without unfolding them
_ALWAYS_ALLOWED = 1 << 30  # bytes that no file is refused for
_RATIO = 100  # otherwise: of values to their size in the file
_LONGEST = 300  # characters of a reason
_FACTS = b"tff"  # in the metadata of a file
#: Kind of a column -> whether a type is of it.
_KINDS: dict[type, Any] = {
    int: pa.types.is_integer,
    float: pa.types.is_float64,
    str: pa.types.is_large_string,  # as `_unfold` makes them
}


def write(path: Path, rows: pd.DataFrame, facts: Mapping[str, object]) -> None:
    """Write a table and facts about it to a Parquet file, completely or not at all.

    Columns of bytes get a fixed size.
    """
    table = _unfold(pa.Table.from_pandas(rows, preserve_index=False))
    for i, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            size = pc.max(pc.binary_length(table[i])).as_py() or 0
            table = table.set_column(i, field.name, table[i].cast(pa.binary(size)))
    content = dumps({"facts": facts, "columns": _digest_columns(table)}).encode()
    metadata = {_FACTS: content, _FACTS + b".sha256": hashlib.sha256(content).digest()}
    remove_abandoned(path.parent)
    with write_atomically(path) as part:
        pq.write_table(table.replace_schema_metadata(metadata), part, compression="zstd")


def read(
    path: Path, columns: Mapping[str, type] | None = None, rows: int | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table that `write` wrote, and the facts about it.

    Args:
        path: of the file.
        columns: those to read -> `int`, `float`, `str`, or `bytes` for a column that may have gaps;
            None: all.
        rows: their number; None: any.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is damaged, was not written by `write`, or holds something else.
    """
    with _open_written(path) as file:
        facts, digests = _read_facts(file)
        number = file.metadata.num_rows
        if rows is not None and number != rows:
            raise ValueError(f"{number} rows, expected {rows}")
        table = read_columns(file, None if columns is None else list(columns))
        if {name: digests.get(name) for name in table.column_names} != _digest_columns(table):
            raise ValueError("damaged")
        for name, kind in (columns or {}).items():
            gaps = table[name].null_count and kind is not float  # where they are NaN
            if kind is not bytes and (gaps or not _KINDS[kind](table[name].type)):
                raise ValueError(f"the column {name} holds not only {kind.__name__}")
        # What the file says about types of pandas is not needed.
        return table.to_pandas(ignore_metadata=True), facts


def read_facts(path: Path) -> dict[str, Any]:
    """Facts in a file that `write` wrote; raises as `read`."""
    with _open_written(path) as file:
        return _read_facts(file)[0]


def _read_facts(file: pq.ParquetFile) -> tuple[dict[str, Any], dict[str, str]]:
    metadata = file.schema_arrow.metadata or {}
    if not {_FACTS, _FACTS + b".sha256"} <= metadata.keys():
        raise ValueError("made by another program or version")
    content = metadata[_FACTS]
    if hashlib.sha256(content).digest() != metadata[_FACTS + b".sha256"]:
        raise ValueError("damaged")
    found = parse_json(content)
    return dict(found["facts"]), dict(found["columns"])


@contextmanager
def _open_written(path: Path) -> Iterator[pq.ParquetFile]:
    with (
        open_regular(path) as stream,
        refuse_damage(path, "not a file of tff", "delete it and run again"),
    ):
        yield open_parquet(stream)


@contextmanager
def refuse_damage(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Turn errors of reading a Parquet file into "PATH: WHAT (reason); REMEDY"."""
    try:
        yield
    except Exception as error:  # forged bytes let the readers raise nearly anything
        reason = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        raise ValueError(f"{path}: {what} ({reason}); {remedy}") from None


def open_parquet(stream: IO[bytes]) -> pq.ParquetFile:
    """Open a Parquet file so that repeated texts and bytes are not unfolded while it is read.

    Where there is more than Arrow holds in that way, they are: the file is no small one then.
    """
    metadata = pq.ParquetFile(stream).metadata
    leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    size = stream.seek(0, os.SEEK_END)
    # Facts about single columns are not asked for: damaged ones end the process (pyarrow 26).
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if size > _ALWAYS_ALLOWED and any(group.total_byte_size > _FOLDED for group in groups):
        texts = []
    file = pq.ParquetFile(
        stream, read_dictionary=texts, page_checksum_verification=True,
        arrow_extensions_enabled=False,
    )  # fmt: skip
    file.size = size
    return file


def read_columns(
    file: pq.ParquetFile, columns: Sequence[str] | None, group: int | None = None
) -> pa.Table:
    """Columns of a file of `open_parquet`.

    Args:
        file: the file.
        columns: names; None: all.
        group: number of a row group; None: all.

    Raises:
        ValueError: a column is missing or there twice, there are more rows than any set has, or
            the values are far larger than the file.
        pa.ArrowException, OSError: the file is damaged.
    """
    schema = file.schema_arrow
    columns = schema.names if columns is None else columns
    for name in columns:
        if schema.names.count(name) != 1:
            raise ValueError(f"the column {name} is missing, or there twice")
        _require_plain(name, schema.field(name).type)
    groups = range(file.metadata.num_row_groups) if group is None else [group]
    parts = [file.metadata.row_group(i) for i in groups]
    rows = sum(part.num_rows for part in parts)
    if rows > _ROWS:
        raise ValueError(f"{rows:,} rows are more than {_ROWS:,}")
    packed = file.size
    allowed = max(_ALWAYS_ALLOWED, _RATIO * packed)

    def require(size: int) -> None:
        if size > allowed:
            raise ValueError(f"its {packed:,} bytes would unfold to {size:,}")

    require(sum(part.total_byte_size for part in parts))
    require(rows * sum(_find_width(schema.field(name).type) for name in columns))
    table = file.read_row_groups(list(groups), columns=list(columns))
    if table.num_rows != rows:
        raise ValueError(f"{table.num_rows} rows, {rows} are declared")
    require(sum(_measure(chunk) for column in table.columns for chunk in column.chunks))
    return _unfold(table)


def _require_plain(name: str, found: pa.DataType) -> None:
    """Refuse lists: how many values they hold is known only when they are read."""
    if pa.types.is_struct(found):
        for field in found:
            _require_plain(name, field.type)
    elif pa.types.is_nested(found):
        raise ValueError(f"the column {name} holds {found}")


def _find_width(found: pa.DataType) -> int:
    """Bytes of a value of fixed size."""
    if pa.types.is_struct(found):
        return sum(_find_width(field.type) for field in found)
    return found.byte_width if pa.types.is_fixed_size_binary(found) else 8


def _measure(values: pa.Array) -> int:
    """Bytes of the texts in a column, once each value is unfolded."""
    if pa.types.is_struct(values.type):
        return sum(_measure(values.field(i)) for i in range(values.type.num_fields))
    if not pa.types.is_dictionary(values.type):
        return 0  # as large as in the file
    sizes = pc.binary_length(values.dictionary).cast(pa.int64())
    return pc.sum(sizes.take(values.indices)).as_py() or 0


def _unfold(table: pa.Table) -> pa.Table:
    """Repeated values written out, and one type of text."""
    for i, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        kind = pa.large_string() if pa.types.is_string(kind) else kind
        table = table.set_column(i, field.name, table[i].cast(kind))
    return table


def _digest_columns(table: pa.Table) -> dict[str, str]:
    """Digest of the values of each column, however they are stored."""
    return {name: _digest(table[name]) for name in table.column_names}


def _digest(column: pa.ChunkedArray) -> str:
    state = hashlib.sha256(f"{column.type} {len(column)}".encode())
    state.update(column.is_valid().to_numpy().tobytes())
    if pa.types.is_primitive(column.type):
        state.update(column.drop_null().to_numpy().tobytes())
    else:
        folded = column.combine_chunks().dictionary_encode()
        state.update(folded.indices.drop_null().to_numpy().tobytes())
        values = folded.dictionary.to_pylist()
        text = pa.types.is_large_string(column.type)
        state.update(json.dumps(values).encode() if text else b"".join(values))
    return state.hexdigest()
