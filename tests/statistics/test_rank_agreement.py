"""Agreement of rankings, against its literal definitions."""

from itertools import permutations, product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tff.statistics.rank_agreement import (
    chance_overlap,
    chance_overlap_within_groups,
    mean_overlap_within_groups,
    rank,
    rank_biased_overlap,
    spearman,
    top_k_overlap,
)

PAIRS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n)))
)
VALUES = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=20)


@given(PAIRS)
def test_overlap_is_the_size_of_an_intersection(pair):
    first, second = map(np.array, pair)
    literal = [len(set(pair[0][:k]) & set(pair[1][:k])) for k in range(1, len(first) + 1)]
    assert top_k_overlap(first, second).tolist() == literal


@pytest.mark.parametrize(
    ("first", "second"), [([0, 1], [0, 1, 2]), ([0, 0], [0, 1]), ([1, 2], [1, 2]), ([0, 1], [0, 2])]
)
def test_no_rankings_of_the_same_things_are_refused(first, second):
    with pytest.raises(ValueError, match="each once"):
        top_k_overlap(np.array(first), np.array(second))


def test_equal_values_rank_in_their_order():
    assert rank(np.array([0.0, 2.0, 0.0, 2.0, 3.0])).tolist() == [4, 1, 3, 0, 2]


@pytest.mark.parametrize("k", range(1, 6))
def test_chance_is_that_of_all_permutations(k):
    found = [len(set(p[:k]) & set(range(k))) for p in permutations(range(5))]
    for least in range(k + 1):
        chance = chance_overlap(least, k, 5)
        assert chance.mean == pytest.approx(np.mean(found), abs=1e-12)
        assert chance.p == pytest.approx(np.mean(np.array(found) >= least), abs=1e-12)


def test_chance_within_groups_is_that_of_all_exchanges_within_groups():
    groups = np.array([0, 0, 0, 1, 1, 1, 1])
    first, second = np.array([0, 3, 1, 4, 2, 5, 6]), np.array([5, 1, 6, 0, 3, 2, 4])
    exchanges = list(product(permutations([0, 1, 2]), permutations([3, 4, 5, 6])))
    for k in range(1, 8):
        found = []
        for low, high in exchanges:
            renamed = np.array([*low, *high])[second]  # who is who within a group, by chance
            found.append(len(set(first[:k]) & set(renamed[:k])))
        means = mean_overlap_within_groups(np.array([k]), first, second, groups)
        assert means[0] == pytest.approx(np.mean(found), abs=1e-12)
        for least in range(k + 1):
            chance = chance_overlap_within_groups(least, k, first, second, groups)
            assert chance.mean == means[0]
            assert chance.p == pytest.approx(np.mean(np.array(found) >= least), abs=1e-12)


def test_chance_within_one_group_is_chance():
    generator = np.random.default_rng(0)
    first, second = generator.permutation(300), generator.permutation(300)
    for k, found in ((1, 1), (17, 4), (120, 60)):
        within = chance_overlap_within_groups(found, k, first, second, np.zeros(300, np.int64))
        assert within == pytest.approx(chance_overlap(found, k, 300), rel=1e-9)


def test_small_probabilities_are_not_lost():
    n, k = 26560, 114
    assert 0 < chance_overlap(100, k, n).p < 1e-200
    groups = np.arange(n) % 53
    first = np.random.default_rng(1).permutation(n)
    assert 0 < chance_overlap_within_groups(100, k, first, first, groups).p < 1e-100


@given(VALUES.flatmap(lambda a: st.tuples(st.just(a), st.permutations(a))))
def test_spearman_with_ties(pair):
    a, b = map(np.array, pair)
    if len(set(pair[0])) < 2:
        assert np.isnan(spearman(a, b))
    else:
        expected = scipy.stats.spearmanr(a, b).statistic
        assert spearman(a, b) == pytest.approx(expected, abs=1e-12)


def test_spearman_of_one_value_is_undefined():
    assert np.isnan(spearman(np.ones(1), np.ones(1)))
    assert np.isnan(spearman(np.zeros(0), np.zeros(0)))


@given(PAIRS, st.floats(0.05, 0.99))
def test_rank_biased_overlap_is_its_infinite_sum(pair, p):
    counts = top_k_overlap(*map(np.array, pair))
    n = len(counts)
    # Both hold the same n things: the agreement is 1 from n on.
    agreement = [counts[d - 1] / d if d <= n else 1.0 for d in range(1, 6000)]
    literal = (1 - p) * sum(p**d * a for d, a in enumerate(agreement))
    assert rank_biased_overlap(counts, p) == pytest.approx(literal, abs=1e-9)


def test_rank_biased_overlap_by_hand():
    # abc against bac: agreement 0, 1, 1.
    assert rank_biased_overlap(np.array([0, 2, 3]), 0.5) == pytest.approx(0.5)
    assert rank_biased_overlap(np.arange(1, 9), 0.9) == pytest.approx(1)


@pytest.mark.parametrize("p", [0, 1, -0.1, 1.5])
def test_impossible_p_is_refused(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        rank_biased_overlap(np.arange(1, 9), p)
