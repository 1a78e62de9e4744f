"""The terminal shows findings, small tables and the path, as they are."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from tff.report.terminal import show
from tff.types import Result


def test_names_are_shown_as_they_are(
    tmp_path: Path, results: dict[str, Result], hostile: str
) -> None:
    file = io.StringIO()
    page = tmp_path / ("long" * 60) / "index.html"
    show(results, page, Console(file=file, width=150))
    text = file.getvalue()
    assert text.count(hostile) == 4  # title, finding, warning, cell
    assert "ranking.csv" not in text
    assert text.rstrip("\n").splitlines()[-1] == f"Report: {page}"
