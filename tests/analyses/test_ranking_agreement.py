from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from tests.helpers import tiny

from tff.analyses.ranking import Ranking
from tff.analyses.ranking_agreement import RankingAgreement, spearman_of_unrelated
from tff.detectors.torchvision_models import torchvision_model
from tff.published.rankings import published_omega


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen",))


@pytest.fixture
def subject(root):
    return tiny.subject(root)


def written(path, subject, omega):
    subject.channels.table().assign(omega=omega).to_csv(path, index=False)
    return str(path)


def test_our_own_files_agree_with_us(tmp_path, subject):
    tables = Ranking()(subject).tables
    for name in ("ranking", "omega_fake"):
        path = tmp_path / f"{name}.csv"
        tables[name].to_csv(path, index=False)
        result = RankingAgreement(other=str(path))(subject)
        found = result.tables["ranking_agreement"]
        assert (found["overlap"] == found["k"]).all()
        assert result.scalars["spearman"] == pytest.approx(1)
        assert result.scalars["rank_biased_overlap"] == pytest.approx(1)


def test_numbers_equal_literal_definitions(tmp_path, subject):
    n, k = len(subject.channels), subject.k
    other = np.random.default_rng(0).random(n)
    result = RankingAgreement(written(tmp_path / "o.csv", subject, other), (1, 2, 7, 99))(subject)
    table = result.tables["ranking_agreement"].set_index("k")
    assert list(table.index) == sorted({1, 2, 7, k})  # 99 channels there are not
    first, second = subject.ranking.tolist(), np.argsort(-other).tolist()
    for at, row in table.iterrows():
        assert row["overlap"] == len(set(first[:at]) & set(second[:at]))
        assert row["by_chance"] == pytest.approx(at * at / n)
        chance = scipy.stats.hypergeom(n, at, at)
        assert row["p_by_chance"] == pytest.approx(chance.sf(row["overlap"] - 1))
    omega = subject.relevance["fake"].omega
    expected = scipy.stats.spearmanr(omega, other).statistic
    assert result.scalars["spearman"] == pytest.approx(expected)
    union = sorted(set(first[:k]) | set(second[:k]))
    among = scipy.stats.spearmanr(omega[union], other[union]).statistic
    assert result.scalars["spearman_top"] == pytest.approx(among)
    assert f"{table.loc[k, 'overlap']:.0f} are in the top {k}" in result.findings[0]
    layers = result.tables["ranking_agreement_layers"].set_index("layer")
    for layer, width in subject.channels.widths.items():
        mine = set(range(subject.channels.starts[layer], subject.channels.starts[layer] + width))
        a, b = set(first[:k]) & mine, set(second[:k]) & mine
        row = layers.loc[layer]
        assert (row["top"], row["top_other"], row["overlap"]) == (len(a), len(b), len(a & b))
        assert row["by_chance"] == pytest.approx(len(a) * len(b) / width)
        at = sorted(mine)
        inside = scipy.stats.spearmanr(omega[at], other[at]).statistic
        assert row["spearman"] == pytest.approx(inside)
    within = table.loc[k, "within_layers"]
    assert within == pytest.approx(layers["by_chance"].sum())


def test_the_tops_of_unrelated_rankings_seem_to_disagree(rng):
    """By scipy on other permutations; scores of a layer stay in it."""
    n, k = 600, 30
    groups = np.sort(rng.integers(0, 3, n))
    ours, theirs = (rng.random(n) + groups for _ in range(2))
    top = np.argsort(-ours)[:k]
    found = spearman_of_unrelated(ours, theirs, top, groups, 0, draws=200)
    expected = []
    for _ in range(200):
        other = rng.random(n) + groups
        either = sorted({*top, *np.argsort(-other)[:k]})
        expected.append(scipy.stats.spearmanr(ours[either], other[either]).statistic)
    assert found == pytest.approx(np.mean(expected), abs=0.1)
    assert found < -0.3
    assert np.isnan(spearman_of_unrelated(ours, 0 * theirs, top, groups, 0))


