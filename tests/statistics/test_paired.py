from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tff.statistics.channel_tests import map_columns, wilcoxon

# Few different values, so that ties and pairs without a difference abound.
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25)


def reference(a: np.ndarray, b: np.ndarray) -> float:
    if (a == b).all():
        return 1.0
    return float(scipy.stats.wilcoxon(a, b, method="asymptotic", correction=False).pvalue)


@given(PAIRS)
@settings(max_examples=200, deadline=None)
def test_ties_and_equal_pairs(pairs):
    a, b = np.array(pairs, float).T
    assert wilcoxon(a[:, None], b[:, None])[0] == pytest.approx(reference(a, b), abs=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 9, 100])
def test_columns_are_independent(rows):
    generator = np.random.default_rng()
    a = generator.normal(size=(rows, 15)).round(1)
    b = (a + generator.normal(0.2, 1, (rows, 15))).round(1)
    b[:, 3] = a[:, 3]
    b[:, 4] = a[:, 4] + 1
    found = wilcoxon(a, b)
    np.testing.assert_allclose(found, [reference(a[:, c], b[:, c]) for c in range(15)], atol=1e-12)
    assert found[3] == 1
    np.testing.assert_array_equal(found, wilcoxon(b, a))


def test_paper_example():
    # Wilcoxon (1945), plots of wheat: ranks of the negative differences add up to 3 of 36.
    a = np.array([209.0, 200, 177, 169, 159, 169, 187, 198])
    b = np.array([151.0, 168, 147, 164, 166, 163, 176, 188])
    difference = a - b
    ranks = scipy.stats.rankdata(np.abs(difference))
    assert ranks[difference < 0].sum() == 3
    z = (33 - 18) / np.sqrt(8 * 9 * 17 / 24)
    assert wilcoxon(a[:, None], b[:, None])[0] == pytest.approx(2 * scipy.stats.norm.sf(z))


def test_few_false_alarms_without_an_effect():
    generator = np.random.default_rng(0)
    a = generator.normal(size=(60, 4000))
    p = wilcoxon(a, a + generator.laplace(size=(60, 4000)))
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.01)
    assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.025)


def test_pairs_tell_what_two_samples_cannot():
    generator = np.random.default_rng(1)
    a = 100 * generator.normal(size=(50, 1))
    b = a + 1 + 0.1 * generator.normal(size=(50, 1))
    assert wilcoxon(a, b)[0] < 1e-8
    assert scipy.stats.mannwhitneyu(a[:, 0], b[:, 0]).pvalue > 0.5


def test_numbers_that_are_missing_spoil_their_column_only():
    generator = np.random.default_rng()
    a, b = generator.normal(size=(2, 20, 3))
    a[4, 1] = np.nan
    found = wilcoxon(a, b)
    assert np.isnan(found).tolist() == [False, True, False]
    a[4, 1], b[4, 1] = np.inf, np.inf
    assert np.isnan(wilcoxon(a, b)[1])


def test_without_rows_or_columns():
    assert np.isnan(wilcoxon(np.zeros((0, 3)), np.zeros((0, 3)))).all()
    assert wilcoxon(np.zeros((4, 0)), np.zeros((4, 0))).shape == (0,)


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (5,)])
def test_no_pairs(shape):
    with pytest.raises(ValueError, match="same rows in the same order"):
        wilcoxon(np.zeros((5, 2)), np.zeros(shape))


@pytest.mark.parametrize("chunk", [1, 24, 70, 10**6])
def test_chunks_of_columns(chunk):
    generator = np.random.default_rng()
    a, b = generator.normal(size=(5, 31)).astype(np.float32), generator.normal(size=(7, 31))

    def sums(*samples):
        assert all(sample.dtype == np.float64 for sample in samples)
        assert sum(sample.size for sample in samples) <= max(chunk, 12)
        return np.stack([sample.sum(0) for sample in samples])

    expected = [a.astype(np.float64).sum(0), b.sum(0)]
    np.testing.assert_allclose(map_columns(sums, a, b, chunk=chunk), expected, rtol=1e-12)
