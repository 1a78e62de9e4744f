"""`results.json`: all tables and scalars of a report, for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tff.foreign_files import read_json
from tff.safe_text import read_table
from tff.strict_json import dumps, to_json

FILE = "results.json"
#: Column of tables from an analysis that used images of the training.
TRAINED_IMAGES = "trained_images"
#: Errors of JSON that holds other values than a report.
_DAMAGED = (ValueError, AttributeError, TypeError, KeyError, OSError)
#: Kind of a column -> what it is called, and whether a column is of it.
_KINDS: dict[type, tuple[str, Callable[[pd.Series[Any]], bool]]] = {
    str: ("text", lambda column: all(isinstance(cell, str) for cell in column)),
    bool: ("true and false", pd.api.types.is_bool_dtype),
    int: ("integers", pd.api.types.is_integer_dtype),
    float: ("finite numbers", lambda column: _is_numeric(column) and not np.isinf(column).any()),
}


def _is_numeric(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


@dataclass(frozen=True)
class Results:
    """Numbers of one report.

    Attributes:
        path: file or folder that they were read from.
        tables: name of the CSV file (without ending) -> rows, in the types that they were written
            in.
        scalars: `analysis/name` -> number.
    """

    path: Path
    tables: dict[str, pd.DataFrame]
    scalars: dict[str, float]

    def table(
        self, name: str, columns: Mapping[str, type], optional: Mapping[str, type] | None = None
    ) -> pd.DataFrame | None:
        """One table; None if the report has none of this name.

        Args:
            name: of the table.
            columns: those that it must have -> `str`, `bool`, `int` or `float` (NaN allowed).
            optional: the same for columns that it may have.

        Raises:
            ValueError: one of the columns is missing or of another type, or there are no rows.
        """
        table = self.tables.get(name)
        if table is None:
            return None
        if missing := [column for column in columns if column not in table]:
            raise ValueError(f"{self.path}: table {name} has no column {', '.join(missing)}")
        if table.empty:
            raise ValueError(f"{self.path}: table {name} has no rows")
        for column, kind in {**columns, **(optional or {})}.items():
            words, fits = _KINDS[kind]
            if column in table and not fits(table[column]):
                raise ValueError(
                    f"{self.path}: table {name}: column {column} holds not only {words}"
                )
        return table


def write_results(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    scalars: Mapping[str, float],
    context: Mapping[str, object],
) -> None:
    """Write `results.json`: `context`, `scalars`, and `tables` column by column.

    A column is `{"type": TYPE, "values": [...]}`. Types are `bool`, `int64`, `float32`, `float64`,
    `text` and, for a column of several of these, `mixed`. Missing values and NaN are null, infinite
    numbers the texts `inf` and `-inf`.

    Args:
        folder: of the report.
        tables: by the name of their CSV file.
        scalars: `analysis/name` -> number.
        context: how the results were made; mappings and lists allowed.
    """
    content = {
        "context": to_json(context),
        "scalars": {name: _encode_number(value) for name, value in scalars.items()},
        "tables": {n: {str(c): _encode(table[c]) for c in table} for n, table in tables.items()},
    }
    (folder / FILE).write_text(dumps(content) + "\n", encoding="utf-8")


def read_results(report: Path) -> Results:
    """Tables and scalars of a report; empty where there is no report.

    Raises:
        ValueError: the report is damaged; the message names the file.
    """
    path = report / FILE
    try:
        content = read_json(path)
        tables = {name: _decode_table(table) for name, table in content["tables"].items()}
        scalars = {name: _decode_number(v) for name, v in content["scalars"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return _read_version_0_1(report)
    except _DAMAGED as error:
        raise ValueError(f"{path}: cannot be read as results of a report ({error!r})") from None
    return Results(path, tables, scalars)


def find_trained_images(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """An alarm if numbers of a table come from images of the training (`TRAINED_IMAGES`)."""
    columns = [table[TRAINED_IMAGES] for table in tables.values() if TRAINED_IMAGES in table]
    if not any((column == "included").any() for column in columns):
        return []
    return [
        "Some of the numbers come from images that the detector was trained or selected on "
        "(trained_images=include): they say little about images that are new to it."
    ]


def _encode(column: pd.Series[Any]) -> dict[str, object]:
    name, values = str(column.dtype), column.tolist()
    if name == "bool":
        return {"type": "bool", "values": values}
    if pd.api.types.is_integer_dtype(column) and not column.hasnans:
        return {"type": "int64", "values": values}
    if pd.api.types.is_float_dtype(column):
        known = name if name in ("float32", "float64") else "float64"
        return {"type": known, "values": [_encode_number(value) for value in values]}
    plain = [None if value is pd.NA else to_json(value) for value in values]
    text = all(value is None or isinstance(value, str) for value in plain)
    return {"type": "text" if text else "mixed", "values": plain}


def _decode_table(columns: Mapping[str, Any]) -> pd.DataFrame:
    found = {name: _decode(**column) for name, column in columns.items()}
    if len({len(column) for column in found.values()}) > 1:
        raise ValueError("columns of different lengths")
    return pd.DataFrame(found)


def _decode(type: str, values: list[Any]) -> pd.Series[Any]:
    if type in ("float32", "float64"):
        return pd.Series([_decode_number(value) for value in values], dtype=type)
    dtype, allowed = _TYPES[type]
    if not all(isinstance(value, allowed) for value in values):
        raise ValueError(f"a value is not of type {type}")
    column: pd.Series[Any] = pd.Series(values, dtype=dtype)
    return column


#: Type in the file -> dtype of the column, and what its values are in JSON.
_TYPES: dict[str, tuple[Any, Any]] = {
    "bool": ("bool", bool),
    "int64": ("int64", int),
    "text": ("str", str | None),
    "mixed": (object, bool | int | float | str | None),
}


def _encode_number(value: Any) -> float | str | None:
    number: float = value.item() if hasattr(value, "item") else value  # int stays int
    return number if math.isfinite(number) else None if math.isnan(number) else str(number)


def _decode_number(value: object) -> float:
    if isinstance(value, int | float):
        return value
    if value is None or value in ("inf", "-inf"):
        return float(value or "nan")
    raise ValueError(f"{value!r} is not a number")


#: Tables of version 0.1 that comparisons read, and their columns of text: a generator may be called
#: 001 or NA.
_COMPARED = ("ablation", "ablation_summary", "conditional_share", "detection", "ranking")
_TEXT = (
    "layer", "generator", "cue", "ablation", "protocol", "crop", "resize", "weights", "relevance",
    "same_as", "checkpoint", "where",
)  # fmt: skip


def _read_version_0_1(report: Path) -> Results:
    """Reports of version 0.1 have no `results.json`, but the same numbers in CSV."""
    paths = {name: report / "tables" / f"{name}.csv" for name in _COMPARED}
    tables = {name: read_table(path, _TEXT) for name, path in paths.items() if path.exists()}
    summary = report / "summary.json"
    try:
        found = read_json(summary) if summary.exists() else {}
        scalars = {name: _decode_number(v) for name, v in found.get("scalars", {}).items()}
    except _DAMAGED as error:
        raise ValueError(f"{summary}: cannot be read as a summary ({error})") from None
    return Results(report, tables, scalars)
