"""Foreign text in CSV files and terminals: shown, and never run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

# What begins a formula: at the start of a cell, or behind what a spreadsheet of another language
# takes for the end of one. The wide signs are those of East Asian keyboards.
_SIGNS = "=+\\-@\\t\uff1d\uff0b\uff0d\uff20"
_START = '((?:^|[;\\t])"*)'
# Apostrophes that were there before get one more, so that one can be taken away.
_FORMULA = re.compile(rf"{_START}(?='*[{_SIGNS}])")
_GUARDED = re.compile(rf"{_START}'(?='*[{_SIGNS}])")
# Control characters, marks that turn the direction of text, other ends of lines, half characters.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def make_printable(text: str, lines: bool = False) -> str:
    r"""Text as it may stand in a terminal or a page: `\x1b` for an escape character, and so on.

    Names of files and classes may hold sequences that clear a screen, write over what stands there,
    make a link, or turn the direction of what follows.

    Args:
        text: of anyone.
        lines: whether ends of lines stay; else they are made visible too.
    """

    def code(match: re.Match[str]) -> str:
        return match[0].encode("unicode_escape").decode()

    text = _UNSEEN.sub(code, text)
    return text if lines else text.replace("\n", "\\n")


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front.

    Control characters are made visible: an end of line in a name would begin a row of its own.
    """

    def guard(cell: object) -> object:
        return _FORMULA.sub(r"\1'", make_printable(cell)) if isinstance(cell, str) else cell

    text = table.select_dtypes(exclude=["number", "bool"]).columns
    safe = table.assign(**{c: table[c].astype(object).map(guard) for c in text})
    return safe.rename(columns=guard)


def read_table(path: Path, names: Iterable[str]) -> pd.DataFrame:
    """A table of a report, its names without the apostrophes of `escape_formulas`.

    Args:
        path: of a CSV file.
        names: columns that hold names and are text for sure: a generator may be called 001 or NA.

    Raises:
        ValueError: it is no table of a report.
    """
    try:
        # Plain text, whatever the name ends with: pandas would unfold `.zip` and `.gz`.
        header = pd.read_csv(path, nrows=0, compression=None)
        text = [name for name in names if name in header]
        numbers = {str(c): [""] for c in header if c not in text}
        types = dict.fromkeys(text, str)
        table = pd.read_csv(
            path, dtype=types, keep_default_na=False, na_values=numbers, compression=None
        )
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: cannot be read as a table of a report ({error})") from None
    plain = {c: table[c].map(lambda cell: _GUARDED.sub(r"\1", cell)) for c in text}
    return table.assign(**plain)
