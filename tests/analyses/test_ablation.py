import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tests.helpers import fake_subject
from tests.helpers.bootstrap_by_hand import Known, average, ends, weighted_sum, worst

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.engine.evaluation import describe_drop
from tff.statistics.bootstrap import Estimate, draw_resamples


def test_ablation_equals_pillow_and_a_direct_count(red_subject):
    table = Ablation(Grayscale())(red_subject).tables["ablation"]
    detector = red_subject.detector
    for generator, rows in red_subject.generators():
        paths = red_subject.images.test.manifest["path"].iloc[rows]
        gray = [np.asarray(Image.open(p).convert("RGB").convert("L").convert("RGB")) for p in paths]
        plain = [np.asarray(Image.open(p).convert("RGB")) for p in paths]
        labels = red_subject.labels[rows]
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


def test_a_detector_of_red_loses_everything_without_color(red_subject):
    table = Ablation(Grayscale())(red_subject).tables["ablation"]
    assert (table["ap"] > 0.95).all()
    assert (table["ap_ablated"] < 0.8).all()
    assert (table["median_drop"] > 0.5).all()


@pytest.fixture(scope="module")
def noisy(red_root):
    """A detector whose errors with and without color are much alike."""
    return fake_subject.subject(red_root, {"draws": 200}, signal={"": 1.5, "color": 1.2}, own=0.1)


def ap_draws(red_subject, at, logits, seed):
    labels = red_subject.labels[at]
    return np.array([average_precision_score(labels[rows], logits[at][rows])
                     for rows in draw_resamples(labels, red_subject.draws, seed)])  # fmt: skip


def test_drops_of_ap_are_paired_by_image(noisy):
    result = Ablation(Grayscale())(noisy)
    table, drops = result.tables["ablation"].set_index("generator"), {}
    plain, ablated = noisy.evaluate().logits, noisy.evaluate(Grayscale()).logits

    def ap_of(at, logits, seed):
        labels = noisy.labels[at]
        value = average_precision_score(labels, logits[at])
        draws = ap_draws(noisy, at, logits, seed).tolist()
        return Known.of_fraction(value, draws, min(np.bincount(labels)))

    for generator, at in noisy.generators():
        row, pair = table.loc[generator], [ap_of(at, z, 0) for z in (plain, ablated)]
        drop = drops[generator] = weighted_sum(pair, [1, -1])
        assert row["ap_drop"] == pytest.approx(row["ap"] - row["ap_ablated"])
        assert (row["ap_drop_low"], row["ap_drop_high"]) == pytest.approx(drop.interval)
        # Other resamples for each side, as if they were other images, tell much less.
        low, high = weighted_sum([ap_of(at, plain, 1), ap_of(at, ablated, 2)], [1, -1]).interval
        assert drop.interval[1] - drop.interval[0] < 0.75 * (high - low)
    summary = result.tables["ablation_summary"].set_index("where")
    assert list(summary.index) == ["seen", "unseen", "unseen_worst"]
    both = [drops["other"], drops["third"]]
    largest = worst(both, smallest=False)
    for where, known in (("unseen", average(both)), ("unseen_worst", largest)):
        row = summary.loc[where]
        assert row["ap_drop"] == pytest.approx(known.value)
        assert (row["ap_drop_low"], row["ap_drop_high"]) == pytest.approx(known.interval)
        assert result.scalars[f"{where}_ap_drop"] == row["ap_drop"]
    assert summary.loc["seen", "ap_drop"] == table.loc["seen", "ap_drop"]


@pytest.mark.parametrize(
    ("value", "ends", "words"),
    [
        (0.05, (0.02, 0.08), "falls by 0.050 (0.020 to 0.080)"),
        (0.05, (-0.02, 0.08), "falls by 0.050 (-0.020 to 0.080), not significantly"),
        (-0.012, (-0.03, -0.004), "rises by 0.012 (0.004 to 0.030)"),
        (-0.012, (-0.03, 0.01), "rises by 0.012 (-0.010 to 0.030), not significantly"),
    ],
)
def test_a_negative_drop_is_a_rise(value, ends, words):
    assert describe_drop(Estimate(value, np.zeros(0), ends=lambda _: ends)) == words


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


def test_without_suspicious_images_there_is_no_median_drop(red_subject):
    result = Ablation(Grayscale(), suspicious=1.1)(red_subject)
    assert result.tables["ablation"]["median_drop"].isna().all()
    assert not any("median probability" in finding for finding in result.findings)
    assert any("analysis.ablation.suspicious" in warning for warning in result.warnings)
