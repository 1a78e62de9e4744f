"""The report in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tff.report.page import find_numeric, format_cells, split_constants
from tff.safe_text import make_printable
from tff.types import Result

ROWS_SHOWN, COLUMNS_SHOWN = 15, 7


def show(results: Mapping[str, Result], page: Path, console: Console | None = None) -> None:
    """Print findings, warnings and one small table of each result, then the path of the page."""
    console = console or Console()
    for name, result in results.items():
        console.print()
        console.print(_text(result.title or name, "bold"))
        for finding in result.findings:
            console.print(_text(f"• {finding}"))
        for alarm in result.alarms:
            console.print(_text(f"! {alarm}", "bold red"))
        for warning in result.warnings:
            console.print(_text(f"! {warning}", "yellow"))
        table = _compact(result)
        if len(table):
            console.print(_grid(table))
    console.print()
    console.print(_text(f"Report: {page}"), soft_wrap=True)


def _text(words: str, style: str = "") -> Text:
    """Plain text: a name may hold brackets, which are markup, or control characters."""
    return Text(make_printable(words), style=style)


def _compact(result: Result) -> pd.DataFrame:
    """The first small table without its columns of interval ends, or else the scalars."""
    small = [table for table in result.tables.values() if 0 < len(table) <= ROWS_SHOWN]
    scalars = pd.DataFrame(result.scalars.items(), columns=["scalar", "value"])
    table = split_constants(small[0])[1] if small else scalars.head(ROWS_SHOWN)
    columns = [c for c in table if not str(c).endswith(("_low", "_high"))]
    return table[columns[:COLUMNS_SHOWN]]


def _grid(table: pd.DataFrame) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for column, right in zip(table, find_numeric(table), strict=True):
        grid.add_column(_text(str(column)), justify="right" if right else "left")
    for row in format_cells(table):
        grid.add_row(*map(_text, row))
    return grid
