"""The relevance ledger in the tables of a run."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score
from tests.helpers import tiny

from tff.analyses.engine import sanity_checks
from tff.analyses.engine.passes import labels_of
from tff.analyses.engine.top_channels import CHOICES, RankingRule, TooFewImagesError
from tff.analyses.ranking import Ranking, leak
from tff.published.rankings import read_omega
from tff.relevance.lrp import LRP, channel_relevance


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen", "other"), images=7)


def test_means_over_the_images_behind_omega(root):
    subject = tiny.subject(root)
    table = Ranking()(subject).tables["ledger"]
    images = subject.images.discovery
    pixels = torch.stack([images[0, row].image for row in range(len(images))]).float() / 255
    labels = torch.tensor(images.manifest["label"])
    found = subject.lrp.explain(pixels)
    p = found.logit.sigmoid()
    for name, mask in {
        "generated": (labels == 1) & (p >= 0.9),
        "real": (labels == 0) & (p <= 0.1),
    }.items():
        mine = table[table["images"] == name]
        assert (mine["n_images"] == int(mask.sum())).all()
        expected = found.conservation[mask].mean(0).flip(0)
        np.testing.assert_allclose(
            mine[["arrives", "leaves", "lost_to_constants", "lost_at_zero", "negative_share"]],
            expected,
            atol=1e-5,
        )
        assert mine["operation"].tolist()[0] == "fc"
        assert mine["operation"].tolist()[-1] == "conv1"
    assert {"relevance", "weights", "seed"} <= set(table)


def test_a_leak_gives_a_warning(root):
    result = Ranking()(tiny.subject(root))
    lost = float(leak(result.tables["ledger"].query("images == 'generated'")).sum())
    assert result.scalars["relevance_leak"] == pytest.approx(lost)
    assert lost > 0.05  # the tiny detector has a bias of -15
    (warning,) = [text for text in result.warnings if "max_leak" in text]
    assert f"{100 * lost:.1f} %" in warning
    assert "fc" in warning


def test_no_warning_below_the_limit(root):
    subject = tiny.subject(root, relevance=lambda detector: LRP(detector, max_leak=1e6))
    assert not any("max_leak" in text for text in Ranking()(subject).warnings)


def test_leak_counts_both_kinds_whatever_their_sign():
    table = pd.DataFrame({"lost_to_constants": [-0.1, np.nan], "lost_at_zero": [0.2, np.nan]})
    assert leak(table).tolist() == pytest.approx([0.3, 0.0])


def test_real_images_as_the_paper_explains_them(root):
    paper = tiny.subject(root, relevance=lambda detector: LRP(detector, real_sign="paper"))
    ours = tiny.subject(root)
    a, b = Ranking()(paper).tables["ranking"], Ranking()(ours).tables["ranking"]
    np.testing.assert_array_equal(a["omega"], b["omega"])
    order = ["layer", "channel"]
    assert not np.allclose(
        a.sort_values(order)["omega_real"], b.sort_values(order)["omega_real"], atol=1e-3
    )
    assert a["relevance"].iloc[0] == "rule=zplus precision=fp32 real_sign=paper"


def test_omega_is_the_mean_share_of_confident_images(red_subject):
    images, labels = (
        tiny.pixels(red_subject.images.discovery),
        red_subject.images.discovery.manifest["label"],
    )
    shares = torch.cat(list(channel_relevance(red_subject.detector, images).values()), 1).double()
    p = red_subject.detector(images).sigmoid()
    for name, mask in {
        "fake": (p >= 0.9) & torch.tensor(labels == 1),
        "real": (p <= 0.1) & torch.tensor(labels == 0),
    }.items():
        omega = red_subject.relevance[name]
        assert omega.images == int(mask.sum()) > 1
        np.testing.assert_allclose(omega.omega, shares[mask].mean(0), atol=1e-6)
        error = shares[mask].std(0) / mask.sum() ** 0.5
        np.testing.assert_allclose(omega.error, error, atol=1e-6)


def test_ranking_is_sorted_stable_and_complete(red_subject):
    table = Ranking()(red_subject).tables["ranking"]
    assert len(table) == len(red_subject.channels) == 12
    keys = list(zip(-table["omega"], [red_subject.channels.flat_index(r.layer, r.channel) for r in
                                      table.itertuples()], strict=True))  # fmt: skip
    assert keys == sorted(keys)
    assert {"layer", "channel", "omega", "omega_real", "crop", "weights", "seed"} <= set(table)


def test_rankings_are_written_in_the_published_format(red_subject, tmp_path):
    result = Ranking()(red_subject)
    for kind in ("fake", "real"):
        table = result.tables[f"omega_{kind}"]
        assert table["key"].str.fullmatch(r"conv[12]\.#\d\(T=6\)").all()
        assert table["mean_relevance"].is_monotonic_decreasing
        table.sample(frac=1, random_state=1).to_csv(tmp_path / "other.csv", index=False)
        again = read_omega(tmp_path / "other.csv", red_subject.channels)
        np.testing.assert_array_equal(again, red_subject.relevance[kind].omega)


def test_no_confident_image_is_a_clear_error(red_root):
    subject = tiny.subject(red_root, confidence=1.0)
    with pytest.raises(TooFewImagesError, match=r"subject\.confidence"):
        Ranking()(subject)


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "expected a whole number of at least 1"),
        (13, "between 1 and the number of channels, 12"),
    ],
)
def test_impossible_k_is_refused(red_root, k, message):
    with pytest.raises(ValueError, match=message):
        tiny.subject(red_root, k=k)


def test_rankings_stand_side_by_side(red_subject, monkeypatch):
    monkeypatch.setattr(sanity_checks, "FEW_CONFIDENT", 1)
    result = Ranking()(red_subject)
    table, compared = result.tables["ranking"], result.tables["rankings"]
    assert compared["ranking"].tolist() == ["omega", "omega_real", "both", "contrast"]
    assert compared["chosen"].tolist() == [True, False, False, False]
    assert compared["shared_with_chosen"].iloc[0] == 1
    assert compared["in_top"].between(0, 1).all()
    np.testing.assert_array_equal(table["both"], table[["omega", "omega_real"]].max(axis=1))
    assert (table["side"] == "added trace").eq(table["omega"] >= table["omega_real"]).all()
    assert table["in_top"].iloc[0] >= table["in_top"].iloc[-1]
    assert (table["contrast_error"] >= 0).all()
    found = " ".join(result.findings)
    assert "Candidates for transferable forensic features: the top 3 of 12 channels" in found
    assert "Ranked on two halves of the images" in found


def test_auto_takes_the_ranking_that_costs_most_on_the_discovery_images(red_root):
    subject = tiny.subject(red_root, ranking=RankingRule("auto"))
    labels = labels_of(subject.images.discovery)
    plain = tiny.subject(red_root)
    aps = {}
    for by in CHOICES:
        (logits,) = plain.evaluate_without_channels(
            {by: plain.rank(by)[: plain.k]}, split="discovery"
        ).values()
        aps[by] = average_precision_score(labels, logits)
    assert subject.candidates["ap"].to_dict() == pytest.approx(aps)
    assert subject.criterion == min(aps, key=aps.get)
    result = Ranking()(subject)
    assert f"was chosen among {len(CHOICES)}" in " ".join(result.findings)
    assert result.tables["rankings"]["discovery_ap"].notna().all()
    assert (result.tables["ranking"]["ranking"] == subject.criterion).all()


def test_omega_of_few_sure_images_names_no_channels(red_root, monkeypatch):
    monkeypatch.setattr(sanity_checks, "FEW_CONFIDENT", 1000)
    result = Ranking()(tiny.subject(red_root))
    assert "Candidates" not in " ".join(result.findings)
    assert "with fewer than 1000, other images may put other channels on top" in result.alarms[0]
