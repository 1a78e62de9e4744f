"""The files of results are complete, and lie where they should."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tff.report.page import write_section
from tff.types import Result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tables", "figures"):
        (tmp_path / "r" / name).mkdir(parents=True)
    return tmp_path / "r"


def test_files_are_complete_and_stay_inside(folder: Path, results: dict[str, Result]) -> None:
    table = pd.DataFrame({"x": [1]})
    more = {
        "a": Result("A", tables={"t": table, "../../evil": table}),
        "b": Result("B", tables={"t": table + 1}),
    }
    for name, result in {**results, **more}.items():
        write_section(name, result, folder)
    names = {path.name for path in (folder / "tables").iterdir()}
    assert {"ranking.csv", "ablation.csv", "t.csv", "b-t.csv"} < names
    assert len(names) == 5
    assert list(folder.parent.iterdir()) == [folder]
    figures = {path.suffix for path in (folder / "figures").iterdir() if path.stem == "top"}
    assert figures == {".svg", ".png"}
