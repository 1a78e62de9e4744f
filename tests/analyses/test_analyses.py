import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tests.helpers import fake_subject, tiny
from tests.helpers.bootstrap_by_hand import ends

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.analysis import run
from tff.analyses.engine.passes import Passes
from tff.analyses.engine.subject import TooFewImagesError
from tff.analyses.heatmaps import Examples
from tff.analyses.median_test import MedianTest
from tff.analyses.ranking import Ranking
from tff.analyses.sensitivity import Sensitivity
from tff.detectors.hooks import drop_channels
from tff.published.rankings import read_omega
from tff.relevance.lrp import channel_relevance
from tff.statistics.bootstrap import draw_resamples


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other", "third"), images=9)


@pytest.fixture
def subject(root):
    return tiny.subject(root)


def pixels(subject, split="test"):
    images = getattr(subject.images, split)
    stacked = torch.stack([images[0, row].image for row in range(len(images))])
    return stacked.float() / 255


def test_omega_is_the_mean_share_of_confident_images(subject):
    images, labels = pixels(subject, "discovery"), subject.images.discovery.manifest["label"]
    shares = torch.cat(list(channel_relevance(subject.detector, images).values()), 1).double()
    p = subject.detector(images).sigmoid()
    for name, mask in {
        "fake": (p >= 0.9) & torch.tensor(labels == 1),
        "real": (p <= 0.1) & torch.tensor(labels == 0),
    }.items():
        omega = subject.relevance[name]
        assert omega.images == int(mask.sum()) > 1
        np.testing.assert_allclose(omega.omega, shares[mask].mean(0), atol=1e-6)
        error = shares[mask].std(0) / mask.sum() ** 0.5
        np.testing.assert_allclose(omega.error, error, atol=1e-6)


def test_ranking_is_sorted_stable_and_complete(subject):
    table = Ranking()(subject).tables["ranking"]
    assert len(table) == len(subject.channels) == 12
    keys = list(zip(-table["omega"], [subject.channels.flat_index(r.layer, r.channel) for r in
                                      table.itertuples()], strict=True))  # fmt: skip
    assert keys == sorted(keys)
    assert {"layer", "channel", "omega", "omega_real", "crop", "weights", "seed"} <= set(table)


def test_rankings_are_written_in_the_published_format(subject, tmp_path):
    result = Ranking()(subject)
    for kind in ("fake", "real"):
        table = result.tables[f"omega_{kind}"]
        assert table["key"].str.fullmatch(r"conv[12]\.#\d\(T=6\)").all()
        assert table["mean_relevance"].is_monotonic_decreasing
        table.sample(frac=1, random_state=1).to_csv(tmp_path / "other.csv", index=False)
        again = read_omega(tmp_path / "other.csv", subject.channels)
        np.testing.assert_array_equal(again, subject.relevance[kind].omega)


def test_no_confident_image_is_a_clear_error(root):
    subject = tiny.subject(root, confidence=1.0)
    with pytest.raises(TooFewImagesError, match=r"subject\.confidence"):
        Ranking()(subject)


@pytest.mark.parametrize("k", [0, 13])
def test_impossible_k_is_refused(root, k):
    with pytest.raises(ValueError, match="between 1 and the number of channels, 12"):
        tiny.subject(root, k=k)


def test_sensitivity_equals_a_loop_over_models(subject):
    analysis = Sensitivity(random_draws=3)
    table = analysis(subject).tables["sensitivity"]
    choices, images = analysis.choices(subject), pixels(subject)
    logits = {"none": subject.detector(images)}
    for name, channels in choices.items():
        with drop_channels(subject.detector, channels):
            logits[name] = subject.detector(images)
    random = torch.stack([logits[f"random_{i}"].double().sigmoid() for i in range(3)]).mean(0)
    scores = {name: logits[name] for name in ("none", "top_k", "low_k")} | {"random_k": random}
    for generator, rows in subject.generators():  # noqa: B007  # named in the query
        for name, score in scores.items():
            row = table.query("generator == @generator and dropout == @name").iloc[0]
            labels, score = subject.labels[rows], score[rows].detach().double().numpy()
            assert row["ap"] == pytest.approx(average_precision_score(labels, score), abs=1e-6)
            called = score > (0.5 if name == "random_k" else 0)
            assert row["real_accuracy"] == np.mean(~called[labels == 0])
            assert row["fake_accuracy"] == np.mean(called[labels == 1])
            assert 0 <= row["ap_low"] <= row["ap_high"] <= 1
    assert table["generator"].iloc[0] == "seen"
    assert table.query("dropout == 'top_k'")["ap"].mean() < table["ap"].max()


def test_random_channels_avoid_the_top_and_come_from_the_seed(root):
    subject, again = (tiny.subject(root, seed=3) for _ in range(2))
    choices, same = Sensitivity().choices(subject), Sensitivity().choices(again)
    other = Sensitivity().choices(tiny.subject(root, seed=4))
    for name, channels in choices.items():
        assert len(set(channels.tolist())) == subject.k
        assert torch.equal(channels, same[name])
        if name.startswith("random"):
            assert not set(channels.tolist()) & set(subject.top.tolist())
    assert any(not torch.equal(choices[n], other[n]) for n in choices if n.startswith("random"))


