"""The page is safe and complete, replaces an older report as a whole, and nothing else."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.helpers import tiny

from tff.analyses.detection import Detection
from tff.plots.grouped import box_plot
from tff.plots.style import DARK
from tff.report.page import (
    collect_versions,
    darken,
    data_uri,
    describe_transfer,
    format_value,
    render_png,
    render_svg,
    split_constants,
    write,
    write_section,
)
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


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, results: Results, context: Context) -> Path:
    return write(results, tmp_path_factory.mktemp("page") / "report", context)


def test_foreign_text_stays_text_and_no_address_leaves_the_folder(path: Path, hostile: str) -> None:
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


def test_order_of_the_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    parts = ["<style>\n:root {", "<h1>", 'id="found"', "The first channel leads"]
    parts += ["Before you trust", 'id="idea"', 'id="ranking"', "<p>Second.</p>", "The top."]
    parts += ["first 25 of 40 rows", 'id="words"', 'id="protocol"', "ECCV 2022"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


SEEN_ROW = ("001", True, 0.99, 0.98, 1.0, 60)
KNOWN, HARDLY, UNKNOWN = (0.9, 0.8, 0.95), (0.6, 0.55, 0.65), (0.55, 0.45, 0.65)
NO_NUMBER = (np.nan, np.nan, np.nan)


def detection(*rows: tuple[object, ...]) -> Results:
    """A result whose table has a row per generator, then means."""
    columns = ["generator", "seen", "auc", "auc_low", "auc_high", "images"]
    return {"detection": Result("", tables={"detection": pd.DataFrame(rows, columns=columns)})}


@pytest.mark.parametrize(
    ("unseen", "mean", "words"),
    [
        ([KNOWN], KNOWN, "So does this one (AUC 0.90 (0.80 to 0.95)). Something must carry over."),
        ([HARDLY], HARDLY, "does little better than guessing on generators that it has never seen"),
        ([UNKNOWN], UNKNOWN, "This one does not, as far as its test images tell (AUC 0.55 (0.45"),
        ([KNOWN, UNKNOWN], HARDLY, "; above chance on 1 of 2 generators, below it on 0)"),
        ([(0.4, 0.3, 0.49)] * 3, UNKNOWN, "does not, as far as its test images tell (AUC 0.55"),
        ([(0.4, 0.3, 0.49)] * 3, UNKNOWN, "above chance on 0 of 3 generators, below it on 3"),
        ([NO_NUMBER], NO_NUMBER, "Whether this one does is unknown"),
        ([], None, "Whether this one does is unknown"),
    ],
)
def test_the_page_begins_with_what_the_numbers_say(
    unseen: list[tuple[float, ...]], mean: tuple[float, ...] | None, words: str
) -> None:
    rows = [SEEN_ROW, *((f"g{i}", False, *one, 60) for i, one in enumerate(unseen))]
    rows.append(("seen", True, 0.99, 0.98, 1.0, np.nan))
    if mean:
        rows += [("mean", False, *mean, np.nan), ("worst", False, 0.1, 0.0, 0.2, np.nan)]
    assert words in describe_transfer(detection(*rows))


def test_the_page_begins_with_the_mean_of_the_analysis(tmp_path: Path) -> None:
    """Its rows of means and of the worst are taken for what they are."""
    root = tiny.tree(tmp_path, ("seen", "one", "other"), images=20, size=16)
    found = Detection()(tiny.subject(root))
    mean = found.scalars["unseen_auc"]
    said = describe_transfer({"detection": found})
    assert f"AUC {mean:.2f} (" in said
    assert "of 2 generators" in said


def test_the_page_opens_with_the_figures_that_a_result_names(tmp_path: Path) -> None:
    figures = {name: box_plot({"a": {"b": np.arange(5.0)}}, "x") for name in ("first", "second")}
    captions = {"first": "Opens", "second": "Follows"}
    result = Result("Dropping", figures=figures, captions=captions, opening=["first"])
    page = write({"k_sweep": result}, tmp_path / "report", {}).read_text()
    assert page.count("Opens <span>") == page.count("Follows <span>") == 1
    assert page.index("What was found</h2>") < page.index("Opens <span>") < page.index('id="idea"')
    assert page.index('<section id="k_sweep">') < page.index("Follows <span>")


def test_the_page_begins_with_a_question_without_the_numbers(results: Results) -> None:
    several = detection(SEEN_ROW)
    table = several["detection"].tables["detection"]
    several["detection"].tables["detection"] = table.assign(checkpoint="a")
    for found in ({}, results, several, {"detection": Result("failed")}):
        assert describe_transfer(found).endswith("often recognize those of others.")


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
    # Drawing changes the layout of a figure: both pages start from the same state.
    one, other = (write(deepcopy(results), tmp_path / name, context) for name in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium on this machine")
def test_a_browser_shows_the_page_without_complaint(path: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    options = "headless no-sandbox disable-gpu disable-background-networking disable-sync"
    options += " disable-component-update no-first-run enable-logging=stderr"
    paths = [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", path.as_uri()]
    command = [str(CHROMIUM), *(f"--{option}" for option in options.split()), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert shot.stat().st_size > 10_000
    assert "CONSOLE" not in done.stderr


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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (1.0, "1.000"),
        (114.0, "114"),
        (1e-12, "1.0e-12"),
        (np.inf, "inf"),
        (np.float32(0.5), "0.500"),
        (7, "7"),
        (True, "yes"),
        (np.bool_(False), "no"),
        ("text", "text"),
        *((missing, "\N{EN DASH}") for missing in (np.nan, None, pd.NA, pd.NaT)),
    ],
)
def test_values_are_rounded_for_readers(value: object, text: str) -> None:
    assert format_value(value) == text


def test_constant_columns_are_shown_once() -> None:
    table = pd.DataFrame({"ap": [0.5, 0.6, 0.7], "k": 114, "cue": "color", "seen": True})
    same, rest = split_constants(table)
    assert same == {"k": "114", "cue": "color", "seen": "yes"}
    assert list(rest) == ["ap"]


def test_a_table_of_constants_only_stays_whole() -> None:
    same, rest = split_constants(pd.DataFrame({"k": [114] * 3}))
    assert (same, rest.shape) == ({}, (3, 1))


FIGURE = box_plot({"a": {"color": np.arange(3)}}, "p")


def test_svg_names_fonts_that_readers_have() -> None:
    assert b"Segoe UI" in render_svg(FIGURE)


def test_dark_figure_has_no_color_of_the_light_one() -> None:
    light = render_svg(FIGURE).decode()
    dark = darken(light.encode()).decode()
    assert any(color in light for color in DARK)
    assert not any(color in dark for color in DARK)


def test_address_holds_the_picture() -> None:
    png = render_png(FIGURE)
    address = data_uri(png, "png")
    assert address.startswith("data:image/png;base64,")
    assert base64.b64decode(address.split(",")[1]) == png


def test_versions_names_what_the_numbers_depend_on() -> None:
    found = collect_versions()
    assert {"python", "torch", "numpy", "scipy", "tff"} < set(found)
    assert all(re.match(r"\d|not installed", text) for text in found.values())
