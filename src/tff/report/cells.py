"""Tables as a reader wants them: few columns, rounded numbers. The CSV holds every digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd


def constants_apart(table: pd.DataFrame) -> tuple[dict[str, str], pd.DataFrame]:
    """Takes out the columns that say the same in every row, such as the protocol."""
    same = [c for c in table if len(table) > 2 and table[c].astype(str).nunique() == 1]
    if len(same) == table.shape[1]:
        return {}, table
    return {str(c): cell(table[c].iloc[0]) for c in same}, table.drop(columns=same)


def cells(table: pd.DataFrame) -> list[list[str]]:
    """The rows of a table."""
    return [[cell(value) for value in row] for row in table.itertuples(index=False, name=None)]


def numeric(table: pd.DataFrame) -> list[bool]:
    """Which columns hold numbers, to be aligned at the right."""
    return [pd.api.types.is_numeric_dtype(table[c]) for c in table]


def cell(value: Any) -> str:
    """One value; a dash for a missing one."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return "\N{EN DASH}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, float | np.floating):
        return str(value)
    number = float(value)
    if 1 < abs(number) < 1e9 and number.is_integer():
        return f"{number:.0f}"
    return f"{number:.3f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.1e}"
