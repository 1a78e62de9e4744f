"""The report: a page, its tables and figures, `summary.json` and `results.json` in one folder."""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tff.atomic import remove_abandoned, temporary_path
from tff.plots.style import DARK, STYLE
from tff.report.results import write_results
from tff.safe_text import escape_formulas, make_printable
from tff.strict_json import dumps, to_json
from tff.types import Result

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "numpy", "scipy", "scikit-learn", "tff")
ROWS_SHOWN = 25
_CELL = 500  # characters of a text that are shown; CSV and JSON hold all
SVG_LIMIT = 1_000_000  # bytes; above, a figure is a photograph and goes into the page as PNG


def write(results: Mapping[str, Result], folder: Path, context: Mapping[str, object]) -> Path:
    """Write the report into a folder; an older report there is replaced in one step.

    With several processes, call it on one of them.

    Args:
        results: name of an analysis -> its result, in the order of the page.
        folder: of the report.
        context: facts that the page ends with and the JSON files hold besides the numbers:
            protocol, versions, seeds, checkpoint, command; values may be mappings and lists.

    Returns:
        Path of the page.

    Raises:
        FileExistsError: the folder holds other files than those of a report.
    """
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / "summary.json").exists():
        raise FileExistsError(f"{folder} is neither empty nor an older report; choose another one")
    remove_abandoned(folder.parent)
    new, old = temporary_path(folder), temporary_path(folder)
    try:
        _fill(new, results, context)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        for rest in (new, old):
            shutil.rmtree(rest, ignore_errors=True)
    return folder / "index.html"


def collect_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _fill(folder: Path, results: Mapping[str, Result], context: Mapping[str, object]) -> None:
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    sections = [write_section(name, result, folder) for name, result in results.items()]
    tables = {shown["file"]: shown["table"] for one in sections for shown in one["tables"]}
    scalars = {f"{a}/{s}": v for a, r in results.items() for s, v in r.scalars.items()}
    write_results(folder, tables, scalars, context)
    summary = dumps({**context, "scalars": scalars}, indent=2)
    (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_escape,
    )  # fmt: skip
    template = environment.get_template("page.html")
    page = template.render(
        lead=describe_transfer(results), sections=sections, context=to_json(context),
    )  # fmt: skip
    (folder / "index.html").write_text(page, encoding="utf-8")


#: ROC area from which a detector is said to recognize images, rather than to do little better than
#: guessing.
RECOGNIZED = 0.7
_QUESTION = (
    "Detectors that have learned from the images of one generator often recognize those of others."
)


def describe_transfer(results: Mapping[str, Result]) -> str:
    """Whether a detector recognizes images of generators never seen, by its table `detection`.

    The general question without that table, and where it is of several checkpoints.
    """
    table = results["detection"].tables.get("detection") if "detection" in results else None
    if table is None or "checkpoint" in table:
        return _QUESTION
    unseen = table[~table["seen"].astype(bool)]
    each = unseen[unseen["images"].notna()]
    mean = each if len(each) == 1 else unseen[unseen["images"].isna()]  # whose first row it is
    if each.empty or mean["auc_low"].isna().iloc[0]:
        return (
            f"{_QUESTION} Whether this one does is unknown: it was not tested on real and "
            "generated images of a generator that it has never seen."
        )
    auc, low, high = mean[["auc", "auc_low", "auc_high"]].iloc[0]
    better, worse = int((each["auc_low"] > 0.5).sum()), int((each["auc_high"] < 0.5).sum())
    of_each = f"; above chance on {better} of {len(each)} generators, below it on {worse}"
    figures = f"AUC {auc:.2f} ({low:.2f} to {high:.2f}){of_each if len(each) > 1 else ''}"
    if not low > 0.5:
        return (
            f"{_QUESTION} This one does not, as far as its test images tell ({figures}). So no "
            "channel below is known to transfer."
        )
    if auc < RECOGNIZED:
        return (
            f"{_QUESTION} This one does little better than guessing on generators that it has "
            f"never seen ({figures}). So little carries over."
        )
    return f"{_QUESTION} So does this one ({figures}). Something must carry over."


def _escape(value: object) -> object:
    """Escape control characters in plain text; the output of a macro is safe already."""
    return make_printable(value, lines=True) if type(value) is str else value


def write_section(name: str, result: Result, folder: Path) -> dict[str, Any]:
    """Write tables and figures of one result; return the variables of its section of the page."""
    return {
        "id": safe_name(name),
        "result": result,
        "about": [text for text in re.split(r"\n\s*\n", result.about) if text.strip()],
        "tables": [
            _write_table(key, table, choose_path(folder / "tables", name, key, ".csv"))
            for key, table in result.tables.items()
        ],
        "figures": [
            {"key": key, "caption": result.captions.get(key, "")}
            | _write_figure(figure, choose_path(folder / "figures", name, key, ".svg"))
            for key, figure in result.figures.items()
        ],
    }


