"""Tables in files hold every digit and run no formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tff.safe_text import escape_formulas


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
