"""Rankings, top channels and controls of several kinds of channels."""

from collections import Counter

import numpy as np
import pytest
import torch
from tests.helpers import tiny

from tff.analyses.engine.controls import Controls
from tff.analyses.engine.subject import Options
from tff.analyses.engine.top_channels import Kinds, RankingRule, parse_k_of_kinds, rank_channels
from tff.types import KINDS, Channels

CHANNELS = Channels(
    {"stem": 10, "attention": 4, "mlp": 40, "later": 4},
    {"stem": "embedding", "attention": "heads", "mlp": "neurons", "later": "heads"},
)
NUMBERS = CHANNELS.kind_numbers


def rank(scores, first=None):
    twins = torch.full((len(CHANNELS),), -1)
    return rank_channels(scores, twins, kinds=Kinds(NUMBERS, first)).numpy()


def counts(flat):
    return Counter(KINDS[number] for number in NUMBERS[flat])


def test_the_first_k_hold_the_same_share_of_each_kind(rng):
    scores = rng.random(len(CHANNELS)) * np.where(NUMBERS == 2, 1, 1000)  # neurons are far behind
    order = rank(scores)
    assert sorted(order) == [*range(58)]
    for k in range(1, 59):
        for kind, size in (("embedding", 10), ("heads", 8), ("neurons", 40)):
            assert abs(counts(order[:k])[kind] - k * size / 58) <= 1
    for number in np.unique(NUMBERS):
        within = scores[order[NUMBERS[order] == number]]
        assert (np.diff(within) <= 0).all()


def test_a_number_of_each_kind_comes_first(rng):
    first = parse_k_of_kinds({"heads": 3, "neurons": "20%"}, CHANNELS)
    order = rank(rng.random(len(CHANNELS)), first)
    assert counts(order[:11]) == {"heads": 3, "neurons": 8}
    assert counts(order[:4]) in ({"heads": 1, "neurons": 3}, {"heads": 2, "neurons": 2})
    assert counts(order) == {"heads": 8, "neurons": 40, "embedding": 10}
    alone = rank(rng.random(len(CHANNELS)), parse_k_of_kinds({"heads": 8}, CHANNELS))
    assert counts(alone[:8]) == {"heads": 8}


def test_impossible_numbers_of_a_kind():
    with pytest.raises(ValueError, match=r"\{conv: 3\}: the detector has no such channels"):
        parse_k_of_kinds({"conv": 3}, CHANNELS)
    with pytest.raises(ValueError, match=r"subject\.k\.heads=9: must lie between 1 and .*, 8$"):
        parse_k_of_kinds({"heads": 9}, CHANNELS)
    for odd in ({}, {"head": 3}, {"heads": 0}, {"heads": "auto"}, {"heads": {"conv": 1}}, [3]):
        with pytest.raises(ValueError, match=r"subject\.k=.*expected a whole number"):
            Options(k=odd)
    assert Options(k={"heads": 3, "neurons": "1%"}).k


def test_chance_of_two_rankings_with_so_many_of_each_kind(rng):
    kinds = Kinds(NUMBERS, {3: 4, 2: 10})  # by number in KINDS
    twins = torch.full((58,), -1)
    tops = []
    for _ in range(2000):
        order = rank_channels(rng.random(58), twins, kinds=kinds).numpy()[:14]
        tops.append(np.isin(np.arange(58), order))
    shared = np.mean([(a & b).sum() / 14 for a, b in zip(tops[::2], tops[1::2], strict=True)])
    assert kinds.chance(tops[0]) == pytest.approx((4 * 4 / 8 + 10 * 10 / 40) / 14)
    assert kinds.chance(tops[0]) == pytest.approx(shared, abs=0.015)


def test_controls_have_as_many_of_each_kind(rng):
    scores = rng.random(len(CHANNELS))
    order = rank(scores, {3: 3, 2: 8})
    controls = Controls(CHANNELS, torch.from_numpy(order), seed=1)
    top = set(order[:11].tolist())
    for drawn in [*controls.random(11, 5), controls.lowest(11, scores)[0]]:
        assert counts(drawn.numpy()) == {"heads": 3, "neurons": 8}
        assert not top & set(drawn.tolist())
    lowest = set(controls.lowest(11, scores)[0].tolist())
    for number, k in ((3, 3), (2, 8)):
        of_kind = np.flatnonzero(number == NUMBERS)
        assert set(of_kind[np.argsort(scores[of_kind])[:k]].tolist()) <= lowest
    layers = CHANNELS.table()["layer"].to_numpy()
    for matched in controls.matched(5):
        assert (layers[matched.numpy()] == layers[order]).all()


def test_too_few_others_of_a_kind():
    order = torch.from_numpy(rank(np.zeros(len(CHANNELS)), {3: 5}))
    with pytest.raises(ValueError, match=r"k=5: .* of each kind, but of heads the network has 8"):
        Controls(CHANNELS, order, seed=0).random(5, 2)


def test_the_mean_of_a_head_has_no_contrast(tmp_path):
    rule = RankingRule(baseline="mean")
    root = tiny.tree(tmp_path, images=2)
    with pytest.raises(ValueError, match=r"subject\.ranking\.baseline=mean: the mean of an attent"):
        tiny.subject(root, tiny.transformer(), ranking=rule)
    tiny.subject(root, tiny.transformer(), ranking=rule, units=["neurons"])