def _write_table(name: str, table: pd.DataFrame, path: Path) -> dict[str, object]:
    escape_formulas(table).to_csv(path, index=False)  # pandas writes floats so that they round-trip
    same, rest = split_constants(table)
    return {
        "name": name,
        "file": path.stem,
        "table": table,
        "rows": len(table),
        "same": same,
        "columns": list(rest),
        "numeric": find_numeric(rest),
        "cells": format_cells(rest.head(ROWS_SHOWN)),
    }


def _write_figure(figure: Figure, path: Path) -> dict[str, str | None]:
    svg, png = render_svg(figure), render_png(figure)
    path.write_bytes(svg)
    path.with_suffix(".png").write_bytes(png)
    small = len(svg) < SVG_LIMIT
    return {
        "path": f"figures/{path.stem}",
        "light": data_uri(svg, "svg+xml") if small else data_uri(png, "png"),
        "dark": data_uri(darken(svg), "svg+xml") if small else None,
    }


_NAME_LIMIT = 200  # bytes; file systems take 255, with endings and prefixes


def choose_path(folder: Path, analysis: str, name: str, ending: str) -> Path:
    """A free path for this name; where it is taken, the name begins with that of the analysis."""
    longer = f"{analysis}-{name}"
    names = chain([name, longer], (f"{longer}-{n}" for n in count(2)))
    paths = (folder / f"{safe_name(one)}{ending}" for one in names)
    return next(path for path in paths if not path.exists())


def safe_name(name: str) -> str:
    """File name that stays in its folder, is not hidden, and is short enough for any disk."""
    safe = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "_"
    if len(safe.encode()) <= _NAME_LIMIT:
        return safe
    short = safe.encode()[:_NAME_LIMIT].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def split_constants(table: pd.DataFrame) -> tuple[dict[str, str], pd.DataFrame]:
    """Columns with the same value in every row, such as the protocol, and the rest of the table.

    Tables of one or two rows, and of constant columns only, are not split.
    """
    same = [c for c in table if len(table) > 2 and table[c].astype(str).nunique() == 1]
    if len(same) == table.shape[1]:
        return {}, table
    return {str(c): format_value(table[c].iloc[0]) for c in same}, table.drop(columns=same)


def find_numeric(table: pd.DataFrame) -> list[bool]:
    """Whether each column holds numbers, which are aligned at the right."""
    return [pd.api.types.is_numeric_dtype(table[c]) for c in table]


def format_cells(table: pd.DataFrame) -> list[list[str]]:
    """Rows of formatted values."""
    return [[format_value(value) for value in row] for row in table.itertuples(False, None)]


def format_value(value: Any) -> str:
    """A value for readers: numbers rounded, yes or no, a dash where it is missing."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return "\N{EN DASH}"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, float | np.floating):
        text = str(value)
        return text if len(text) <= _CELL else f"{text[:_CELL]}…"
    number = float(value)
    if 1 < abs(number) < 1e9 and number.is_integer():
        return f"{number:.0f}"
    return f"{number:.3f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.1e}"


# The reader's own sans-serif font: few machines have those that matplotlib names.
_FONTS = b"-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


def render_svg(figure: Figure) -> bytes:
    """SVG of the figure, its text as text in the reader's font."""
    # XML may not hold control characters, not even escaped ones: a name with one in it would break
    # the figure.
    drawn = make_printable(_render(figure, "svg", "Date").decode(), lines=True).encode()
    return re.sub(rb"'DejaVu Sans'[^;\"]*", _FONTS, drawn)


def render_png(figure: Figure) -> bytes:
    """PNG of the figure."""
    return _render(figure, "png", "Software")


def _render(figure: Figure, form: str, omitted: str) -> bytes:
    """The file without the metadata that differs between equal figures: date or version."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=form, dpi=200, metadata={omitted: None})
    return buffer.getvalue()


def darken(svg: bytes) -> bytes:
    """The same figure in the colors of a dark page."""
    text = re.sub("#[0-9a-f]{6}", lambda color: DARK.get(color[0], color[0]), svg.decode())
    return text.encode()


def data_uri(picture: bytes, form: str) -> str:
    """URI that contains the picture; `form` is "svg+xml" or "png"."""
    return f"data:image/{form};base64,{base64.b64encode(picture).decode()}"