def test_the_top_of_either_with_both_places(tmp_path, subject):
    other = np.random.default_rng(1).random(len(subject.channels))
    result = RankingAgreement(written(tmp_path / "o.csv", subject, other))(subject)
    table = result.tables["ranking_agreement_top"]
    assert (table[["rank", "rank_other"]].min(axis=1) <= subject.k).all()
    assert (
        (table["rank"] <= subject.k).sum() == (table["rank_other"] <= subject.k).sum() == subject.k
    )
    for row in table.itertuples():
        flat = subject.channels.flat_index(row.layer, row.channel)
        assert subject.ranking[row.rank - 1] == flat
        assert np.argsort(-other)[row.rank_other - 1] == flat
        assert row.omega_other == pytest.approx(other[flat])


def test_the_published_ranking_agrees_with_itself(root, monkeypatch):
    detector = torchvision_model("resnet50", False)
    subject = tiny.Subject.of(detector, tiny.splits(root), draws=10, device="cpu")
    theirs = published_omega("resnet50", subject.channels)
    one = next(iter(tiny.subject(root).relevance.values()))
    monkeypatch.setattr(tiny.Subject, "relevance", {"fake": replace(one, omega=theirs)})
    result = RankingAgreement()(subject)
    table = result.tables["ranking_agreement"]
    assert subject.k == 114
    assert table["k"].tolist() == [10, 50, 100, 114, 500, 1000, 5000]
    assert (table["overlap"] == table["k"]).all()
    assert result.scalars["zeros_other"] == 705
    assert "significantly more often than by chance" in result.findings[0]
    layers = result.tables["ranking_agreement_layers"]
    assert len(layers) == 53
    assert layers["top"].sum() == 114
    # The strongest of the paper: layer1.0.conv1, channels 63, 47 and 0.
    top = result.tables["ranking_agreement_top"].head(3)
    assert (top["layer"] + "." + top["channel"].astype(str)).tolist() == [
        "layer1.0.conv1.63", "layer1.0.conv1.47", "layer1.0.conv1.0",
    ]  # fmt: skip
    assert top["omega"].iloc[0] == 0.12936337292194366


def test_the_same_layers_are_not_the_same_channels(tmp_path, subject):
    # Within each layer the other ranking is ours upside down; between layers it is as ours.
    omega = subject.relevance["fake"].omega
    other = omega.copy()
    for start, width in zip(
        subject.channels.starts.values(), subject.channels.widths.values(), strict=True
    ):
        mine = omega[start : start + width]
        other[start : start + width][np.argsort(mine)] = np.sort(mine)[::-1]
    result = RankingAgreement(written(tmp_path / "o.csv", subject, other))(subject)
    assert "rather than the same layers" in result.findings[0]
    assert (result.tables["ranking_agreement_layers"]["spearman"] < -0.5).all()


def test_without_a_published_ranking_there_is_a_finding(subject):
    result = RankingAgreement()(subject)
    assert result.tables["ranking_agreement"].empty
    assert "ranking_agreement.other=FILE" in result.findings[0]


def test_a_ranking_of_another_network_is_refused(tmp_path, subject):
    path = tmp_path / "o.csv"
    pd.DataFrame({"layer": ["conv7"], "channel": [0], "omega": [1.0]}).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"o\.csv, line 2: unknown layer 'conv7'"):
        RankingAgreement(str(path))(subject)
    with pytest.raises(FileNotFoundError, match="no such file"):
        RankingAgreement(str(tmp_path / "none.csv"))(subject)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ks": [0]}, "a whole number of at least 1"), ({"ks": [2.5]}, "a whole number of at least 1"),
     ({"p": 1.0}, "a number above 0 and below 1"), ({"p": 0}, "a number above 0 and below 1")],
)  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RankingAgreement(**options)
