from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tff.statistics.channel_tests import cliffs_delta

COLUMN = st.lists(st.integers(-2, 2), min_size=1, max_size=12)


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    return sum(float(x > y) - float(x < y) for x in a for y in b) / (len(a) * len(b))


@given(COLUMN, COLUMN)
@settings(max_examples=200, deadline=None)
def test_ties(a, b):
    a, b = np.array(a, float), np.array(b, float)
    found = cliffs_delta(a[:, None], b[:, None])[0]
    assert found == pytest.approx(by_definition(a, b), abs=1e-14)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 8), (13, 4), (40, 41)])
def test_columns_are_independent(n, m):
    generator = np.random.default_rng()
    a, b = generator.normal(size=(n, 9)).round(1), generator.normal(0.5, 1, (m, 9)).round(1)
    a[:, 2] = b[:, 2] = 3
    found = cliffs_delta(a, b)
    expected = [by_definition(a[:, c], b[:, c]) for c in range(9)]
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_array_equal(found, -cliffs_delta(b, a))
    assert found[2] == 0


def test_ends_are_reached_exactly():
    a, b = np.arange(7.0)[:, None], np.arange(7.0, 18.0)[:, None]
    assert cliffs_delta(a, b)[0] == -1
    assert cliffs_delta(b, a)[0] == 1


def test_only_the_order_counts():
    generator = np.random.default_rng()
    a, b = generator.normal(size=(30, 4)), generator.normal(size=(20, 4))
    np.testing.assert_array_equal(cliffs_delta(a, b), cliffs_delta(np.exp(a), np.exp(b)))


def test_nothing_to_compare():
    assert np.isnan(cliffs_delta(np.zeros((0, 3)), np.ones((4, 3)))).all()
    assert np.isnan(cliffs_delta(np.ones((4, 3)), np.zeros((0, 3)))).all()
    assert cliffs_delta(np.ones((4, 0)), np.zeros((2, 0))).shape == (0,)


def test_numbers_that_are_missing_spoil_their_column_only():
    a, b = np.random.default_rng().normal(size=(2, 6, 3))
    b[2, 0] = np.nan
    assert np.isnan(cliffs_delta(a, b)).tolist() == [True, False, False]


@pytest.mark.parametrize("shape", [(4, 2), (4,)])
def test_other_columns(shape):
    with pytest.raises(ValueError, match="same channels"):
        cliffs_delta(np.zeros((5, 3)), np.zeros(shape))
