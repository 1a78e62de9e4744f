from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tff.statistics.detection import AveragePrecision, average_precision

# Few different values, so that ties abound.
PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=30)


def by_definition(labels: np.ndarray, scores: np.ndarray) -> float:
    area, reached = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        recall = labels[called].sum() / labels.sum()
        area += (recall - reached) * labels[called].mean()
        reached = recall
    return area


@given(PAIRS)
@settings(max_examples=200, deadline=None)
def test_ties(pairs):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    found = average_precision(labels, scores.astype(float))
    if labels.any():
        assert found == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        assert found == pytest.approx(by_definition(labels, scores), abs=1e-12)
    else:
        assert np.isnan(found)


def test_many_sets_at_once():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (4, 5, 40))
    scores = generator.normal(size=(4, 5, 40)).round(1)
    found = average_precision(labels, scores)
    assert found.shape == (4, 5)
    for place in np.ndindex(4, 5):
        assert found[place] == pytest.approx(average_precision_score(labels[place], scores[place]))


@pytest.mark.parametrize(("label", "expected"), [(1, 1.0), (0, np.nan)])
@pytest.mark.parametrize("count", [1, 6])
def test_one_class(label, expected, count):
    found = average_precision(np.full(count, label), np.arange(count, dtype=float))
    np.testing.assert_equal(found, expected)


def test_no_image():
    assert np.isnan(average_precision(np.zeros((3, 0), np.int64), np.zeros((3, 0)))).all()


def test_metric_takes_wide_logits_in_batches():
    generator = torch.manual_seed(0)
    labels = torch.randint(0, 2, (101,), generator=generator)
    logits = 40 * torch.randn(101, generator=generator) + 15 * labels
    metric = AveragePrecision()
    for part in (slice(0, 64), slice(64, 65), slice(65, 101)):
        metric.update(logits[part], labels[part])
    assert metric.compute() == np.float32(average_precision_score(labels, logits.double()))
    assert metric.compute() != np.float32(average_precision_score(labels, logits.sigmoid()))


def test_metric_on_one_class_and_after_reset():
    metric = AveragePrecision()
    metric.update(torch.randn(3), torch.zeros(3, dtype=torch.int64))
    assert metric.compute().isnan()
    metric.reset()
    metric.update(torch.randn(1), torch.ones(1, dtype=torch.int64))
    assert metric.compute() == 1


def test_metric_without_an_image():
    with warnings.catch_warnings(action="error"):
        assert AveragePrecision().compute().isnan()
