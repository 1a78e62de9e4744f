import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tff.statistics.channel_tests import roc_auc, separability


def test_interval_is_that_of_the_bootstrap():
    rng = np.random.default_rng()
    labels = np.repeat([0, 1], (150, 90))
    scores = np.round(rng.normal(size=240) + 0.8 * labels, 1)  # with ties
    auc, low, high = roc_auc(labels, scores)
    assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    draws = []
    for _ in range(1500):
        rows = np.concatenate([rng.choice(np.flatnonzero(labels == k), (labels == k).sum())
                               for k in (0, 1)])  # fmt: skip
        draws.append(roc_auc_score(labels[rows], scores[rows]))
    expected = np.quantile(draws, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.02)


def test_delong_by_its_definition():
    rng = np.random.default_rng()
    one, zero = rng.integers(0, 6, 9).astype(float), rng.integers(0, 6, 7).astype(float)
    wins = (one[:, None] > zero) + 0.5 * (one[:, None] == zero)
    error = np.sqrt(wins.mean(1).var(ddof=1) / 9 + wins.mean(0).var(ddof=1) / 7)
    found = roc_auc(np.repeat([1, 0], (9, 7)), np.concatenate([one, zero]))
    assert found.auc == pytest.approx(wins.mean())
    assert found.high == pytest.approx(min(1, wins.mean() + 1.959964 * error))
    assert found.low == pytest.approx(max(0, wins.mean() - 1.959964 * error))


def test_words_and_numbers_that_tell():
    labels = np.repeat([0, 1], 40)
    kind = pd.DataFrame({"format": np.where(labels, "PNG", "JPEG"), "height": 8})
    assert separability(kind, labels) == (1.0, 1.0, 1.0)
    nothing = pd.DataFrame({"format": "PNG", "height": 8}, index=range(80))
    assert separability(nothing, labels).auc == 0.5


def test_no_signal_gives_no_alarm_too_often():
    rng, above = np.random.default_rng(0), 0
    labels = np.repeat([0, 1], 60)
    for _ in range(40):
        noise = pd.DataFrame(
            {"height": rng.integers(100, 400, 120), "q": rng.integers(50, 99, 120)}
        )
        auc, low, _high = separability(noise, labels)
        above += auc > 0.6 and low > 0.5
    assert above <= 4


@pytest.mark.parametrize("count", [0, 1])
def test_too_few(count):
    labels = np.repeat([0, 1], (5, count))
    assert np.isnan(separability(pd.DataFrame({"a": range(len(labels))}), labels)).all()
