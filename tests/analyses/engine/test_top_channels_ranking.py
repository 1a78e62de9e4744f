from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import tiny

from tff.analyses.engine import top_channels
from tff.analyses.engine.passes import RESAMPLED, Activity, Relevance
from tff.analyses.engine.subject import Options
from tff.analyses.engine.top_channels import (
    Evidence,
    RankingRule,
    TooFewImagesError,
    assess_stability,
)
from tff.statistics.resampled_means import DRAWS, RESAMPLES
from tff.types import Channels

CHANNELS = Channels({"a": 3, "b": 5, "c": 1})


def refuse():
    raise AssertionError("no pass is needed")


def activity(seed=0):
    random = np.random.default_rng(seed)
    resamples = {name: random.normal(size=(RESAMPLES, 9)) for name in RESAMPLED}
    return Activity(*(random.normal(size=9) for _ in range(7)), resamples)


def relevance(seed=0, real=True):
    random = np.random.default_rng(seed)
    found = {}
    for kind in ("fake", "real"):
        omega, resamples = random.random(9), random.random((RESAMPLES, 9))
        if kind == "real" and not real:
            omega, resamples = omega * np.nan, resamples * np.nan
        found[kind] = Relevance(omega, omega / 9, 7, np.empty((0, 5)), resamples)
    return found


WIDTHS = np.repeat([3, 5, 1], [3, 5, 1])


def evidence(of_relevance=refuse, of_activity=refuse, **options):
    return Evidence(of_relevance, of_activity, WIDTHS, **options)


def test_lift_is_omega_times_the_width_of_the_layer():
    omega = relevance()["fake"].omega
    expected = [omega[i] * (3 if i < 3 else 5 if i < 8 else 1) for i in range(9)]
    np.testing.assert_array_equal(evidence(relevance).score("lift"), expected)


def test_each_criterion_asks_for_its_own_pass_only():
    found, measured = relevance(), activity()
    fake, real = found["fake"].omega, found["real"].omega
    of_relevance = evidence(lambda: found)
    np.testing.assert_array_equal(of_relevance.score("omega"), fake)
    np.testing.assert_array_equal(of_relevance.score("omega_real"), real)
    larger = [max(pair) for pair in zip(fake, real, strict=True)]
    np.testing.assert_array_equal(of_relevance.score("both"), larger)
    of_activity = evidence(of_activity=lambda: measured)
    for by in ("contrast", "effect", "effect_all", "response", "weight"):
        np.testing.assert_array_equal(of_activity.score(by), getattr(measured, by))
    replaced = evidence(of_activity=lambda: measured, baseline="mean").score("contrast")
    expected = measured.contrast - measured.output * measured.slope_contrast
    np.testing.assert_array_equal(replaced, expected)
    size = evidence(of_activity=lambda: measured, baseline="mean").score("contrast_abs")
    np.testing.assert_array_equal(size, np.sqrt(expected**2))


def test_without_sure_real_images_the_larger_omega_is_that_of_generated_ones():
    found = relevance(real=False)
    np.testing.assert_array_equal(evidence(lambda: found).score("both"), found["fake"].omega)
    with pytest.raises(TooFewImagesError, match=r"subject\.ranking\.by=omega_real: .* real images"):
        evidence(lambda: found).score("omega_real")


def test_contrast_needs_images_of_both_kinds():
    known = activity()
    one_kind = replace(known, contrast=known.contrast * np.nan)
    with pytest.raises(TooFewImagesError, match="images of both kinds"):
        evidence(of_activity=lambda: one_kind).score("contrast")


