from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.bootstrap_by_hand import ends

from tff.statistics.bootstrap import (
    bias_corrected_interval,
    count_draws,
    draw_resamples,
    evaluate_resamples,
)

LABELS = np.array([0, 1, 1, 0, 0, 0, 1])


def test_resamples_are_stratified():
    rows = draw_resamples(LABELS, 50, seed=1)
    assert rows.shape == (50, 7)
    assert (LABELS[rows].sum(1) == 3).all()
    assert set(rows.ravel().tolist()) == set(range(7))
    assert any(len(set(row.tolist())) < 7 for row in rows)  # with replacement


def test_every_row_is_as_likely():
    rows = draw_resamples(LABELS, 7000, seed=3)
    for label, size in ((0, 4), (1, 3)):
        for row in np.flatnonzero(label == LABELS):
            assert (rows == row).sum() / (7000 * size) == pytest.approx(1 / size, rel=0.05)


def test_resamples_depend_on_the_seed_alone():
    np.random.seed(0)
    first = draw_resamples(LABELS, 20, seed=5)
    np.random.seed(1)
    assert np.array_equal(first, draw_resamples(LABELS, 20, seed=5))
    assert not np.array_equal(first, draw_resamples(LABELS, 20, seed=6))


def test_resamples_of_nothing():
    assert draw_resamples(np.zeros(0, np.int64), 4, seed=0).shape == (4, 0)


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.5, 0.97, 1])
def test_interval_equals_its_definition(share):
    draws = np.random.default_rng().normal(size=301).round(2)  # with ties
    draws[::50] = np.nan
    value = np.nanquantile(draws, share)
    assert bias_corrected_interval(value, draws) == pytest.approx(ends(value, draws), abs=1e-12)


def test_interval_without_bias_is_that_of_the_percentiles():
    draws = np.arange(2001.0)
    expected = np.percentile(draws, [5, 95])
    assert bias_corrected_interval(1000, draws, level=0.9) == pytest.approx(
        tuple(expected), abs=0.5
    )


def test_interval_holds_the_value():
    draws = np.array([0.3, 0.4, 0.5])
    assert bias_corrected_interval(0.9, draws)[1] == 0.9
    assert bias_corrected_interval(0.1, draws)[0] == 0.1
    assert bias_corrected_interval(1.0, np.ones(20)) == (1, 1)


@pytest.mark.parametrize(("value", "draws"), [(np.nan, [1, 2]), (1, []), (1, [np.nan, np.nan])])
def test_interval_of_the_undefined(value, draws):
    assert np.isnan(bias_corrected_interval(value, np.array(draws, float))).all()


def test_interval_covers_a_known_mean():
    generator = np.random.default_rng(4)
    rows = draw_resamples(np.zeros(40, np.int64), 400, seed=0)
    covered = []
    for _ in range(200):
        sample = generator.normal(3, 2, 40)
        low, high = bias_corrected_interval(sample.mean(), sample[rows].mean(1))
        covered.append(low <= 3 <= high)
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("chunk", [1, 30, 10**6])
def test_values_of_all_resamples(chunk):
    values = np.random.default_rng().normal(size=(30, 3))
    rows = draw_resamples(np.zeros(30, np.int64), 11, seed=0)

    def mean(at):
        assert at.size <= max(chunk, 30)
        return values[at].mean(1)

    found = evaluate_resamples(mean, rows, chunk)
    np.testing.assert_array_equal(found, [values[row].mean(0) for row in rows])


def test_no_resample():
    rows = draw_resamples(LABELS, 0, seed=0)
    assert evaluate_resamples(lambda at: np.zeros((len(at), 2)), rows).shape == (0, 2)


@pytest.mark.parametrize(("draws", "size"), [(6, 7), (1, 7), (0, 7), (4, 0)])
def test_counts(draws, size):
    rows = draw_resamples(LABELS[:size], draws, seed=2)
    found = count_draws(rows, size)
    assert found.shape == (draws, size)
    assert (found.sum(1) == size).all()
    for row, times in zip(rows, found, strict=True):
        assert times.tolist() == [(row == i).sum() for i in range(size)]
