"""The report as a folder: the page, its tables and figures, and `summary.json`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import jinja2

from tff.atomic import beside, remove_abandoned
from tff.report.files import plain
from tff.report.section import section
from tff.safe_text import visible
from tff.types import Result


def write(results: Mapping[str, Result], folder: Path, context: Mapping[str, object]) -> Path:
    """Writes the page, tables, figures and `summary.json`; replaces an older report as a whole.

    With several processes, call it on one of them.

    Args:
        results: name of an analysis -> what it found, in the order of the page.
        folder: becomes the report; may hold an older one.
        context: what the page ends with and `summary.json` holds besides the scalars: protocol,
            versions, seeds, checkpoint, command; values may be mappings and lists.

    Returns:
        The path of the page.

    Raises:
        FileExistsError: the folder holds something else than a report.
    """
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / "summary.json").exists():
        raise FileExistsError(f"{folder} is neither empty nor an older report; choose another one")
    remove_abandoned(folder.parent)
    new, old = beside(folder), beside(folder)
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


def _fill(folder: Path, results: Mapping[str, Result], context: Mapping[str, object]) -> None:
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    sections = [section(name, result, folder) for name, result in results.items()]
    scalars = {f"{a}/{s}": v for a, r in results.items() for s, v in r.scalars.items()}
    summary = json.dumps(plain({**context, "scalars": scalars}), indent=2, allow_nan=False)
    (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    page = _template().render(sections=sections, context=plain(context))
    (folder / "index.html").write_text(page, encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    return environment.get_template("page.html")


def _visible(value: object) -> object:
    """Text of others; what a macro has made of it is safe already."""
    return visible(value, lines=True) if type(value) is str else value
