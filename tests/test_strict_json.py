"""No file holds the NaN or Infinity of Python, which are no JSON."""

import json
import math
import re
from pathlib import Path

import numpy as np
import torch

import tff
from tff.atomic import write_json
from tff.cli.run_folder import read_result, write_result
from tff.strict_json import dumps


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_numbers_that_are_not_finite_are_null():
    value = {"a": [math.nan, (math.inf, 1.5)], "b": np.array([1, -np.inf]), "c": torch.tensor(2)}
    assert json.loads(dumps(value), parse_constant=refuse) == {
        "a": [None, [None, 1.5]], "b": [1, None], "c": 2,
    }  # fmt: skip


def test_a_result_without_a_number_is_written_and_read(tmp_path):
    write_result(tmp_path, math.nan, {"val/ap": math.nan, "val/loss": 0.5}, 1.0, ["seed=1"])
    text = (tmp_path / "finished.json").read_text()
    assert json.loads(text, parse_constant=refuse)["metrics"] == {"val/ap": None, "val/loss": 0.5}
    assert read_result(tmp_path)["objective"] is None


def test_a_result_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "finished.json").write_text('{"objective": NaN, "metrics": {"val/ap": NaN}}')
    assert math.isnan(read_result(tmp_path)["objective"])


def test_a_file_with_nan_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"x": float("-inf")})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse) == {"x": None}


def test_files_are_written_by_one_function():
    """`json.dumps` is left where a text is hashed or compared, and not kept for others to read."""
    root = Path(tff.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text())
    }
    assert found <= {
        "strict_json.py", "analyses/engine/cache.py", "data/synthetic/image_tree.py",
        "data/download/fetch.py", "parquet.py",
    }  # fmt: skip
