"""Bootstrap intervals, and estimates that share their resamples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binomtest, t
from tests.helpers.bootstrap_by_hand import Known, average, ends, weighted_sum
from tests.helpers.bootstrap_by_hand import worst as worst_by_hand

from tff.statistics.bootstrap import (
    Estimate,
    bias_corrected_interval,
    count_draws,
    draw_resamples,
    estimate_fraction,
    estimate_share,
    evaluate_resamples,
    mean,
    mean_height,
    shortfall,
    units_by_label,
    wilson_interval,
    worst,
)
from tff.statistics.detection import average_precision, measures

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


#: Two of real images, two of generated ones, two of both; sizes 1 to 4.
GROUPS = np.array([7, 7, 7, 3, 5, 5, 9, 2, 2, 2, 4, 4])
GROUP_LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0])


def test_groups_are_drawn_as_a_whole():
    rows = draw_resamples(GROUP_LABELS, 500, 3, GROUPS)
    times = count_draws(rows, 12)
    kinds = [{7, 3}, {5, 9}, {2, 4}]
    for row, counts in zip(rows, times, strict=True):
        by_group = {g: set(counts[g == GROUPS]) for g in set(GROUPS.tolist())}
        assert all(len(found) == 1 for found in by_group.values())  # all of it or nothing of it
        for kind in kinds:  # stratified
            assert sum(min(by_group[g]) for g in kind) == 2
        filled = row[row < 12]
        assert sorted(np.repeat(np.arange(12), counts)) == filled.tolist()
        assert (row[len(filled) :] == 12).all()
    for group in set(GROUPS.tolist()):
        assert times[:, group == GROUPS].mean() == pytest.approx(1, abs=0.15)


def test_groups_of_one_image_are_no_groups(rng):
    groups = rng.permutation(7) * 3
    # By another order of the images, which draws others.
    assert draw_resamples(LABELS, 40, 0, groups).shape == (40, 7)
    np.testing.assert_array_equal(
        draw_resamples(LABELS, 40, 0, np.arange(7)), draw_resamples(LABELS, 40, 0)
    )


def test_groups_are_the_units_of_chance(rng):
    """Variance of a mean whose images are equal within each of 25 groups of 8."""
    groups = rng.permutation(np.repeat(np.arange(25), 8))
    values = rng.normal(size=25)[groups]
    rows = draw_resamples(np.zeros(200, np.int64), 4000, 1, groups)
    expected = np.std(values) / np.sqrt(25)
    assert values[rows].mean(1).std() == pytest.approx(expected, rel=0.06)


def test_one_group():
    rows = draw_resamples(LABELS, 5, 0, np.zeros(7, np.int64))
    np.testing.assert_array_equal(rows, np.tile(np.arange(7), (5, 1)))


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.5, 0.97, 1])
def test_interval_equals_its_definition(rng, share):
    draws = rng.normal(size=301).round(2)  # with ties
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
def test_values_of_all_resamples(rng, chunk):
    values = rng.normal(size=(30, 3))
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


UNDEFINED = Estimate(np.nan, np.full(50, np.nan))


@pytest.fixture
def three(rng) -> list[Estimate]:
    return [Estimate(v, v + rng.normal(size=50)) for v in rng.normal(size=3)]


def is_undefined(estimate: Estimate) -> bool:
    return np.isnan([estimate.value, estimate.low, estimate.high, *estimate.draws]).all()


def test_interval_is_that_of_the_bootstrap(rng):
    values = rng.normal(size=30)
    rows = draw_resamples(np.zeros(30, np.int64), 400, seed=0)
    found = Estimate(values.mean(), values[rows].mean(1))
    assert (found.low, found.high) == found.interval
    expected = [values.mean(), *ends(values.mean(), found.draws)]
    columns = found.columns("ap")
    assert list(columns) == ["ap", "ap_low", "ap_high"]
    assert list(columns.values()) == pytest.approx(expected, abs=1e-12)


def test_undefined_draws_are_left_out_of_the_interval():
    found = Estimate(20.0, np.array([np.nan, *np.arange(41.0), np.nan]))
    assert [found.low, found.high] == pytest.approx([1, 39])


@pytest.mark.parametrize("draws", [[], [np.nan], [np.nan] * 7])
def test_no_draw(draws):
    columns = Estimate(0.5, np.array(draws)).columns("x")
    np.testing.assert_equal(columns, {"x": 0.5, "x_low": np.nan, "x_high": np.nan})


def test_difference_is_paired(three):
    a, b, _ = three
    found = a - b
    assert found.value == a.value - b.value
    np.testing.assert_array_equal(found.draws, a.draws - b.draws)
    moved = Estimate(a.value + 2, a.draws + 2) - a
    assert [moved.low, moved.high] == pytest.approx([2, 2])


def test_difference_of_the_undefined(three):
    for found in (three[0] - UNDEFINED, UNDEFINED - three[0], mean([]) - three[0]):
        assert is_undefined(found)
        assert len(found.draws) == 50


def test_mean_and_worst_of_each_draw(three):
    values, draws = [e.value for e in three], np.stack([e.draws for e in three])
    assert mean(three).value == pytest.approx(np.mean(values))
    np.testing.assert_allclose(mean(three).draws, draws.mean(0))
    assert worst(three).value == min(values)
    np.testing.assert_array_equal(worst(three).draws, draws.min(0))
    assert worst(three, smallest=False).value == max(values)
    np.testing.assert_array_equal(worst(three, smallest=False).draws, draws.max(0))


@pytest.mark.parametrize("over", [mean, worst])
def test_undefined_generators_are_left_out(three, over):
    found = over([three[0], UNDEFINED, three[1]])
    expected = over(three[:2])
    assert found.value == expected.value
    np.testing.assert_array_equal(found.draws, expected.draws)
    assert is_undefined(over([UNDEFINED, UNDEFINED]))
    assert is_undefined(over([]))


@pytest.mark.parametrize("over", [mean, worst])
def test_a_draw_that_lacks_a_generator_is_undefined(three, over):
    three[1].draws[7] = np.nan
    found = over(three)
    assert np.flatnonzero(np.isnan(found.draws)).tolist() == [7]
    assert np.isfinite([found.value, found.low, found.high]).all()


def test_one_generator(three):
    for over in (mean, worst):
        assert over(three[:1]).value == three[0].value
        np.testing.assert_array_equal(over(three[:1]).draws, three[0].draws)


def test_area_by_hand(three):
    a, b, c = three
    found = mean_height([1, 2, 5], three)

    def by_hand(a, b, c):
        return ((a + b) / 2 * 1 + (b + c) / 2 * 3) / 4

    assert found.value == pytest.approx(by_hand(a.value, b.value, c.value))
    np.testing.assert_allclose(found.draws, by_hand(a.draws, b.draws, c.draws), atol=1e-12)


def test_area_of_a_level_curve_is_its_height(three):
    found = mean_height([0, 0.1, 7, 7, 9], [three[0]] * 5)
    assert found.value == pytest.approx(three[0].value)
    np.testing.assert_allclose(found.draws, three[0].draws)


def test_area_without_width_or_with_a_gap(three):
    assert is_undefined(mean_height([], []))
    assert is_undefined(mean_height([3], three[:1]))
    assert is_undefined(mean_height([3, 3], three[:2]))
    assert is_undefined(mean_height([1, 2, 3], [three[0], UNDEFINED, three[2]]))


@pytest.mark.parametrize("xs", [[1, 2], [1, 2, 3, 4], [2, 1, 3], [1, np.nan, 3], [1, 2, np.inf]])
def test_xs_that_are_no_axis(three, xs):
    with pytest.raises(ValueError, match="ascending"):
        mean_height(xs, three)


@pytest.mark.parametrize(
    "combine",
    [lambda a, b: a - b, lambda a, b: mean([a, b]), lambda a, b: mean_height([0, 1], [a, b])],
)
def test_other_resamples(three, combine):
    with pytest.raises(ValueError, match=r"of 9 and 50 draws.*same number"):
        combine(three[0], Estimate(0.0, np.zeros(9)))


def test_paired_interval_is_narrower_and_covers():
    generator = np.random.default_rng(0)
    covered, narrower = [], []
    for seed in range(150):
        a = generator.normal(0, 1, 60)
        b = a + generator.normal(0.3, 0.3, 60)
        rows = draw_resamples(np.zeros(60, np.int64), 300, seed)
        first, second = (Estimate(x.mean(), x[rows].mean(1)) for x in (a, b))
        gain = second - first
        covered.append(gain.low <= 0.3 <= gain.high)
        narrower.append(gain.high - gain.low < (first.high - first.low) / 2)
    assert 0.88 <= np.mean(covered) <= 0.99
    assert all(narrower)


def test_below_adds_the_chance_of_the_drawing(rng):
    drawn = [Estimate(v, v + rng.normal(0, 0.1, 99)) for v in rng.normal(size=5)]
    one = Estimate(-1.0, rng.normal(-1, 0.1, 99))
    found, values = shortfall(one, drawn), [other.value for other in drawn]
    assert found.value == pytest.approx(np.mean(values) + 1)
    images = ends(found.value, np.mean([other.draws for other in drawn], axis=0) - one.draws)
    spread = t.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 5)
    for end, of_images in zip(found.interval, images, strict=True):
        reach = np.sqrt((of_images - found.value) ** 2 + spread**2)
        assert abs(end - found.value) == pytest.approx(reach)
    assert found.low < found.value < found.high


def test_below_of_a_single_draw_knows_no_interval(three):
    found = shortfall(three[0], three[1:2])
    assert found.value == pytest.approx(three[1].value - three[0].value)
    assert np.isnan(found.interval).all()
    assert is_undefined(shortfall(UNDEFINED, three))


def test_nothing_is_computed_from_what_varies_beyond_the_images(three):
    held = shortfall(three[0], three[1:])
    for combine in (lambda: held - three[0], lambda: mean([held]), lambda: worst([held])):
        with pytest.raises(ValueError, match="random controls last"):
            combine()


@pytest.mark.parametrize("images", [0.0, 0.3])
def test_one_that_is_nothing_special_is_seldom_called_so(images):
    """Whether the numbers vary by their drawing alone, or by their images too."""
    generator, called = np.random.default_rng(1), []
    for _ in range(400):
        shared = images * generator.normal(size=(6, 60))
        rows = generator.integers(0, 60, (80, 60))
        numbers = [Estimate(v + noise.mean(), v + noise[rows].mean(1))
                   for v, noise in zip(generator.normal(size=6), shared, strict=True)]  # fmt: skip
        low, high = shortfall(numbers[0], numbers[1:]).interval
        called.append(low > 0 or high < 0)
    assert 0.01 < np.mean(called) < 0.09


@pytest.mark.parametrize("apart", [0.0, 1.5])
def test_intervals_of_ap_hold_with_thirty_images_of_a_kind(apart):
    generator = np.random.default_rng(2)
    labels = np.repeat([0, 1], 30)

    def scores(times):
        return generator.normal(size=len(labels) * times) + apart * np.tile(labels, times)

    many = np.tile(labels, 4000)
    truth = measures(many, scores(4000), many > 0, np.full(len(many), np.nan), many[None])
    held = []
    for seed in range(150):
        rows, none = draw_resamples(labels, 300, seed), np.full(60, np.nan)
        found = measures(labels, scores(1), labels > 0, none, rows)["ap"]
        held.append(found.low <= truth["ap"].value <= found.high)
    assert 0.86 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_wilson_as_scipy_has_it(n):
    for right in {0, 1, n // 2, n}:
        expected = binomtest(right, n).proportion_ci(0.9, "wilson")
        found = wilson_interval(right / n, n, ndtri(0.95))
        assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson_interval(0.3, n, np.inf) == (0, 1)
    assert np.isnan(wilson_interval(np.nan, n, 2)).all()
    assert np.isnan(wilson_interval(0.3, 0, 2)).all()


def fractions(rng, value, n_draws=60):
    """Three measures between 0 and 1 of the same resamples, by both implementations."""
    common = rng.normal(size=n_draws)
    made = [
        np.clip(v + 0.02 * common + 0.03 * rng.normal(size=n_draws), 0, 1)
        for v in (value, value * 0.9, value * 0.95)
    ]
    values = (value, value * 0.9, value * 0.95)
    return (
        [estimate_fraction(v, d, 25) for v, d in zip(values, made, strict=True)],
        [Known.of_fraction(v, d.tolist(), 25) for v, d in zip(values, made, strict=True)],
    )


@pytest.mark.parametrize("value", [0.0, 0.4, 0.97, 1.0])
def test_intervals_of_fractions_and_of_their_combinations_are_as_printed(rng, value):
    ours, known = fractions(rng, value)
    pairs = [
        *zip(ours, known, strict=True),
        (ours[0] - ours[1], weighted_sum(known[:2], [1, -1])),
        (mean(ours), average(known)),
        (worst(ours), worst_by_hand(known)),
        (worst(ours, smallest=False), worst_by_hand(known, smallest=False)),
        (mean_height([0, 1, 3], ours), weighted_sum(known, [1 / 6, 3 / 6, 2 / 6])),
        (mean(ours) - ours[2], weighted_sum([average(known), known[2]], [1, -1])),
        (mean([ours[0], Estimate(2.0, ours[1].draws)]),
         average([known[0], Known.of_draws(2.0, known[1].draws)])),
    ]  # fmt: skip
    for found, expected in pairs:
        assert found.value == pytest.approx(expected.value, abs=1e-12)
        np.testing.assert_allclose(found.draws, expected.draws, atol=1e-12)
        assert found.interval == pytest.approx(expected.interval, abs=1e-7)
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("units", [2, 30])
def test_nothing_collapses_where_all_images_are_right(units):
    """The interval of a perfect fraction is that of as many shares, and differences have one."""
    perfect = estimate_fraction(1.0, np.ones(50), units)
    student = t.ppf(0.975, units - 1)
    assert perfect.interval == pytest.approx((1 / (1 + student**2 / units), 1))
    share = estimate_share(1.0, np.ones(50), units)
    assert share.low == binomtest(units, units).proportion_ci(method="wilson").low
    for one in (perfect, share):
        difference = one - one
        assert difference.value == 0
        assert (difference.low, difference.high) == pytest.approx((one.low - 1, 1 - one.low))
        assert mean([one, one]).low == pytest.approx(1 - (1 - one.low) / np.sqrt(2))
        assert worst([one, one]).low == one.low


def test_a_detector_does_not_differ_from_itself(rng):
    (one, *_), _ = fractions(rng, 0.8)
    assert (one - one).interval == (0, 0)


def test_one_image_tells_nothing():
    assert estimate_fraction(1.0, np.ones(5), 1).interval == (0, 1)
    assert np.isnan(estimate_fraction(1.0, np.zeros(0), 9).interval).all()
    assert np.isnan(estimate_fraction(np.nan, np.full(5, np.nan), 9).interval).all()


def test_units_are_images_or_groups():
    assert units_by_label(GROUP_LABELS) == {0: 6, 1: 6}
    assert units_by_label(GROUP_LABELS, GROUPS) == {0: 4, 1: 4}
    assert units_by_label(np.zeros(0, np.int64)) == {0: 0, 1: 0}


@pytest.mark.parametrize(("distance", "least"), [(4.1, 0.9), (2.5, 0.88)])
def test_intervals_hold_near_one(distance, least):
    """AP 0.998 and 0.96 of 30 + 30 images: quantiles of the draws hold 0.998 in 50 % of cases."""
    generator, labels, held = np.random.default_rng(0), np.repeat([0, 1], 30), []
    many = np.repeat([0, 1], 100_000)
    truth = average_precision(many, generator.normal(size=200_000) + distance * many)
    for seed in range(150):
        scores = generator.normal(size=60) + distance * labels
        rows, none = draw_resamples(labels, 100, seed), np.full(60, np.nan)
        found = measures(labels, scores, scores > 0, none, rows)["ap"]
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= least


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_worst_holds_the_least_true_value(spread):
    """Of four equal or unequal generators."""
    generator, held = np.random.default_rng(0), []
    truth = np.array([0.9, 0.9, 0.9, 0.9]) - spread * np.array([0.0, 0.02, 0.1, 0.3])
    for _ in range(300):
        shares = generator.binomial(100, truth) / 100
        draws = generator.binomial(100, shares, (80, 4)) / 100
        found = worst([estimate_share(v, d, 100) for v, d in zip(shares, draws.T, strict=True)])
        held.append(found.low <= truth.min() <= found.high)
    assert np.mean(held) >= 0.92