def test_too_large_k_for_controls_is_refused(root):
    with pytest.raises(ValueError, match="as many other channels"):
        Sensitivity()(tiny.subject(root, k=7))


def test_ablation_equals_pillow_and_a_direct_count(subject):
    table = Ablation(Grayscale())(subject).tables["ablation"]
    detector = subject.detector
    for generator, rows in subject.generators():
        paths = subject.images.test.manifest["path"].iloc[rows]
        gray = [np.asarray(Image.open(p).convert("RGB").convert("L").convert("RGB")) for p in paths]
        plain = [np.asarray(Image.open(p).convert("RGB")) for p in paths]
        labels = subject.labels[rows]
        values = {}
        for name, images in {"": plain, "_ablated": gray}.items():
            batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
            logits = detector(batch).detach().double()
            values[name] = logits.sigmoid().numpy()
            row = table[table["generator"] == generator].iloc[0]
            expected = average_precision_score(labels, logits.numpy())
            assert row[f"ap{name}"] == pytest.approx(expected, abs=1e-6)
            assert row[f"fake_accuracy{name}"] == np.mean(values[name][labels == 1] > 0.5)
        shown = (labels == 1) & (values[""] >= 0.2)
        drop = np.median(values[""][shown]) - np.median(values["_ablated"][shown])
        assert row["median_drop"] == pytest.approx(drop, abs=1e-6)
        assert row["median_drop_low"] <= row["median_drop_high"]
        assert row["cue"] == "color"


def test_a_detector_of_red_loses_everything_without_color(subject):
    table = Ablation(Grayscale())(subject).tables["ablation"]
    assert (table["ap"] > 0.95).all()
    assert (table["ap_ablated"] < 0.8).all()
    assert (table["median_drop"] > 0.5).all()


def test_median_test_equals_scipy_on_maxima(subject):
    table = MedianTest(Grayscale())(subject).tables["median_test"]
    images = pixels(subject)
    fakes = subject.labels == 1
    maxima = {}
    for name, batch in {"plain": images, "gray": Grayscale()(images)}.items():
        outs = {}
        hooks = [
            subject.detector.network.get_submodule(layer).register_forward_hook(
                lambda _m, _i, out, layer=layer, outs=outs: outs.update({layer: out.amax((2, 3))})
            )
            for layer in subject.channels.layers
        ]
        with torch.no_grad():
            subject.detector(batch)
        for hook in hooks:
            hook.remove()
        maxima[name] = torch.cat([outs[layer] for layer in subject.channels.layers], 1).numpy()
    generator_of = subject.images.test.manifest["generator"].to_numpy()
    for row in table.itertuples():
        rows = fakes & (generator_of == row.generator)
        column = subject.channels.flat_index(row.layer, row.channel)
        a, b = maxima["plain"][rows, column], maxima["gray"][rows, column]
        try:
            expected = scipy.stats.median_test(a, b)[1]
        except ValueError:  # all values equal to the grand median
            expected = 1.0
        assert row.p_value == pytest.approx(expected, rel=1e-6)
    assert len(table) == 3 * subject.k


def test_share_counts_small_p_values(subject):
    result = MedianTest(Grayscale(), alpha=0.2)(subject)
    table, shares = result.tables["median_test"], result.tables["conditional_share"]
    for row in shares.itertuples():
        mine = table[table["generator"] == row.generator]["p_value"]
        assert row.share == (mine <= 0.2).mean()


def test_passes_are_shared(root, monkeypatch):
    calls = []
    for name in ("relevance", "evaluate", "evaluate_dropped"):
        original = getattr(Passes, name)

        def counted(self, *args, name=name, original=original, **kwargs):
            calls.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(Passes, name, counted)
    # Two cues that are equal, as two entries of a configuration make them.
    analyses = {
        "ablation": Ablation(Grayscale()),
        "ranking": Ranking(),
        "sensitivity": Sensitivity(),
        "median_test": MedianTest(Grayscale()),
    }
    results = run(analyses, tiny.subject(root))
    # As it is, without the cue, and on the validation images, for a threshold.
    assert sorted(calls) == ["evaluate"] * 3 + ["evaluate_dropped", "relevance"]
    assert list(results) == list(analyses)


def test_alone_or_together_gives_the_same_numbers(root):
    analyses = {
        "ablation": Ablation(Grayscale()),
        "ranking": Ranking(),
        "median_test": MedianTest(Grayscale()),
    }
    together = run(analyses, tiny.subject(root))
    for name, analysis in analyses.items():
        alone = analysis(tiny.subject(root))
        for table in alone.tables:
            pd.testing.assert_frame_equal(
                alone.tables[table], together[name].tables[table], check_exact=True
            )


def test_examples_show_every_generator(subject):
    result = Examples(images=2)(subject)
    assert list(result.figures) == ["examples_seen", "examples_other", "examples_third"]
    assert "never seen" in result.captions["examples_other"]


