"""Foreign text in CSV files, terminals and logs: shown, but never executed."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes a second, and errors need only `make_printable`
    import pandas as pd

from tff.foreign_files import read_file

# A formula starts with one of these, at the start of a cell or after a separator of another locale.
# The wide signs are those of East Asian keyboards.
_SIGNS = "=+\\-@\\t\uff1d\uff0b\uff0d\uff20"
_START = '((?:^|[;\\t])"*)'
# Existing apostrophes get one more, so that exactly one can be removed again.
_FORMULA = re.compile(rf"{_START}(?='*[{_SIGNS}])")
_GUARDED = re.compile(rf"{_START}'(?='*[{_SIGNS}])")
# Control characters, direction marks, unusual line ends, lone surrogates.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

_TABLE_LIMIT = 1 << 27  # bytes
_COLUMNS_LIMIT = 10_000  # each takes kilobytes, however short it is


def make_printable(text: str, lines: bool = False) -> str:
    r"""Escape control characters in text for a terminal or a page: `\x1b`, and so on.

    Names of files and classes may contain sequences that clear the screen, overwrite text, make a
    link, or change the direction of what follows.

    Args:
        text: from any source.
        lines: keep line ends; otherwise they are escaped, too.
    """
    text = _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return text if lines else text.replace("\n", "\\n")


class _PrintableRecord(logging.LogRecord):
    """An entry of a log whose message shows control characters."""

    def getMessage(self) -> str:  # noqa: N802
        return make_printable(super().getMessage(), lines=True)


_format_warning = warnings.formatwarning


def _format_printable_warning(*arguments: Any, **options: Any) -> str:
    return make_printable(_format_warning(*arguments, **options), lines=True)


def make_logs_printable() -> None:
    """Show control characters in all logs and warnings of this process, those of libraries too."""
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _format_printable_warning


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Put an apostrophe before text that a spreadsheet would execute as a formula.

    Control characters are escaped: a line end in a name would start a new row.
    """

    def guard(cell: object) -> object:
        return _FORMULA.sub(r"\1'", make_printable(cell)) if isinstance(cell, str) else cell

    text = table.select_dtypes(exclude=["number", "bool"]).columns
    safe = table.assign(**{c: table[c].astype(object).map(guard) for c in text})
    return safe.rename(columns=guard)


def read_table(path: Path, names: Iterable[str]) -> pd.DataFrame:
    """Read a table of a report, and remove the apostrophes of `escape_formulas` from names.

    Args:
        path: of a CSV file.
        names: columns that are read as text: a generator may be called 001 or NA.

    Raises:
        ValueError: the file is not a table of a report.
    """
    import pandas as pd

    try:
        # Bytes, since pandas would decompress files named `.zip` and `.gz`.
        content = read_file(path, _TABLE_LIMIT)
        if content.partition(b"\n")[0].count(b",") >= _COLUMNS_LIMIT:
            raise ValueError(f"{_COLUMNS_LIMIT} columns or more")
        header = pd.read_csv(BytesIO(content), nrows=0)
        text = [name for name in names if name in header]
        numbers = {str(c): [""] for c in header if c not in text}
        types = dict.fromkeys(text, str)
        table = pd.read_csv(BytesIO(content), dtype=types, keep_default_na=False, na_values=numbers)
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise ValueError(f"{path}: cannot be read as a table of a report ({error})") from None
    plain = {c: table[c].map(lambda cell: _GUARDED.sub(r"\1", cell)) for c in text}
    return table.assign(**plain)
