"""Results of a report come back as they were written, and a damaged file is named."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tff.report.page import write
from tff.report.results import read_results, write_results
from tff.types import Result

OLD = Path(__file__).parents[1] / "first_version" / "seed0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


def test_every_type_comes_back(folder):
    wild = np.random.default_rng(0).integers(0, 2**63, 200).view(np.float64)
    wild[:4] = [np.inf, -np.inf, 5e-324, np.nan]
    single = np.random.default_rng(0).random(200, np.float32)
    table = pd.DataFrame(
        {
            "value": wild, "single": single, "count": np.arange(200) - 2**62,
            "small": np.arange(200, dtype=np.uint8), "seen": np.arange(200) % 2 == 0,
            "name": ["001", "NA", "=1+1", None] * 50, "kind": pd.Categorical(["a", "b"] * 100),
            "mixed": [1, "1", True, None] * 50, "maybe": pd.array([1, None] * 100, "Int64"),
        }
    ).rename(columns={"small": 7})  # fmt: skip
    write_results(folder, {"all": table, "none": table.iloc[:0]}, {"a/k": 3, "a/x": np.nan}, {})
    found = read_results(folder)
    back = found.tables["all"]
    expected = table.rename(columns={7: "7"}).astype({"7": np.int64, "kind": "str"})
    pd.testing.assert_frame_equal(
        back.drop(columns=["mixed", "maybe"]), expected.drop(columns=["mixed", "maybe"])
    )
    assert back["mixed"].tolist()[:4] == [1, "1", True, None]
    assert back["maybe"].tolist()[:2] == [1, None]
    assert found.tables["none"].empty
    assert list(found.tables["none"]) == list(back)
    assert found.scalars["a/k"] == 3
    assert isinstance(found.scalars["a/k"], int)
    assert np.isnan(found.scalars["a/x"])


@given(st.lists(st.text(), min_size=1))
def test_any_text_comes_back(folder, names):
    write_results(folder, {"t": pd.DataFrame({"name": names})}, {}, {})
    assert read_results(folder).tables["t"]["name"].tolist() == names


def test_the_file_is_strict_json_with_context(folder):
    table = pd.DataFrame({"x": [np.nan, np.inf]})
    write_results(folder, {"t": table}, {"a/x": -np.inf}, {"seed": np.int64(3), "path": folder})

    def refuse(word):
        raise AssertionError(word)

    content = json.loads((folder / "results.json").read_text(), parse_constant=refuse)
    assert content == {
        "context": {"seed": 3, "path": str(folder)},
        "scalars": {"a/x": "-inf"},
        "tables": {"t": {"x": {"type": "float64", "values": [None, "inf"]}}},
    }


def test_a_report_holds_all_tables_under_the_names_of_their_csv_files(tmp_path):
    table = pd.DataFrame({"x": [1]})
    results = {
        "a": Result("A", tables={"t": table, "../up": table + 1}, scalars={"k": 1}),
        "b": Result("B", tables={"t": table + 2}),
    }
    write(results, tmp_path / "r", {"seed": 0})
    found = read_results(tmp_path / "r")
    csv = {path.stem: pd.read_csv(path) for path in (tmp_path / "r/tables").iterdir()}
    assert set(found.tables) == set(csv) == {"t", "_up", "b-t"}
    for name, one in csv.items():
        pd.testing.assert_frame_equal(found.tables[name], one)
    assert found.scalars == {"a/k": 1}


def test_no_report_holds_nothing(tmp_path):
    found = read_results(tmp_path / "nowhere")
    assert (found.tables, found.scalars) == ({}, {})
    assert found.table("ranking", {"omega": float}) is None


GOOD = {"type": "int64", "values": [1]}
DAMAGES = {
    "empty": "",
    "cut off": '{"tables": {"t": {"x": {"type": "int6',
    "no text": b"\xff\xfe\x00\x81",
    "a list": "[1]",
    "no tables": "{}",
    "no scalars": '{"tables": {}}',
    "deep": '{"tables": ' + "[" * 100_000,
    "table of no columns": {"t": [1]},
    "column without values": {"t": {"x": {"type": "text"}}},
    "column with more": {"t": {"x": GOOD | {"code": "print()"}}},
    "unknown type": {"t": {"x": {"type": "object", "values": [1]}}},
    "text as a number": {"t": {"x": {"type": "float64", "values": ["much"]}}},
    "text as a whole number": {"t": {"x": {"type": "int64", "values": ["7"]}}},
    "a number too large": {"t": {"x": {"type": "int64", "values": [2**70]}}},
    "a number as text": {"t": {"x": {"type": "text", "values": [1]}}},
    "a list in a cell": {"t": {"x": {"type": "mixed", "values": [[1]]}}},
    "no list": {"t": {"x": {"type": "float64", "values": 1}}},
    "different lengths": {"t": {"x": GOOD, "y": {"type": "int64", "values": [1, 2]}}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(tmp_path, damage):
    content = DAMAGES[damage]
    if isinstance(content, dict):
        content = json.dumps({"scalars": {}, "tables": content})
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"results\.json: cannot be read as results of a report"):
        read_results(tmp_path)


def test_missing_columns_and_rows_are_named(tmp_path):
    table = pd.DataFrame({"x": [1]})
    write_results(tmp_path, {"t": table, "none": table.iloc[:0]}, {}, {})
    found = read_results(tmp_path)
    pd.testing.assert_frame_equal(found.table("t", {"x": int}), table)
    with pytest.raises(ValueError, match=r"results\.json: table t has no column y, z"):
        found.table("t", dict.fromkeys("xyz", int))
    with pytest.raises(ValueError, match=r"results\.json: table none has no rows"):
        found.table("none", {"x": int})


def test_a_report_of_version_0_1_is_read_from_its_csv(tmp_path):
    found = read_results(OLD / "checkpoints" / "step000006")
    assert set(found.tables) == {"ablation", "conditional_share", "ranking"}
    assert found.scalars["ranking/k"] == 5
    assert found.tables["ranking"]["omega"].dtype == float
    assert found.tables["ablation"]["seen"].dtype == bool
    # The same numbers as in a file of today.
    write_results(tmp_path, found.tables, found.scalars, {})
    for name, table in read_results(tmp_path).tables.items():
        pd.testing.assert_frame_equal(table, found.tables[name])


@pytest.mark.parametrize("text", ["", "[]", '{"scalars": {"a/k": "much"}}'])
def test_a_damaged_summary_of_version_0_1_is_named(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json: cannot be read as a summary"):
        read_results(tmp_path)