def test_random_comes_from_the_seed():
    one, same, other = (evidence(seed=seed).score("random") for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert len(set(one)) == 9
    assert (one != other).any()


@pytest.mark.parametrize("by", ["", "Omega", "output", "relevance"])
def test_unknown_criterion(by):
    message = rf"subject\.ranking\.by={by}: expected one of omega, "
    with pytest.raises(ValueError, match=message):
        evidence(relevance, activity).score(by)
    with pytest.raises(ValueError, match=message):
        RankingRule(by=by)


@pytest.mark.parametrize("by", ["omega", "both", "contrast", "weight"])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_stability_counts_how_often_a_channel_is_in_the_top(by, k, rng):
    found, measured = relevance(rng.integers(99)), activity(rng.integers(99))
    given = evidence(lambda: found, lambda: measured)
    stable = assess_stability(given, by, torch.full((9,), -1), RankingRule(), k)
    scores = {
        "omega": found["fake"].resamples,
        "both": np.maximum(found["fake"].resamples, found["real"].resamples),
        "contrast": measured.resamples["contrast"],
        "weight": np.tile(measured.weight, (RESAMPLES, 1)),
    }[by]
    tops = [set(np.argsort(-row)[:k].tolist()) for row in scores]
    expected = [sum(c in top for top in tops[:DRAWS]) / DRAWS for c in range(9)]
    np.testing.assert_allclose(stable.in_top, expected)
    assert stable.halves == len(tops[-1] & tops[-2]) / k
    np.testing.assert_allclose(stable.error, scores[:DRAWS].std(0, ddof=1), atol=1e-12)


def test_stability_without_images_is_unknown():
    found = relevance(real=False)
    stable = assess_stability(
        evidence(lambda: found), "omega_real", torch.full((9,), -1), RankingRule(), 2
    )
    assert np.isnan(stable.in_top).all()
    assert np.isnan(stable.halves)


def test_unknown_treatment_of_duplicates():
    with pytest.raises(ValueError, match=r"subject\.ranking\.duplicates=drop: expected one of"):
        RankingRule(duplicates="drop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.2}, "confidence=1.2: expected a number from 0 to 1"),
        ({"confidence": float("nan")}, "confidence=nan: expected a number from 0 to 1"),
        ({"k_below": 0}, "k_below=0: expected a number above 0 and at most 1"),
        ({"draws": 0}, "draws=0: expected a whole number of at least 1"),
        ({"sample": 0}, "sample=0: expected a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=f"subject.{message}"):
        Options(**options)


scores = st.lists(
    st.one_of(st.sampled_from([0.0, 0.5, 1.0, -2.0, np.nan]), st.floats(-3, 3)),
    min_size=1, max_size=14,
)  # fmt: skip


def sorted_literally(values):
    """Best first by repeated search, NaN behind all numbers, the first of equals first."""
    left, done = list(range(len(values))), []
    while left:
        best = left[0]
        for i in left[1:]:
            if values[i] > values[best] or (np.isnan(values[best]) and not np.isnan(values[i])):
                best = i
        left.remove(best)
        done.append(best)
    return done


@given(scores)
def test_order_with_ties_and_missing_values(values):
    found = top_channels.rank_channels(np.array(values), torch.full((len(values),), -1))
    assert found.dtype == torch.int64
    assert found.tolist() == sorted_literally(values)


@given(scores, st.data())
def test_twins_are_merged_or_marked(values, data):
    n = len(values)
    # Of each channel an earlier or later one (never itself, no circle), or none.
    rank = data.draw(st.permutations(range(n)))
    twins = [-1] * n
    for place, channel in enumerate(rank[1:], 1):
        before = data.draw(st.integers(-1, place - 1))
        twins[channel] = -1 if before < 0 else rank[before]
    merged, later = list(values), []
    for channel in range(n):
        if twins[channel] < 0:
            continue
        later.append(channel)
        root = channel
        while twins[root] >= 0:
            root = twins[root]
        here, there = values[channel], merged[root]
        merged[root] = here if np.isnan(there) else there if np.isnan(here) else max(here, there)
    first = [i for i in range(n) if i not in later]
    expected = [first[i] for i in sorted_literally([merged[i] for i in first])]
    expected += [later[i] for i in sorted_literally([values[i] for i in later])]
    array, before = np.array(values), torch.tensor(twins)
    assert top_channels.rank_channels(array, before, "merge").tolist() == expected
    assert top_channels.rank_channels(array, before).tolist() == sorted_literally(values)
    np.testing.assert_array_equal(array, values)  # the scores that were given stay as they are


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=9)


@pytest.mark.parametrize("by", [name for name in top_channels.CRITERIA if name != "omega"])
def test_another_criterion_changes_the_top_of_a_subject(by, root):
    plain, other = tiny.subject(root), tiny.subject(root, ranking=RankingRule(by=by))
    assert other.describe()["ranking"] == f"by {by}, duplicates mark"
    scores = other.score_channels(by)
    assert other.ranking.tolist() == sorted_literally(scores.tolist())
    assert other.top.tolist() == other.ranking.tolist()[:3]
    assert plain.rank(by).tolist() == other.ranking.tolist()
    if by != "lift":  # both layers are equally wide here
        assert other.ranking.tolist() != plain.ranking.tolist()


def test_lift_ranks_wide_layers_higher(root):
    images = tiny.splits(root)
    options = {"draws": 10, "device": "cpu", "confidence": 0.0, "k": 6}

    class Wide(torch.nn.Module):
        """Six channels, then forty."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(2)
            self.conv1, self.conv2 = torch.nn.Conv2d(3, 6, 3), torch.nn.Conv2d(6, 40, 3)
            self.fc = torch.nn.Linear(40, 1)

        def forward(self, x):
            x = self.conv2(self.conv1(x).relu()).relu()
            return self.fc(x.mean((2, 3)))

    detector = tiny.Detector(Wide().eval())
    plain = tiny.Subject.of(detector, images, **options)
    lifted = tiny.Subject.of(detector, images, ranking=RankingRule(by="lift"), **options)
    omega = plain.relevance["fake"].omega
    expected = np.argsort(-omega * np.repeat([6, 40], [6, 40]), kind="stable")
    assert lifted.ranking.tolist() == expected.tolist()
    assert plain.ranking.tolist() == np.argsort(-omega, kind="stable").tolist()
    wide = [[int((s.ranking[:k] >= 6).sum()) for k in range(1, 46)] for s in (lifted, plain)]
    assert all(more >= fewer for more, fewer in zip(*wide, strict=True))
    assert wide[0] != wide[1]
