"""CSV tables start no formula in a spreadsheet and round-trip exactly."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tff.published.rankings import read_omega
from tff.safe_text import escape_formulas, make_printable, read_table
from tff.types import Channels

TEXT = st.text(st.sampled_from(list("=+-@\t\r\n;,'\"a ＝＠")) | st.characters(codec="utf-8"))


def cells(text: str, separator: str) -> list[str]:
    """Cells that a spreadsheet finds with this separator; quotes inside a cell are literal."""
    return [cell for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "t.csv"


@given(text=TEXT)
def test_escaped_text_round_trips(text, path):
    escape_formulas(pd.DataFrame({"name": [text], "ap": 1.0})).to_csv(path, index=False)
    assert read_table(path, ["name"])["name"].tolist() == [make_printable(text)]


@given(st.lists(TEXT, min_size=1, max_size=3))
def test_no_cell_starts_a_formula_with_any_separator(names):
    table = pd.DataFrame({"n": range(len(names)), "name": names, "=head": 1})
    text = escape_formulas(table).to_csv(index=False)
    for separator in ",;\t":
        for cell in cells(text, separator):
            assert not cell.startswith(tuple("=+-@＝＋－＠")), (separator, cell)


def test_hostile_names_round_trip(hostile, tmp_path):
    table = pd.DataFrame({"generator": hostile, "ap": -0.5})
    escape_formulas(table).to_csv(tmp_path / "t.csv", index=False)
    assert read_table(tmp_path / "t.csv", ["generator"])["generator"].tolist() == [
        *map(make_printable, hostile)
    ]
    assert len((tmp_path / "t.csv").read_bytes().splitlines()) == 1 + len(hostile)
    assert "-0.5" in (tmp_path / "t.csv").read_text()  # numbers stay numbers


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zip"])
def test_compressed_tables_are_not_decompressed(ending, tmp_path, little_memory):
    path = tmp_path / f"ranking{ending}"
    bomb = b"layer,channel,omega\n" + bytes(1_000_000)
    if ending.endswith("gz"):
        path.write_bytes(gzip.compress(bomb))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("ranking.csv", bomb)
    with pytest.raises(ValueError, match=rf"ranking {path}: "):
        read_omega(path, Channels({"a": 1}))
    with pytest.raises(ValueError, match=rf"^{path}: cannot be read as a table"):
        read_table(path, ["layer"])


@given(st.text())
def test_printable_text_has_no_control_characters(text):
    shown = make_printable(text)
    assert all(c.isprintable() or c == "\t" or ord(c) > 0x9F for c in shown)
    assert not set(shown) & set("\x1b\r\n\x07\x08\x7f\x9b\x9d\u202e\u2066\u2028")
    shown.encode()  # no lone surrogates


def test_printable_text_is_unchanged():
    text = "émile 猫 تفاحة 👩‍🔬 [red]x[/red] <b>\t$x^2$"
    assert make_printable(text) == text
    assert make_printable("a\n\x1b[2J\u202eb\rc") == r"a\n\x1b[2J\u202eb\rc"
    assert make_printable("a\nb", lines=True) == "a\nb"


def test_csv_keeps_every_bit_and_runs_no_formula(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wild = rng.integers(0, 2**63, 500).view(np.float64)
    wild[:4] = [np.inf, -np.inf, 5e-324, np.nan]
    table = pd.DataFrame(
        {"value": wild, "single": rng.random(500, dtype=np.float32), "negative": -rng.random(500)}
    ).assign(name="=HYPERLINK(1)", other=["+1", "-1", "@x", "a=b", None] * 100)
    table["=head"] = pd.Categorical(["=c", "d"] * 250)
    escape_formulas(table).to_csv(tmp_path / "t.csv", index=False)
    back = pd.read_csv(tmp_path / "t.csv", dtype=str)
    for column in ("value", "single", "negative"):
        read = np.array([float(text) for text in back[column]], table[column].dtype)
        np.testing.assert_array_equal(read, table[column])
    assert set(back["name"]) == {"'=HYPERLINK(1)"}
    assert back["other"].head(4).tolist() == ["'+1", "'-1", "'@x", "a=b"]
    assert back["'=head"].head(2).tolist() == ["'=c", "d"]
