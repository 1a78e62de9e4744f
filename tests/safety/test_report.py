"""Hostile names in the report page, its figures and `summary.json`."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import warnings
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from tff.plots.grouped import box_plot
from tff.plots.scatter import matrix_plot
from tff.report.page import choose_path, safe_name, write
from tff.safe_text import make_printable
from tff.types import Result

CHROMIUM = Path("/usr/bin/chromium")


def named(names: list[str]) -> dict[str, Result]:
    """Results that contain the names wherever a name is allowed."""
    square = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    kinds = {name: np.arange(3) for name in names}
    figures = {name: box_plot({name: {name: np.arange(3)}}, name) for name in names[::5]}
    figures["boxes"] = box_plot({names[3]: kinds}, names[3])
    table = pd.DataFrame({"generator": names, "layer": names, "ap": 0.5})
    first = Result(
        " ".join(names), "\n\n".join(names), findings=names, tables={n: table for n in names},
        figures=figures | {"all": matrix_plot(square, names[0], 1.0, None)},
        captions={name: name for name in names}, scalars=dict.fromkeys(names, 0.5),
        warnings=names, alarms=names,
    )  # fmt: skip
    table = table.set_axis([names[1], names[3], "ap"], axis=1)
    return {"first": first} | {name: Result(name, tables={"t": table}) for name in names}


@pytest.fixture(scope="module")
def page(hostile, tmp_path_factory):
    above = tmp_path_factory.mktemp("page")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fonts lack some glyphs
        context = {"command": hostile, "options": {name: {name: [name]} for name in hostile}}
        path = write(named(hostile), above / "report", context)
    assert list(above.iterdir()) == [path.parent]
    return path


class Parsed(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


OURS = {
    "html", "head", "meta", "link", "title", "style", "body", "main", "header", "p", "h1", "h2",
    "h3", "nav", "a", "section", "div", "aside", "ul", "li", "figure", "picture", "source", "img",
    "figcaption", "span", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "br",
    "dl", "dt", "dd", "ol", "em", "strong", "code", "sub", "sup", "b", "i", "var", "small",
    "abbr", "svg", "path", "g", "line", "rect", "circle", "text",
}  # fmt: skip


def test_names_inject_no_markup(page, hostile):
    found = Parsed(page.read_text(encoding="utf-8"))
    assert {tag for tag, _ in found.tags} <= OURS
    assert [tag for tag, _ in found.tags].count("style") == 1
    policy = [a["content"] for _, a in found.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for tag, attributes in found.tags:
        assert not any(key.startswith("on") for key in attributes), (tag, attributes)
        for key in ("href", "src", "srcset"):
            address = attributes.get(key) or ""
            assert not re.match(r"\s*(javascript|vbscript|https?|//)", address, re.IGNORECASE)
    words = "".join(found.words)
    for name in hostile:
        assert make_printable(name, lines=True) in words


def test_page_has_no_control_or_direction_characters(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_figures_are_valid_svg_with_literal_names(page, hostile):
    figures = sorted((page.parent / "figures").glob("*.svg"))
    assert len(figures) == 6
    text = Parsed(page.read_text(encoding="utf-8"))
    inline = [
        base64.b64decode(address.partition(",")[2])
        for _, attributes in text.tags
        for key in ("src", "srcset")
        if (address := attributes.get(key) or "").startswith("data:image/svg")
    ]
    assert len(inline) == 2 * len(figures)
    words = ""
    for data in [*(path.read_bytes() for path in figures), *inline]:
        root = ElementTree.fromstring(data)  # fails on characters that XML forbids
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not tags & {"script", "foreignObject", "a", "iframe", "set", "animate"}
        for element in root.iter():
            assert not any(key.lower().startswith("on") for key in element.attrib)
            words += element.text or ""
    for name in hostile:
        for line in name.split("\n"):
            assert make_printable(line) in words or "\r" in line, name  # no formula, no markup


def test_file_names_are_portable(page):
    names = [path.name for path in page.parent.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[\w.-]+", name) and len(name.encode()) < 255 for name in names)


def test_summary_is_strict_ascii_json(page, hostile):
    text = (page.parent / "summary.json").read_text(encoding="utf-8")
    assert text.isascii()
    assert not re.search(r"[\0-\x09\x0b-\x1f]", text)
    assert set(json.loads(text)["scalars"]) == {f"first/{name}" for name in hostile}


def test_long_and_colliding_names(tmp_path):
    assert len(safe_name("ä" * 5000).encode()) < 220
    assert safe_name("ä" * 5000) != safe_name("ä" * 4999)
    paths = set()
    for name in ("a/b", "a_b", "a:b", "a\nb", "..", "/", "con/../x"):
        path = choose_path(tmp_path, "x", name, ".csv")
        assert path.parent == tmp_path
        assert not path.exists()  # no table overwrites another
        path.touch()
        paths.add(path)
    assert len(paths) == 7


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium on this machine")
def test_a_browser_runs_nothing(page, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("browser")
    # A script would change the title; the browser prints the resulting page.
    options = "headless no-sandbox disable-gpu disable-background-networking disable-sync"
    options += " disable-component-update no-first-run enable-logging=stderr dump-dom"
    command = [
        str(CHROMIUM), *(f"--{option}" for option in options.split()),
        f"--user-data-dir={scratch}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr  # not even a blocked request
    assert "<title>In search of transferable forensic features</title>" in done.stdout
    live = Parsed(done.stdout)
    assert "script" not in {tag for tag, _ in live.tags}
    assert not any(key.startswith("on") for _, attributes in live.tags for key in attributes)
