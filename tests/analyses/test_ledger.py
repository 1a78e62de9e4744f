"""The relevance ledger in the tables of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tests.helpers import tiny

from tff.analyses.ranking import Ranking, leak
from tff.relevance.lrp import LRP


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
            mine[["arrives", "leaves", "lost_to_bias", "lost_at_zero", "negative_share"]],
            expected,
            atol=1e-5,
        )
        assert mine["operation"].tolist()[0] == "fc"
        assert mine["operation"].tolist()[-1] == "conv1"
    assert {"relevance", "weights", "seed"} <= set(table)


def test_a_leak_is_told(root):
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
    table = pd.DataFrame({"lost_to_bias": [-0.1, np.nan], "lost_at_zero": [0.2, np.nan]})
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