def test_the_detector_given_is_untouched(root):
    detector = tiny.detector().train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    subject = tiny.Subject.of(detector, tiny.splits(root), draws=10, device="cpu")
    run({"r": Ranking(), "s": Sensitivity(), "m": MedianTest(Grayscale())}, subject)
    assert detector.training
    assert all(p.requires_grad and p.grad is None for p in detector.parameters())
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    for module in [*detector.modules(), *subject.detector.modules()]:
        assert not module._forward_hooks
        assert not module._backward_hooks


@pytest.fixture(scope="module")
def noisy(root):
    """A detector whose errors with and without color are much alike."""
    return fake_subject.subject(root, {"draws": 200}, signal={"": 1.5, "color": 1.2}, own=0.1)


def ap_draws(subject, at, logits, seed):
    labels = subject.labels[at]
    return np.array([average_precision_score(labels[rows], logits[at][rows])
                     for rows in draw_resamples(labels, subject.draws, seed)])  # fmt: skip


def test_a_drop_of_ap_is_taken_image_by_image(noisy):
    result = Ablation(Grayscale())(noisy)
    table, drops = result.tables["ablation"].set_index("generator"), {}
    plain, ablated = noisy.evaluate().logits, noisy.evaluate(Grayscale()).logits
    for generator, at in noisy.generators():
        row, pair = table.loc[generator], [ap_draws(noisy, at, z, 0) for z in (plain, ablated)]
        drops[generator] = pair[0] - pair[1]
        assert row["ap_drop"] == pytest.approx(row["ap"] - row["ap_ablated"])
        expected = ends(row["ap_drop"], drops[generator])
        assert (row["ap_drop_low"], row["ap_drop_high"]) == pytest.approx(expected)
        # Other resamples for each side, as if they were other images, tell much less.
        alone = ap_draws(noisy, at, plain, 1) - ap_draws(noisy, at, ablated, 2)
        assert expected[1] - expected[0] < 0.6 * np.diff(np.quantile(alone, [0.025, 0.975]))[0]
    summary = result.tables["ablation_summary"].set_index("where")
    assert list(summary.index) == ["seen", "unseen", "unseen_worst"]
    both = np.array([drops["other"], drops["third"]])
    for where, over in (("unseen", np.mean), ("unseen_worst", np.max)):  # the largest drop
        row = summary.loc[where]
        assert row["ap_drop"] == pytest.approx(over(table.loc[["other", "third"], "ap_drop"]))
        expected = ends(row["ap_drop"], over(both, axis=0))
        assert (row["ap_drop_low"], row["ap_drop_high"]) == pytest.approx(expected)
        assert result.scalars[f"{where}_ap_drop"] == row["ap_drop"]
    assert summary.loc["seen", "ap_drop"] == table.loc["seen", "ap_drop"]


def test_the_interval_of_a_median_drop_equals_a_loop(noisy):
    table = Ablation(Grayscale(), suspicious=0.5)(noisy).tables["ablation"].set_index("generator")
    plain, ablated = (1 / (1 + np.exp(-noisy.evaluate(cue).logits)) for cue in (None, Grayscale()))
    for generator, at in noisy.generators():
        a, b, labels = plain[at], ablated[at], noisy.labels[at]
        drops = []
        for rows in draw_resamples(labels, noisy.draws, 0):
            kept = rows[(labels[rows] == 1) & (a[rows] >= 0.5)]
            drops.append(np.median(a[kept]) - np.median(b[kept]) if len(kept) else np.nan)
        row = table.loc[generator]
        expected = ends(row["median_drop"], drops)
        assert (row["median_drop_low"], row["median_drop_high"]) == pytest.approx(expected)
        assert row["images_boxed"] == ((labels == 1) & (a >= 0.5)).sum()


def test_without_suspicious_images_there_is_no_median_drop(subject):
    result = Ablation(Grayscale(), suspicious=1.1)(subject)
    assert result.tables["ablation"]["median_drop"].isna().all()
    assert not any("median probability" in finding for finding in result.findings)
    assert any("analysis.ablation.suspicious" in warning for warning in result.warnings)


@pytest.mark.parametrize("alpha", [0, 1, 5])
def test_an_alpha_that_is_no_probability_is_refused(alpha):
    with pytest.raises(
        ValueError, match=rf"analysis\.median_test\.alpha={alpha}: expected a number above 0"
    ):
        MedianTest(Grayscale(), alpha=alpha)


def test_all_channels_are_tested_on_the_sample_and_the_top_on_all_images(root):
    subject = tiny.subject(root, sample=4)
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


def test_findings_of_the_median_test_are_means_over_generators(subject):
    result = MedianTest(Grayscale())(subject)
    share = result.tables["conditional_share"]
    for name in ("share", "share_corrected", "share_paired", "share_separating"):
        assert result.scalars[f"conditional_{name}"] == pytest.approx(share[name].mean())
    assert result.findings[0].startswith(f"{100 * share['share'].mean():.0f} % of the top 3 ")
    assert any("Fewer than 20" in warning for warning in result.warnings)
