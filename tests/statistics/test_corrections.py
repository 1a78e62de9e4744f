from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from tff.statistics.channel_tests import benjamini_hochberg

# Few different values, so that ties abound, and the ends.
P = st.lists(st.sampled_from([0.0, 1e-300, 0.01, 0.02, 0.04, 0.05, 0.5, 0.99, 1.0]), max_size=12)


def by_definition(p: list[float]) -> list[float]:
    ascending = sorted(p)
    m = len(p)
    return [
        min([1.0, *(other * m / (j + 1) for j, other in enumerate(ascending) if other >= mine)])
        for mine in p
    ]


@given(P)
@settings(max_examples=200, deadline=None)
def test_definition(p):
    found = benjamini_hochberg(np.array(p))
    assert found.tolist() == pytest.approx(by_definition(p), abs=1e-15)
    assert found.tolist() == pytest.approx(false_discovery_control(p).tolist(), abs=1e-15)


@given(P, st.floats(0.001, 1))
@settings(max_examples=200, deadline=None)
def test_calls_are_those_of_the_step_up_procedure(p, level):
    ascending = sorted(p)
    passing = [i for i, value in enumerate(ascending) if value <= level * (i + 1) / len(p)]
    cut = ascending[passing[-1]] if passing else -1
    # Rounding may move a p-value that lies on the line itself.
    near = any(abs(v - level * (i + 1) / len(p)) < 1e-12 for i, v in enumerate(ascending))
    if not near:
        found = benjamini_hochberg(np.array(p)) <= level
        assert found.tolist() == [value <= cut for value in p]


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_families_along_an_axis(axis):
    p = np.random.default_rng().random((4, 5, 7)) ** 3
    expected = false_discovery_control(p, axis=axis)
    np.testing.assert_allclose(benjamini_hochberg(p, axis), expected, rtol=1e-14)


def test_missing_tests_are_not_counted():
    p = np.random.default_rng().random((3, 40)) ** 2
    p[0, ::3], p[1] = np.nan, np.nan
    found = benjamini_hochberg(p)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(p))
    for i in (0, 2):
        there = ~np.isnan(p[i])
        np.testing.assert_allclose(found[i, there], false_discovery_control(p[i, there]))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_no_test(shape):
    assert benjamini_hochberg(np.zeros(shape)).shape == shape


def test_argument_is_left_alone():
    p = np.array([0.5, np.nan, 0.01])
    benjamini_hochberg(p)
    np.testing.assert_array_equal(p, [0.5, np.nan, 0.01])


@pytest.mark.parametrize("wrong", [-0.1, 1.5, np.inf])
def test_no_p_values(wrong):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        benjamini_hochberg(np.array([0.5, wrong, np.nan]))


def test_few_false_calls():
    generator = np.random.default_rng(0)
    families, tests, true = 2000, 50, 20
    p = generator.random((families, tests))
    p[:, :true] **= 8
    called = benjamini_hochberg(p) <= 0.2
    false = called[:, true:].sum(1) / np.maximum(called.sum(1), 1)
    # On average exactly the level times the share of tests without an effect.
    assert false.mean() == pytest.approx(0.2 * (tests - true) / tests, abs=0.01)
    assert called[:, :true].mean() > 0.5
