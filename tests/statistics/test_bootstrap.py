from __future__ import annotations

import numpy as np
import pytest

from tff.statistics.bootstrap import counts, evaluated, interval, percentiles, resamples

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


@pytest.mark.parametrize("chunk", [1, 30, 10**6])
def test_values_of_all_resamples(chunk):
    values = np.random.default_rng().normal(size=(30, 3))
    rows = resamples(np.zeros(30, np.int64), 11, seed=0)
    found = evaluated(lambda at: values[at].mean(1), rows, chunk)
    np.testing.assert_array_equal(found, [values[row].mean(0) for row in rows])


def test_no_resample():
    rows = resamples(LABELS, 0, seed=0)
    assert evaluated(lambda at: np.zeros((len(at), 2)), rows).shape == (0, 2)
    assert np.isnan(interval(lambda at: at.mean(1), rows)).all()


def test_percentiles_leave_out_what_is_undefined():
    assert percentiles(np.array([np.nan, 4.0, 1.0, np.nan, 3.0, 2.0, 5.0]), 0.5) == (2, 4)
    assert np.isnan(percentiles(np.zeros(0))).all()


@pytest.mark.parametrize(("draws", "size"), [(6, 7), (1, 7), (0, 7), (4, 0)])
def test_counts(draws, size):
    rows = resamples(LABELS[:size], draws, seed=2)
    found = counts(rows, size)
    assert found.shape == (draws, size)
    assert (found.sum(1) == size).all()
    for row, times in zip(rows, found, strict=True):
        assert times.tolist() == [(row == i).sum() for i in range(size)]
