"""What programs read: names of files, tables without formulas, values of strict JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def file_name(name: str) -> str:
    """The name without what would lead out of the folder or hide the file."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"


def free(folder: Path, analysis: str, name: str, ending: str) -> Path:
    """A path not taken yet: where two analyses use one name, the second bears its analysis."""
    path = folder / f"{file_name(name)}{ending}"
    return path if not path.exists() else folder / f"{file_name(f'{analysis}-{name}')}{ending}"


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front."""

    def guard(cell: object) -> object:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r")) else cell

    text = table.select_dtypes(exclude=["number", "bool"]).columns
    safe = table.assign(**{c: table[c].astype(object).map(guard) for c in text})
    return safe.rename(columns=guard)


def plain(value: Any) -> Any:
    """Only what strict JSON has; what is not a finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
