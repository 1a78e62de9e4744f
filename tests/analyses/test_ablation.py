import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from tests.helpers import fake_subject
from tests.helpers.bootstrap_by_hand import ends

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.statistics.bootstrap import draw_resamples


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


def test_without_suspicious_images_there_is_no_median_drop(red_subject):
    result = Ablation(Grayscale(), suspicious=1.1)(red_subject)
    assert result.tables["ablation"]["median_drop"].isna().all()
    assert not any("median probability" in finding for finding in result.findings)
    assert any("analysis.ablation.suspicious" in warning for warning in result.warnings)
