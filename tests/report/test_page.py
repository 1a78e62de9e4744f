"""The page is safe and complete, replaces an older one as a whole, and nothing else."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tff.report.page import write
from tff.types import Result

CHROMIUM = Path("/usr/bin/chromium")
Results = dict[str, Result]
Context = dict[str, object]


class Page(HTMLParser):
    """Collects the tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "srcset", "href")]
        assert not any(k.startswith("on") for k, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.words += data


def test_foreign_text_stays_text_and_no_address_leaves_the_folder(
    tmp_path: Path, results: Results, context: Context, hostile: str
) -> None:
    path = write(results, tmp_path / "report", context)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert page.words.count(hostile) >= 5  # title, about, finding, warning, cell: unchanged
    for address in page.addresses:
        if address.startswith("data:image/svg+xml;base64,"):
            assert b"<script" not in base64.b64decode(address.split(",")[1])
        elif not address.startswith(("data:", "#")):
            assert (path.parent / address).is_file()
    assert not re.search(r"https?://|url\(|@import", text)


def test_order_of_the_page(tmp_path: Path, results: Results, context: Context) -> None:
    text = write(results, tmp_path / "report", context).read_text(encoding="utf-8")
    parts = ["<style>\n:root {", "<h1>", 'id="found"', "The first channel leads"]
    parts += ["Before you trust", 'id="idea"', 'id="ranking"', "<p>Second.</p>", "The top."]
    parts += ["first 25 of 40 rows", 'id="words"', 'id="protocol"', "ECCV 2022"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_summary_is_strict_json(
    tmp_path: Path, results: Results, context: Context, hostile: str
) -> None:
    write(results, tmp_path / "r", {**context, "path": tmp_path, "n": np.int64(3)})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    summary = json.loads((tmp_path / "r/summary.json").read_text(), parse_constant=refuse)
    assert summary["scalars"] == {
        "ranking/k": 3.0,
        "ranking/none": None,
        "ranking/inf": None,
        f"{hostile}/numpy": 0.5,
    }
    assert summary["protocol"]["crop"] == 224
    assert summary["bad"] is None
    assert summary["n"] == 3


def test_failure_keeps_the_old_report(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    write(results, folder, {"run": "old"})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    broken = {**results, "late": Result("Late", figures={"f": None})}
    with pytest.raises(AttributeError):
        write(broken, folder, {"run": "new"})

    real, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError("disk full")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(OSError, match="disk full"):
            write(results, folder, {"run": "new"})
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert list(tmp_path.iterdir()) == [folder]

    write({"one": Result("One")}, folder, {"run": "new"})
    assert json.loads((folder / "summary.json").read_text())["run"] == "new"
    assert not list((folder / "tables").iterdir())  # nothing of the old one is left
    assert list(tmp_path.iterdir()) == [folder]


def test_never_replaces_what_is_not_a_report(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="choose another"):
        write({}, tmp_path, {})
    assert (tmp_path / "thesis.tex").exists()


def test_equal_results_give_the_same_page(
    tmp_path: Path, results: Results, context: Context
) -> None:
    pages = [write(deepcopy(results), tmp_path / name, context).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium on this machine")
def test_a_browser_shows_the_page_without_complaint(
    tmp_path: Path, results: Results, context: Context
) -> None:
    page = write(results, tmp_path / "report", context)
    shot = tmp_path / "page.png"
    options = "headless no-sandbox disable-gpu disable-background-networking disable-sync"
    options += " disable-component-update no-first-run enable-logging=stderr"
    paths = [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", page.as_uri()]
    command = [str(CHROMIUM), *(f"--{option}" for option in options.split()), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert shot.stat().st_size > 10_000
    assert "CONSOLE" not in done.stderr
