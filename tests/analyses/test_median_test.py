"""Tests of channels against loops with scipy, and what they find where the truth is known."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from tests.helpers import tiny

from tff.ablations.color import Grayscale
from tff.analyses.median_test import SHARE_LABELS, MedianTest, compare_responses, conditional_shares

RANDOM = np.random.default_rng(0)


def responses(images=40, channels=12, seed=0):
    """Labels and responses with ties, shifts of all sizes, and a channel that never moves."""
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], images)[random.permutation(2 * images)]
    plain = random.normal(size=(2 * images, channels)) + labels[:, None] * np.linspace(0, 2, 12)
    ablated = 0.6 * plain + random.normal(size=plain.shape) - np.linspace(-1, 1, channels)
    plain[:, 4], ablated[:, 4] = plain[:, 4].round(), ablated[:, 4].round()
    ablated[:, 5] = plain[:, 5]
    return labels, plain, ablated


def delong(labels, a, b):
    """By two loops over pairs, as DeLong et al. (1988) write it."""
    ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def kernel(scores):
        return np.array([[(scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]) for j in zeros]
                         for i in ones])  # fmt: skip

    psi = [kernel(a), kernel(b)]
    of_ones, of_zeros = np.cov([k.mean(1) for k in psi]), np.cov([k.mean(0) for k in psi])
    cov = of_ones / len(ones) + of_zeros / len(zeros)
    variance = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    difference = psi[0].mean() - psi[1].mean()
    return 1.0 if variance < 1e-15 else 2 * scipy.stats.norm.sf(abs(difference) / variance**0.5)


def adjusted(p):
    """min over larger p of p m / rank, by a loop."""
    order, q, least = np.argsort(p), np.empty(len(p)), 1.0
    for rank in range(len(p), 0, -1):
        least = min(least, p[order[rank - 1]] * len(p) / rank)
        q[order[rank - 1]] = least
    return q


def test_each_column_equals_a_loop_with_scipy():
    labels, plain, ablated = responses()
    table = compare_responses(labels, plain, ablated)
    fake = labels == 1
    for channel, row in table.iterrows():
        x, y = plain[:, channel], ablated[:, channel]
        a, b = x[fake], y[fake]
        assert row["p_value"] == pytest.approx(scipy.stats.median_test(a, b)[1])
        moved = scipy.stats.wilcoxon(a, b, method="asymptotic").pvalue if (a != b).any() else 1.0
        assert row["wilcoxon_p"] == pytest.approx(moved)
        delta = np.mean([np.sign(v - u) for v in b for u in a])  # above 0: larger without the cue
        assert row["cliffs_delta"] == pytest.approx(delta)
        assert (row["median"], row["median_ablated"]) == (np.median(a), np.median(b))
        areas = roc_auc_score(labels, x), roc_auc_score(labels, y)
        assert (row["area"], row["area_ablated"]) == pytest.approx(areas)
        assert row["separation_p"] == pytest.approx(delong(labels, x, y))
        assert row["loses"] == (abs(areas[1] - 0.5) < abs(areas[0] - 0.5))
        mirrored = delong(labels, x, -y)
        assert row["strength_p"] == pytest.approx(max(row["separation_p"], mirrored))
        chance = max(delong(labels, v, np.zeros(len(v))) for v in (x, y))
        turned = (areas[0] - 0.5) * (areas[1] - 0.5) < 0
        assert row["turning_p"] == pytest.approx(chance if turned else 1)
    for p, q in (
        ("p_value", "q_value"), ("wilcoxon_p", "wilcoxon_q"), ("separation_p", "separation_q"),
        ("strength_p", "strength_q"), ("turning_p", "turning_q"),
    ):  # fmt: skip
        np.testing.assert_allclose(table[q], adjusted(table[p].to_numpy()))


def test_a_channel_that_separates_the_other_way_round_loses_too():
    labels = np.repeat([0, 1], 30)
    down = -2.0 * labels[:, None] + RANDOM.normal(size=(60, 1))
    table = compare_responses(labels, down, RANDOM.normal(size=(60, 1)))
    assert table["area"].item() < 0.2
    assert table["loses"].item()
    assert not compare_responses(labels, 0.1 * down + 5, down)["loses"].item()


def test_a_channel_that_turns_neither_loses_nor_gains(rng):
    labels = np.repeat([0, 1], 150)
    up = labels[:, None] + rng.normal(0, 0.3, (300, 3))
    # Turned to the full; turned and weaker; weaker on the same side.
    without = np.concatenate([-up[:, :1], -up[:, 1:2] + 0.3, up[:, 2:]], axis=1)
    without[:, 1:] += rng.normal(0, 1, (300, 2))
    shares = conditional_shares(compare_responses(labels, up, without), 0.05)
    assert shares["share_turning"] == pytest.approx(2 / 3)
    assert (shares["share_losing"], shares["share_gaining"]) == (pytest.approx(1 / 3), 0)
    back = conditional_shares(compare_responses(labels, without, up), 0.05)
    assert back["share_turning"] == pytest.approx(2 / 3)
    assert (back["share_losing"], back["share_gaining"]) == (0, pytest.approx(1 / 3))


def test_shares_count_channels():
    tests = pd.DataFrame(
        {
            "p_value": [0.05, 0.01, 0.2, 0.9],
            "q_value": [0.07, 0.04, 0.2, 0.9],
            "wilcoxon_q": [0.01, 0.02, 0.03, 0.06],
            "separation_q": [0.01, 0.02, 0.5, 0.05],
            "strength_q": [0.01, 0.03, 0.5, 0.04],
            "turning_q": [0.9, 1.0, 0.06, 0.02],
            "loses": [True, False, True, True],
        }
    )
    assert conditional_shares(tests, 0.05) == {
        "share": 0.5, "share_corrected": 0.25, "share_paired": 0.75, "share_losing": 0.25,
        "share_gaining": 0.25, "share_turning": 0.25, "share_separating": 0.5,
    }  # fmt: skip
    assert [*SHARE_LABELS, "share_separating"] == list(conditional_shares(tests, 0.05))
    assert all(np.isnan(share) for share in conditional_shares(tests.head(0), 0.05).values())


def test_nan_and_infinite_responses():
    labels, plain, ablated = responses()
    plain[3, 2], ablated[7, 2], plain[1, 3] = np.nan, np.inf, -np.inf
    table = compare_responses(labels, plain.astype(np.float32), ablated.astype(np.float32))
    assert table.drop(columns="loses").apply(np.isfinite).all(axis=None)


@pytest.mark.parametrize("label", [0, 1])
def test_images_of_one_kind_have_no_separation(label):
    values = RANDOM.normal(size=(9, 4))
    table = compare_responses(np.full(9, label), values, values + 1)
    assert table[["area", "separation_p", "separation_q"]].isna().all(axis=None)
    assert not table["loses"].any()
    assert table["p_value"].isna().all() == (label == 0)
    assert conditional_shares(table, 0.05)["share_separating"] == 0


def simulated(random, informative, n=100, channels=40):
    """Channels that all respond strongly to a cue; only some tell the labels apart, by the cue."""
    labels = np.repeat([0, 1], n)
    own = random.normal(size=(2 * n, channels))  # what the cue does not change
    told = np.where(np.arange(channels) < informative, 1.0, 0.0) * labels[:, None]
    return labels, own + random.normal(3, 0.5, own.shape) + told, own


def test_responding_but_uninformative_channels_are_no_discoveries():
    random = np.random.default_rng(1)
    counted = [
        conditional_shares(compare_responses(*simulated(random, 0)), 0.05) for _ in range(200)
    ]
    table = pd.DataFrame(counted)
    # The paper's test and the paired one find the cue in all of them.
    assert table["share"].min() > 0.99
    assert table["share_paired"].min() == 1
    # Where nothing is lost, a family with any discovery is a false one: at most alpha of them.
    assert table["share_separating"].mean() <= 0.05
    assert (table["share_separating"] > 0).mean() <= 0.05
    assert (table["share_separating"] > 0).any()  # yet it is not blind
    for name in ("share_losing", "share_gaining", "share_turning"):
        assert (table[name] > 0).mean() <= 0.05


def test_channels_whose_information_goes_with_the_cue_are_found():
    random = np.random.default_rng(2)
    found = np.zeros(40)
    for _ in range(20):
        tests = compare_responses(*simulated(random, informative=10))
        found += ((tests["separation_q"] <= 0.05) & tests["loses"]) / 20
    assert found[:10].min() > 0.9
    assert found[10:].mean() <= 0.05


def test_median_test_equals_scipy_on_maxima(red_subject):
    table = MedianTest(Grayscale())(red_subject).tables["median_test"]
    images = tiny.pixels(red_subject.images.test)
    fakes = red_subject.labels == 1
    maxima = {}
    for name, batch in {"plain": images, "gray": Grayscale()(images)}.items():
        outs = {}
        hooks = [
            red_subject.detector.network.get_submodule(layer).register_forward_hook(
                lambda _m, _i, out, layer=layer, outs=outs: outs.update({layer: out.amax((2, 3))})
            )
            for layer in red_subject.channels.layers
        ]
        with torch.no_grad():
            red_subject.detector(batch)
        for hook in hooks:
            hook.remove()
        maxima[name] = torch.cat([outs[layer] for layer in red_subject.channels.layers], 1).numpy()
    generator_of = red_subject.images.test.manifest["generator"].to_numpy()
    for row in table.itertuples():
        rows = fakes & (generator_of == row.generator)
        column = red_subject.channels.flat_index(row.layer, row.channel)
        a, b = maxima["plain"][rows, column], maxima["gray"][rows, column]
        try:
            expected = scipy.stats.median_test(a, b)[1]
        except ValueError:  # all values equal to the grand median
            expected = 1.0
        assert row.p_value == pytest.approx(expected, rel=1e-6)
    assert len(table) == 3 * red_subject.k


def test_share_counts_small_p_values(red_subject):
    result = MedianTest(Grayscale(), alpha=0.2)(red_subject)
    table, shares = result.tables["median_test"], result.tables["conditional_share"]
    for row in shares.itertuples():
        mine = table[table["generator"] == row.generator]["p_value"]
        assert row.share == (mine <= 0.2).mean()


@pytest.mark.parametrize("alpha", [0, 1, 5])
def test_an_alpha_that_is_no_probability_is_refused(alpha):
    with pytest.raises(
        ValueError, match=rf"analysis\.median_test\.alpha={alpha}: expected a number above 0"
    ):
        MedianTest(Grayscale(), alpha=alpha)


def test_all_channels_are_tested_on_the_sample_and_the_top_on_all_images(red_root):
    subject = tiny.subject(red_root, sample=4)
    result = MedianTest(Grayscale(), alpha=0.3)(subject)
    top, every = result.tables["median_test"], result.tables["median_test_all"]
    assert (set(top["images"]), set(every["images"]), set(every["images_real"])) == ({9}, {4}, {4})
    assert len(every) == 3 * 12
    place = {(r.layer, r.channel): r.rank for r in every.itertuples()}
    names = subject.channels.table().iloc[subject.ranking.numpy()]
    assert [place[name] for name in names.itertuples(index=False, name=None)] == list(range(1, 13))
    for row in result.tables["conditional_share"].itertuples():
        mine = every[every["generator"] == row.generator]
        assert row.share_of_all == (mine["p_value"] <= 0.3).mean()
        lost = (mine["separation_q"] <= 0.3) & mine["loses"]
        assert row.share_separating_of_all == lost.mean()
        assert row.ablation == repr(Grayscale())


def test_findings_of_the_median_test_are_means_over_generators(red_subject):
    result = MedianTest(Grayscale())(red_subject)
    share = result.tables["conditional_share"]
    for name in (*SHARE_LABELS, "share_separating"):
        assert result.scalars[f"conditional_{name}"] == pytest.approx(share[name].mean())
    assert result.findings[0].startswith(f"{100 * share['share'].mean():.0f} % of the top 3 ")
    logits = [red_subject.evaluate(cue).logits for cue in (None, Grayscale())]
    for row in share.itertuples():
        rows = red_subject.images.test.rows_of(row.generator)
        aps = [average_precision_score(red_subject.labels[rows], one[rows]) for one in logits]
        assert [row.ap, row.ap_ablated, row.ap_drop] == pytest.approx([*aps, aps[0] - aps[1]])
        assert row.ap_drop_low <= row.ap_drop <= row.ap_drop_high
    drop = share["ap_drop"].mean()
    verb = "falls by" if drop >= 0 else "rises by"
    assert f"{share['ap'].mean():.3f}, {verb} {abs(drop):.3f} (" in result.findings[1]
    assert any("Fewer than 20" in warning for warning in result.warnings)


def test_effects_on_the_decision_stand_beside_the_tests(red_subject):
    plain, both = (MedianTest(Grayscale(), mediated=m)(red_subject).tables for m in (False, True))
    found = red_subject.attribute(Grayscale())
    for name, flat in (("median_test", red_subject.top), ("median_test_all", torch.arange(12))):
        columns = ["mediated", "mediated_error"]
        pd.testing.assert_frame_equal(both[name].drop(columns=columns), plain[name])
        for generator, part in both[name].groupby("generator"):
            expected = np.stack(found.gap([generator]), axis=1)[flat.numpy()]
            np.testing.assert_array_equal(part[columns], expected)
