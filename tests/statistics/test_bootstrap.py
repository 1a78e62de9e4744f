from __future__ import annotations

import numpy as np
import pytest

from tff.statistics.bootstrap import interval, resamples

LABELS = np.array([0, 1, 1, 0, 0, 0, 1])


def test_resamples_are_stratified():
    rows = resamples(LABELS, 50, seed=1)
    assert rows.shape == (50, 7)
    assert (LABELS[rows].sum(1) == 3).all()
    assert set(rows.ravel().tolist()) == set(range(7))
    assert any(len(set(row.tolist())) < 7 for row in rows)  # with replacement


def test_every_row_is_as_likely():
    rows = resamples(LABELS, 7000, seed=3)
    for label, size in ((0, 4), (1, 3)):
        for row in np.flatnonzero(label == LABELS):
            assert (rows == row).sum() / (7000 * size) == pytest.approx(1 / size, rel=0.05)


def test_resamples_depend_on_the_seed_alone():
    np.random.seed(0)
    first = resamples(LABELS, 20, seed=5)
    np.random.seed(1)
    assert np.array_equal(first, resamples(LABELS, 20, seed=5))
    assert not np.array_equal(first, resamples(LABELS, 20, seed=6))


def test_resamples_of_nothing():
    assert resamples(np.zeros(0, np.int64), 4, seed=0).shape == (4, 0)


def test_interval_is_that_of_the_percentiles():
    values = np.random.default_rng(2).normal(size=30)
    rows = resamples(np.zeros(30, np.int64), 500, seed=0)
    means = sorted(values[row].mean() for row in rows)
    low, high = interval(lambda at: values[at].mean(1), rows, level=0.9)
    assert low == pytest.approx(np.percentile(means, 5), abs=1e-12)
    assert high == pytest.approx(np.percentile(means, 95), abs=1e-12)


@pytest.mark.parametrize("chunk", [1, 30, 77, 10**6])
def test_interval_does_not_depend_on_the_chunk(chunk):
    values = np.random.default_rng(2).normal(size=30)
    rows = resamples(np.zeros(30, np.int64), 101, seed=0)

    def mean(at):
        assert at.size <= max(chunk, 30)
        return values[at].mean(1)

    assert interval(mean, rows, chunk=chunk) == interval(lambda at: values[at].mean(1), rows)


def test_interval_leaves_out_undefined_draws():
    rows = np.arange(10)[:, None]
    low, high = interval(lambda at: np.where(at[:, 0] < 5, np.nan, at[:, 0]), rows, level=1.0)
    assert (low, high) == (5, 9)
    assert np.isnan(interval(lambda at: np.full(len(at), np.nan), rows)).all()


def test_interval_covers_a_known_mean():
    generator = np.random.default_rng(4)
    rows = resamples(np.zeros(40, np.int64), 400, seed=0)
    covered = []
    for _ in range(200):
        sample = generator.normal(3, 2, 40)
        low, high = interval(lambda at, s=sample: s[at].mean(1), rows)
        covered.append(low <= 3 <= high)
    assert 0.88 <= np.mean(covered) <= 0.99
