"""One result: its files, and what the page shows of them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tff.report.cells import cells, constants_apart, numeric
from tff.report.figures import darken, data_uri, render_png, render_svg
from tff.report.files import file_name, free
from tff.safe_text import without_formulas
from tff.types import Result

ROWS_SHOWN = 25
SVG_LIMIT = 1_000_000  # bytes; above, a figure is a photograph and goes into the page as PNG


def section(name: str, result: Result, folder: Path) -> dict[str, object]:
    """Writes the files of one result and collects what the page shows of them."""
    return {
        "id": file_name(name),
        "result": result,
        "about": [text for text in re.split(r"\n\s*\n", result.about) if text.strip()],
        "tables": [
            _table(key, table, free(folder / "tables", name, key, ".csv"))
            for key, table in result.tables.items()
        ],
        "figures": [
            {
                "key": key,
                "caption": result.captions.get(key, ""),
                **_figure(figure, free(folder / "figures", name, key, ".svg")),
            }
            for key, figure in result.figures.items()
        ],
    }


def _table(name: str, table: pd.DataFrame, path: Path) -> dict[str, object]:
    without_formulas(table).to_csv(
        path, index=False
    )  # pandas writes floats so that they round-trip
    same, rest = constants_apart(table)
    return {
        "name": name,
        "path": f"tables/{path.name}",
        "rows": len(table),
        "same": same,
        "columns": list(rest),
        "numeric": numeric(rest),
        "cells": cells(rest.head(ROWS_SHOWN)),
    }


def _figure(figure: Figure, path: Path) -> dict[str, object]:
    svg, png = render_svg(figure), render_png(figure)
    path.write_bytes(svg)
    path.with_suffix(".png").write_bytes(png)
    small = len(svg) < SVG_LIMIT
    return {
        "path": f"figures/{path.stem}",
        "light": data_uri(svg, "svg+xml") if small else data_uri(png, "png"),
        "dark": data_uri(darken(svg), "svg+xml") if small else None,
    }
