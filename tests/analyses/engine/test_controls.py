"""Control channels, and comparisons with them."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import t
from tests.helpers.bootstrap_by_hand import ends

from tff.analyses.engine.controls import (
    Comparison,
    Controls,
    describe_change,
    describe_draws,
    join_draws,
)
from tff.statistics.bootstrap import Estimate
from tff.types import Channels

CHANNELS = Channels({"narrow": 4, "wide": 20, "middle": 9})


def controls(seed=0, ranking=None):
    if ranking is None:
        ranking = torch.from_numpy(np.random.default_rng(seed).permutation(len(CHANNELS)))
    return Controls(CHANNELS, ranking, seed)


def layers(channels):
    return CHANNELS.table()["layer"].iloc[channels.tolist()].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_each_channel_of_a_matched_order_is_from_the_layer_of_the_ranking(seed):
    made = controls(seed)
    orders = made.matched(7)
    for order in orders:
        assert order.dtype == torch.int64
        assert sorted(order.tolist()) == list(range(33))
        assert layers(order) == layers(made.ranking)
    assert len({tuple(order.tolist()) for order in orders}) == 7


def test_within_a_layer_every_channel_is_as_likely():
    made = controls()
    first = Counter(int(order[0]) for order in made.matched(3000))
    (layer,) = set(layers(made.ranking[:1]))
    width = CHANNELS.widths[layer]
    assert len(first) == width
    assert max(abs(n - 3000 / width) for n in first.values()) < 5 * np.sqrt(3000 / width)


def test_equal_numbers_in_each_layer_are_equal_sets():
    one = torch.tensor([0, 4, 5, 24, *(i for i in range(33) if i not in (0, 4, 5, 24))])
    other = torch.tensor([25, 3, 23, 9, *(i for i in range(33) if i not in (25, 3, 23, 9))])
    pairs = zip(controls(ranking=one).matched(3), controls(ranking=other).matched(3), strict=True)
    for a, b in pairs:
        assert set(a[:4].tolist()) == set(b[:4].tolist())


@pytest.mark.parametrize("seed", range(4))
def test_k_different_channels_besides_the_top(seed):
    made = controls(seed)
    sets = made.random(6, 7)
    assert len(sets) == 7
    for channels in sets:
        assert channels.dtype == torch.int64
        assert len(channels) == len(set(channels.tolist())) == 6
        assert not set(channels.tolist()) & set(made.ranking[:6].tolist())
    assert len({tuple(sorted(channels.tolist())) for channels in sets}) > 1


def test_other_channels_are_drawn_uniformly():
    made = controls()
    drawn = Counter(int(c) for channels in made.random(3, 2000) for c in channels)
    expected = 2000 * 3 / 30
    assert set(drawn) == set(made.ranking[3:].tolist())
    assert max(abs(n - expected) for n in drawn.values()) < 5 * np.sqrt(expected)


def test_controls_depend_only_on_the_seed():
    ranking = torch.arange(32, -1, -1)
    for draw in (lambda of: of.random(5, 4), lambda of: of.matched(4)):
        one, same, other = (draw(controls(seed, ranking)) for seed in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    # More draws begin with the same ones.
    made = controls(3, ranking)
    for few, many in ((made.random(5, 2), made.random(5, 6)), (made.matched(2), made.matched(6))):
        assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


def test_as_many_others_are_needed():
    made = controls()
    assert len(made.random(16, 1)[0]) == len(made.lowest(16, np.arange(33.0))[0]) == 16
    for draw in (lambda: made.random(17, 1), lambda: made.lowest(17, np.arange(33.0))):
        with pytest.raises(ValueError, match="k=17: random and lowest k need as many other"):
            draw()


def test_the_lowest_are_the_end_of_a_ranking_without_ties(rng):
    scores = rng.permutation(33).astype(float)
    made = controls(ranking=torch.from_numpy(np.argsort(-scores)))
    found, tied = made.lowest(6, scores)
    assert sorted(found.tolist()) == sorted(made.ranking.tolist()[-6:])
    assert tied == 0


@pytest.mark.parametrize("k", [1, 3, 5, 6, 9])
def test_the_lowest_are_drawn_among_channels_of_equal_score(k):
    # Two NaN at the end, three of score 0, four of score 1, the others apart.
    scores = np.array([*range(30, 6, -1), 1, 1, 1, 1, 0, 0, 0, np.nan, np.nan])
    ranking = torch.arange(33)
    drawn = Counter()
    for seed in range(300):
        found, tied = Controls(CHANNELS, ranking, seed).lowest(k, scores)
        assert len(set(found.tolist())) == k
        drawn.update(found.tolist())
    sure, among, ties = {
        1: ((), (31, 32), 2), 3: ((31, 32), (28, 29, 30), 3), 5: ((*range(28, 33),), (), 0),
        6: ((*range(28, 33),), (24, 25, 26, 27), 4), 9: ((*range(24, 33),), (), 0),
    }[k]  # fmt: skip
    assert tied == ties
    assert all(drawn[c] == 300 for c in sure)
    assert set(drawn) == {*sure, *among}
    for c in among:
        share = (k - len(sure)) / len(among)
        assert abs(drawn[c] - 300 * share) < 5 * np.sqrt(300 * share * (1 - share))


def test_ties_do_not_reach_into_the_top():
    found, tied = controls(ranking=torch.arange(33)).lowest(3, np.zeros(33))
    assert tied == 30
    assert min(found.tolist()) >= 3


@pytest.mark.parametrize("lower", [True, False])
def test_a_comparison_tells_the_average_from_one_more_draw(lower, rng):
    drawn = [Estimate(v, v + rng.normal(0, 0.1, 99)) for v in rng.normal(size=5)]
    top = Estimate(-1.0, rng.normal(-1, 0.1, 99))
    found, sign = Comparison.of(top, drawn, lower), 1 if lower else -1
    values = [one.value for one in drawn]
    value = sign * (np.mean(values) + 1)
    images = ends(value, sign * (np.mean([one.draws for one in drawn], axis=0) - top.draws))
    for estimate, factor in ((found.on_average, 1 / 5), (found.from_one, 1 + 1 / 5)):
        assert estimate.value == pytest.approx(value)
        reach = t.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(factor)
        for end, of_images in zip(estimate.interval, images, strict=True):
            assert abs(end - value) == pytest.approx(np.hypot(of_images - value, reach))
    columns = found.columns("ap")
    assert [*columns] == [
        "ap", "ap_low", "ap_high", "ap_on_average", "ap_on_average_low", "ap_on_average_high",
    ]  # fmt: skip
    assert columns["ap_high"] > columns["ap_on_average_high"]


def test_words_have_the_direction_of_the_difference():
    drawn = [Estimate(v, np.full(9, v)) for v in (0.8, 0.84)]
    reach = t.ppf(0.975, 1) * np.std([0.8, 0.84], ddof=1) * np.sqrt([1 / 2, 3 / 2])
    for top, by, word in ((0.72, 0.1, "more"), (0.92, 0.1, "less")):
        text = Comparison.of(Estimate(top, np.full(9, top)), drawn).describe("They cost")
        assert text == (
            f"They cost 0.100 {word} AP than random ones of the same layers on average "
            f"({by - reach[0]:.3f} to {by + reach[0]:.3f}), and {by - reach[1]:.3f} to "
            f"{by + reach[1]:.3f} {word} than one more draw of them"
        )


def test_the_best_of_several_rankings_is_held_against_as_many_draws(rng):
    """Else chance would pass more often than in one case of twenty."""
    passed = Counter()
    for _ in range(1000):
        values = [Estimate(v, np.full(2, v)) for v in rng.normal(size=16)]
        best, drawn = min(values[:6], key=lambda one: one.value), values[6:]
        for among in (1, 6):
            compared = Comparison.of(best, drawn, among=among)
            passed[among] += compared.verdict().startswith("significantly more")
    assert passed[1] > 80  # some 13 %
    assert passed[6] <= 50
    assert "than the best of 6 more draws of them" in compared.describe("They cost")


@pytest.mark.parametrize(
    ("top", "words"),
    [
        (0.1, "significantly more than random channels"),
        (0.5, "not significantly more than random channels"),
        (0.9, "significantly less than random channels"),
    ],
)
def test_the_verdict_is_on_one_more_draw(top, words):
    drawn = [Estimate(v, np.full(9, v)) for v in (0.48, 0.5, 0.52)]
    assert Comparison.of(Estimate(top, np.full(9, top)), drawn).verdict() == words
    alone = Comparison.of(Estimate(top, np.full(9, top)), drawn[:1])
    assert alone.verdict() == "significance unknown, since there is a single random draw"


def test_a_draw_is_seldom_called_special():
    generator = np.random.default_rng(1)
    verdicts = Counter()
    for _ in range(2000):
        values = [Estimate(v, np.full(2, v)) for v in generator.normal(size=6)]
        verdicts[Comparison.of(values[0], values[1:]).verdict()] += 1
    for word in ("more", "less"):  # 2.5 % each, five standard errors apart
        assert 16 <= verdicts[f"significantly {word} than random channels"] <= 84


def test_joined_draws_lie_where_one_more_would(rng):
    draws = [Estimate(v, v + rng.normal(0, 0.01, 99)) for v in rng.uniform(0.9, 1, 4)]
    values, found = [one.value for one in draws], join_draws(draws)
    images = ends(np.mean(values), np.mean([one.draws for one in draws], axis=0))
    reach = t.ppf(0.975, 3) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 4)
    for end, of_images in zip(found.interval, images, strict=True):
        expected = np.hypot(of_images - found.value, reach)
        assert abs(end - found.value) == pytest.approx(expected)
    columns = describe_draws(draws, "ap")
    assert columns["ap"] == pytest.approx(np.mean(values))
    assert columns["ap_high"] == min(1, found.high)
    assert columns["ap_low"] == pytest.approx(max(0, found.low))
    assert join_draws(draws[:1]) is draws[0]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0.9, 0.888, "falls to 0.888"),
        (0.95, 0.962, "rises to 0.962"),
        (0.9501, 0.9499, "stays at 0.950"),
    ],
)
def test_a_rise_is_called_a_rise(before, after, words):
    assert describe_change(before, after) == words
