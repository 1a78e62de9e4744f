"""The tables of `Sensitivity`, against literal loops over resamples."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tests.helpers import fake_subject, tiny
from tests.helpers.bootstrap_by_hand import Known, average, chance, difference, wilson

from tff.analyses.engine.protocol import Protocol
from tff.analyses.engine.top_channels import CRITERIA
from tff.analyses.sensitivity import Sensitivity
from tff.detectors.hooks import drop_channels
from tff.statistics.bootstrap import draw_resamples
from tff.statistics.detection import sigmoid  # a threshold is one of its very values

GENERATORS = ("other", "seen", "third")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), GENERATORS, images=20, size=16)


@pytest.fixture(scope="module")
def subject(root):
    return fake_subject.subject(root)


@pytest.fixture(scope="module")
def result(subject):
    return Sensitivity(random_draws=3)(subject)


def scores_of(subject, draws=3):
    """What is judged, by the words of the released code: the mean probability of random draws."""
    choices = Sensitivity(random_draws=draws).choices(subject)
    logits = subject.evaluate_without_channels(choices)
    scores = {"none": subject.evaluate().logits, "top_k": logits["top_k"], "low_k": logits["low_k"]}
    single = {
        f"{name}_k": [sigmoid(logits[f"{name}_{i}"]) for i in range(draws)]
        for name in ("random", "matched")
    }
    return scores | {name: np.mean(ps, axis=0) for name, ps in single.items()}, single


def aps_of(subject, at, score):
    """AP of the images, and of each resample, by one call a resample."""
    labels = subject.labels[at]
    draws = [
        average_precision_score(labels[rows], score[at][rows])
        for rows in draw_resamples(labels, subject.draws, subject.seed)
    ]
    value = average_precision_score(labels, score[at])
    return Known.of_fraction(value, draws, min(np.bincount(labels)))


def check(row, name, known, reach=0, shares=False):
    """Value and interval of a column."""
    low, high = np.clip(known.with_chance(reach), *((0, 1) if shares else (-9, 9)))
    found = row[[name, f"{name}_low", f"{name}_high"]].astype(float)
    np.testing.assert_allclose(found, [known.value, low, high], atol=1e-7)


def test_ap_its_interval_and_its_drop_equal_a_loop(subject, result):
    table, (scores, single) = result.tables["sensitivity"], scores_of(subject)
    assert len(table) == 3 * 5
    for generator, at in subject.generators():
        plain = aps_of(subject, at, scores["none"])
        for name, score in scores.items():
            row = table[(table["generator"] == generator) & (table["dropout"] == name)].iloc[0]
            each = [aps_of(subject, at, p) for p in single.get(name, [score])]
            reach = chance(each)
            check(row, "ap", average(each), reach, shares=True)
            check(row, "ap_ensemble", aps_of(subject, at, score))
            assert row["k"] == (0 if name == "none" else 3)
            if name == "none":
                assert np.isnan(row["ap_drop"])
                continue
            check(row, "ap_drop", average([difference(plain, one) for one in each]), reach)
            told_of = row[["ap_draws_mean", "ap_draws_sd", "ap_draws_min", "ap_draws_max"]]
            values = [one.value for one in each]
            literal = [np.mean(values), np.std(values, ddof=1), min(values), max(values)] \
                if name in single else [np.nan] * 4  # fmt: skip
            np.testing.assert_allclose(told_of.astype(float), literal)


def test_differences_from_controls_are_paired_and_include_variation_of_draws(subject, result):
    # Against the mean AP of single draws: the mean of their probabilities does better than any.
    table, (scores, single) = result.tables["sensitivity_against_matched"], scores_of(subject)
    by_generator = dict(subject.generators())
    for control in ("random_k", "matched_k", "low_k"):
        tops, sets = {}, {}
        for generator, at in by_generator.items():
            tops[generator] = aps_of(subject, at, scores["top_k"])
            several = single.get(control, [scores[control]])
            sets[generator] = [aps_of(subject, at, score) for score in several]
        tops["the seen generator"], sets["the seen generator"] = tops["seen"], sets["seen"]
        unseen = "generators never seen (mean)"
        tops[unseen] = average([tops["other"], tops["third"]])
        pairs = zip(sets["other"], sets["third"], strict=True)
        sets[unseen] = [average(pair) for pair in pairs]
        part = table[table["against"] == control].set_index("generator")
        assert set(part.index) == set(tops)
        for generator, drawn in sets.items():
            found = difference(average(drawn), tops[generator])
            for name, one_more in (("ap_lower_by", True), ("ap_lower_by_on_average", False)):
                check(part.loc[generator], name, found, chance(drawn, one_more))


def test_a_single_draw_knows_no_chance(subject):
    result = Sensitivity(random_draws=1)(subject)
    table = result.tables["sensitivity_against_matched"].set_index("against")
    assert table.loc["matched_k", ["ap_lower_by_low", "ap_lower_by_high"]].isna().all(axis=None)
    assert table.loc["low_k", "ap_lower_by_low"].notna().all()
    assert all(
        "significance unknown, since there is a single random draw" in finding
        for finding in result.findings
    )


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
@pytest.mark.parametrize("shift", [20, 40])
def test_equal_logits_are_judged_alike_whatever_was_dropped(root, scores, shift):
    """Probabilities of such logits saturate: what is drawn may do no better for that, nor worse."""
    scoring = {"scoring": Protocol(scores=scores)}
    plain = fake_subject.subject(root, scoring).evaluate().logits + shift
    subject = fake_subject.subject(
        root, scoring, change=lambda _name, z: plain if len(z) == len(plain) else z
    )
    result = Sensitivity()(subject)
    table = result.tables["sensitivity"]
    assert table.groupby("generator")["ap"].agg(np.ptp).lt(1e-12).all()
    assert table.groupby("generator")["ap_ensemble"].nunique().eq(1).all()
    assert table.groupby("generator")["fake_accuracy"].agg(np.ptp).lt(1e-12).all()
    assert (result.tables["sensitivity_against_matched"]["ap_lower_by"].abs() < 1e-12).all()


def test_accuracies_fall_by_the_difference(result):
    table = result.tables["sensitivity"].set_index(["generator", "dropout"])
    for generator in GENERATORS:
        plain, top = table.loc[(generator, "none")], table.loc[(generator, "top_k")]
        for name in ("real_accuracy", "fake_accuracy"):
            assert top[f"{name}_drop"] == pytest.approx(plain[name] - top[name])
            assert top[f"{name}_drop_low"] <= top[f"{name}_drop"] <= top[f"{name}_drop_high"]
            assert np.isnan(plain[f"{name}_drop"])


def balance(labels, p, threshold):
    """What the released code makes largest, of images at or above a threshold."""
    called = p >= threshold
    return np.sqrt(called[labels == 1].mean() * (1 - called[labels == 0].mean()))


def test_accuracies_at_each_threshold_equal_a_count(subject, result):
    table, (scores, _) = result.tables["sensitivity_thresholds"], scores_of(subject)
    assert len(table) == 3 * 5 * 3
    validation = subject.evaluate(split="discovery").logits
    validation_labels = subject.images.discovery.manifest["label"].to_numpy()
    for generator, at in subject.generators():
        labels, plain = subject.labels[at], sigmoid(scores["none"])[at]
        for row in table[table["generator"] == generator].itertuples():
            if row.threshold_rule == "half":
                assert row.threshold == 0.5
            else:
                of = (labels, plain)
                if row.threshold_rule == "validation":
                    of = (validation_labels, sigmoid(validation))
                best = max(balance(*of, t) for t in of[1])
                assert balance(*of, row.threshold - 1e-12) == pytest.approx(best)
            score = scores[row.dropout][at]
            p = score if row.dropout in ("random_k", "matched_k") else sigmoid(score)
            called = p > row.threshold
            for name, right in (("real", ~called[labels == 0]), ("fake", called[labels == 1])):
                assert getattr(row, f"{name}_accuracy") == right.mean()
                interval = (
                    getattr(row, f"{name}_accuracy_low"), getattr(row, f"{name}_accuracy_high")
                )  # fmt: skip
                assert interval == pytest.approx(wilson(right.mean(), len(right)), abs=1e-9)


def test_findings_say_whether_it_is_significant(subject, result):
    contrast = result.tables["sensitivity_against_matched"].query("against == 'matched_k'")
    for where, finding in zip(
        ("the seen generator", "generators never seen (mean)"), result.findings, strict=True
    ):
        row = contrast[contrast["generator"] == where].iloc[0]
        assert finding.startswith(f"On {where}: AP ")
        low, high = row[["ap_lower_by_low", "ap_lower_by_high"]]
        sign, word = (-1, "less") if row["ap_lower_by"] < 0 else (1, "more")
        average, one = (
            "{:.3f} to {:.3f}".format(*sorted(sign * row[[f"{name}_low", f"{name}_high"]]))
            for name in ("ap_lower_by_on_average", "ap_lower_by")
        )
        assert (
            f"The top 3 channels cost {abs(row['ap_lower_by']):.3f} {word} AP than random ones of "
            f"the same layers on average ({average}), and {one} {word} than one more draw of them: "
        ) in finding
        assert finding.endswith(": significantly more than random channels.") == (low > 0)
        assert finding.endswith(": significantly less than random channels.") == (high < 0)
    table = result.tables["sensitivity"]
    top = table[(table["dropout"] == "top_k") & ~table["seen"]]
    assert result.scalars["unseen_ap_top_k"] == pytest.approx(top["ap"].mean())


def test_findings_show_the_numbers_of_the_table(subject, result):
    table = result.tables["sensitivity"].query("generator == 'seen'").set_index("dropout")["ap"]
    words = result.findings[0]
    assert f"AP is {table['none']:.3f}; without the top 3 channels it " in words
    for name, what in (
        ("top_k", "the top 3 channels it "),
        ("matched_k", "as many random ones from the same layers it "),
        ("random_k", "random ones from anywhere it "),
        ("low_k", "the lowest it "),
    ):
        told = words.split(f"without {what}")[1]
        change = "rises to" if table[name] > table["none"] else "falls to"
        change = change if f"{table[name]:.3f}" != f"{table['none']:.3f}" else "stays at"
        assert told.startswith(f"{change} {table[name]:.3f}")


def test_matched_channels_lie_in_the_layers_of_the_top(subject):
    choices = Sensitivity(random_draws=4).choices(subject)
    layer_of = subject.channels.table()["layer"].to_numpy()
    for i in range(4):
        matched = choices[f"matched_{i}"].numpy()
        assert layer_of[matched].tolist() == layer_of[subject.top.numpy()].tolist()


def test_there_is_no_verdict_where_k_was_chosen_by_the_top(root):
    result = Sensitivity()(fake_subject.subject(root, {"k": "auto", "k_below": 0.8}))
    assert all(f.endswith(": no verdict, since k was chosen where the top k hurt.")
               for f in result.findings)  # fmt: skip
    assert any("Pass subject.k=NUMBER" in warning for warning in result.warnings)
    given = Sensitivity()(fake_subject.subject(root, {"k": 3}))
    assert not any("no verdict" in f for f in given.findings)
    assert not given.warnings


def test_ties_among_the_lowest_are_told(root):
    def caption(scores):
        subject = fake_subject.subject(root)
        subject.score_channels = lambda _by, _seed=None: np.array(scores, float)
        return Sensitivity(random_draws=2)(subject).captions["sensitivity"]

    assert "drawn at random" not in caption(range(12))
    assert caption([5, 4, 3, *[0] * 9]).endswith(
        f"The lowest 3 were drawn at random: 9 channels share the lowest {CRITERIA['omega']}."
    )


def test_oracle_threshold_gives_a_warning(root):
    subject = fake_subject.subject(root, {"scoring": Protocol(threshold="oracle")})
    result = Sensitivity()(subject)
    assert any("optimistic" in warning for warning in result.warnings)
    rows = result.tables["sensitivity"].drop_duplicates("generator").set_index("generator")
    every = result.tables["sensitivity_thresholds"].query("threshold_rule == 'oracle'")
    for row in every.itertuples():
        assert row.threshold == rows.loc[row.generator, "threshold"]


def test_no_random_draw_is_refused():
    with pytest.raises(
        ValueError, match=r"analysis\.sensitivity\.random_draws=0: expected a whole"
    ):
        Sensitivity(random_draws=0)


def test_sensitivity_equals_a_loop_over_models(red_subject):
    analysis = Sensitivity(random_draws=3)
    table = analysis(red_subject).tables["sensitivity"]
    choices, images = analysis.choices(red_subject), tiny.pixels(red_subject.images.test)
    logits = {"none": red_subject.detector(images)}
    for name, channels in choices.items():
        with drop_channels(red_subject.detector, channels):
            logits[name] = red_subject.detector(images)
    random = torch.stack([logits[f"random_{i}"].double().sigmoid() for i in range(3)]).mean(0)
    scores = {name: logits[name] for name in ("none", "top_k", "low_k")} | {"random_k": random}
    for generator, rows in red_subject.generators():  # noqa: B007  # named in the query
        for name, score in scores.items():
            row = table.query("generator == @generator and dropout == @name").iloc[0]
            labels, score = red_subject.labels[rows], score[rows].detach().double().numpy()
            assert row["ap"] == pytest.approx(average_precision_score(labels, score), abs=1e-6)
            called = score > (0.5 if name == "random_k" else 0)
            assert row["real_accuracy"] == np.mean(~called[labels == 0])
            assert row["fake_accuracy"] == np.mean(called[labels == 1])
            assert 0 <= row["ap_low"] <= row["ap_high"] <= 1
    assert table["generator"].iloc[0] == "seen"
    assert table.query("dropout == 'top_k'")["ap"].mean() < table["ap"].max()


def test_random_channels_avoid_the_top_and_come_from_the_seed(red_root):
    subject, again = (tiny.subject(red_root, seed=3) for _ in range(2))
    choices, same = Sensitivity().choices(subject), Sensitivity().choices(again)
    other = Sensitivity().choices(tiny.subject(red_root, seed=4))
    for name, channels in choices.items():
        assert len(set(channels.tolist())) == subject.k
        assert torch.equal(channels, same[name])
        if name.startswith("random"):
            assert not set(channels.tolist()) & set(subject.top.tolist())
    assert any(not torch.equal(choices[n], other[n]) for n in choices if n.startswith("random"))


def test_too_large_k_for_controls_is_refused(red_root):
    with pytest.raises(ValueError, match="as many other channels"):
        Sensitivity()(tiny.subject(red_root, k=7))
