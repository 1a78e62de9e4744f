from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tff.statistics.channel_tests import median_test

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "statistics.npz")
COLUMN = st.lists(st.integers(0, 4), min_size=1, max_size=25)


def reference(a: np.ndarray, b: np.ndarray) -> float:
    try:
        return float(scipy.stats.median_test(a, b, ties="below", correction=True)[1])
    except ValueError:  # all values are below the grand median: nothing is told
        return 1.0


@given(COLUMN, COLUMN)
@settings(max_examples=200, deadline=None)
def test_ties_and_constant_columns(a, b):
    a, b = np.array(a, float), np.array(b, float)
    assert median_test(a[:, None], b[:, None])[0] == pytest.approx(reference(a, b), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (7, 30), (30, 30)])
def test_columns_are_independent(n, m):
    generator = np.random.default_rng(n + m)
    a, b = generator.normal(size=(n, 12)), generator.normal(0.7, 1, size=(m, 12))
    a[:, 3] = b[:, 3] = 2
    expected = [reference(a[:, c], b[:, c]) for c in range(12)]
    np.testing.assert_allclose(median_test(a, b), expected, rtol=0, atol=1e-12)
    assert median_test(a, b)[3] == 1


def test_without_rows():
    assert np.isnan(median_test(np.zeros((0, 3)), np.ones((4, 3)))).all()
    assert median_test(np.zeros((4, 0)), np.ones((4, 0))).shape == (0,)


@pytest.mark.parametrize("i", range(5))
def test_released_code(i):
    a, b = GOLDEN[f"med{i}_a"], GOLDEN[f"med{i}_b"]
    expected = json.loads(str(GOLDEN["meta"]))["median_test"][i]["p"]
    assert median_test(a[:, None], b[:, None])[0] == pytest.approx(expected, abs=1e-12)
