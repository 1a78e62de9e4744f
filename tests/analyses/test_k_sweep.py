"""`KSweep` against a loop that drops channels itself, one choice after the other."""

import itertools
from contextlib import ExitStack, contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tests.helpers import tiny
from tests.helpers.bootstrap_by_hand import Known, average, chance, difference, weighted_sum

from tff.analyses.engine.controls import Controls
from tff.analyses.engine.top_channels import CRITERIA, TooFewImagesError
from tff.analyses.k_sweep import SHORT, KSweep
from tff.analyses.sensitivity import Sensitivity
from tff.detectors.hooks import drop_channels
from tff.report.page import write
from tff.statistics.bootstrap import draw_resamples

SHARES, KS = (10, 25, 50), (0, 1, 3, 6)  # of 12 channels
ORDERS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    names = ("seen", "other", "third")
    return tiny.tree(tmp_path_factory.mktemp("images"), names, images=12, size=16)


@pytest.fixture(scope="module")
def subject(root):
    detector, generator = tiny.detector(), torch.Generator().manual_seed(4)
    # Many channels have a say, most of it noise, so that AP moves with each of them.
    network = detector.network
    network.conv1.weight.data += 0.3 * torch.randn(6, 3, 3, 3, generator=generator)
    network.fc.weight.data += 14 * torch.randn(1, 6, generator=generator)
    options = {"draws": 8, "device": "cpu", "seed": 2, "confidence": 0.5}
    return tiny.Subject.of(detector, tiny.splits(root), **options)


@pytest.fixture(scope="module")
def result(subject):
    return KSweep(shares=SHARES, random_orders=ORDERS)(subject)


def orders(subject, by):
    seeds = range(subject.seed, subject.seed + (ORDERS if by == "random" else 1))
    return [subject.rank(by, seed=seed) for seed in seeds]


def matched_orders(subject, by):
    return Controls(subject.channels, subject.rank(by), subject.seed).matched(ORDERS)


@torch.no_grad()
def logits(subject, channels, context=drop_channels):
    images = tiny.pixels(subject.images.test)
    if not len(channels):
        return subject.detector(images).double().numpy()
    with context(subject.detector, channels):
        return subject.detector(images).double().numpy()


def ap_of(subject, at, score):
    """AP of the images, and of each resample, with its interval."""
    labels = subject.labels[at]
    every = [np.arange(len(at)), *draw_resamples(labels, subject.draws, subject.seed)]
    value, *draws = (average_precision_score(labels[r], score[at][r]) for r in every)
    return Known.of_fraction(value, draws, min(np.bincount(labels)))


@cache
def each_order(subject, where, by, context=drop_channels, matched=False, keep=False):
    """For each order, and each of KS: mean AP over generators of a kind."""
    at_of = [at for name, at in subject.generators() if (name in subject.seen) == (where == "seen")]
    return [
        [
            average([
                ap_of(subject, at, logits(subject, order[k:] if keep else order[:k], context))
                for at in at_of
            ])
            for k in KS
        ]
        for order in (matched_orders if matched else orders)(subject, by)
    ]  # fmt: skip


def check(row, name, known, reach=0, shares=False):
    """Value and interval of a column.

    Args:
        reach: half the interval of the random draws.
        shares: the ends lie from 0 to 1.
    """
    expected = [known.value, *known.with_chance(reach)]
    found = row[[name, f"{name}_low", f"{name}_high"]].astype(float)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1) if shares else expected, atol=1e-6)


def check_against_matched(row, own, drawn, lower=True):
    """Columns of the comparison of a choice with several random ones."""
    mean = average(drawn)
    found = difference(mean, own) if lower else difference(own, mean)
    check(row, "beats_matched_by", found, chance(drawn))
    check(row, "beats_matched_by_on_average", found, chance(drawn, one_more=False))


def height(xs, curve):
    """Mean height by the trapezoid rule."""
    xs, weights = list(xs), [0.0] * len(curve)
    for i in range(len(xs) - 1):
        for j in (i, i + 1):
            weights[j] += (xs[i + 1] - xs[i]) / 2 / (xs[-1] - xs[0])
    return weighted_sum(curve, weights)


def log_height(curve):
    """Mean over a log scale of k, without k = 0."""
    return height(np.log(KS[1:]), curve[1:])


def rows_of(result, where, by, instead="zero"):
    return (
        t[(t["where"] == where) & (t["ranking"] == by) & (t["instead"] == instead)]
        for t in (result.tables["k_sweep"], result.tables["k_sweep_area"])
    )


@pytest.mark.parametrize("by", CRITERIA)
def test_every_point_and_area_equals_a_loop(subject, result, by):
    for where in ("seen", "unseen"):
        each = each_order(subject, where, by)
        table, areas = rows_of(result, where, by)
        assert list(table["k"]) == list(KS)
        np.testing.assert_allclose(table["share"], np.array(KS) / 12)
        for i, (_, row) in enumerate(table.iterrows()):
            points = [order[i] for order in each]
            check(row, "ap", average(points), chance(points), shares=True)
        x, row = np.array(KS) / 12, areas.iloc[0]
        area = average([height(x, order) for order in each])
        check(row, "area", area)
        assert row["up_to_share"] == 0.5
        if by == "random":
            assert row[["below_random", "beats_matched_by"]].isna().all()
            continue
        drawn = [height(x, order) for order in each_order(subject, where, "random")]
        check(row, "below_random", difference(average(drawn), area), chance(drawn))
        drawn = each_order(subject, where, by, matched=True)
        check_against_matched(row, log_height(each[0]), [log_height(order) for order in drawn])
        for i, (_, row) in enumerate(table.iterrows()):
            points = [order[i] for order in drawn]
            check(row, "matched", average(points), chance(points), shares=True)
            check_against_matched(row, each[0][i], points)


def test_the_sweep_meets_something(subject, result):
    table = result.tables["k_sweep"]
    assert table["ap"].min() < 0.9 * table["ap"].max()
    random = table[table["ranking"] == "random"]["ap"]
    assert random.nunique() > 2
    areas = result.tables["k_sweep_area"].set_index(["where", "ranking"])
    # The detector's one channel that sees red is what omega names first.
    assert areas.loc[("unseen", "omega"), "below_random"] > 0
    assert areas.loc[("unseen", "omega"), "beats_matched_by"] > 0


def test_nothing_dropped_is_the_ap_of_the_detector(subject, result):
    zero = result.tables["k_sweep"].query("k == 0")
    untouched = Sensitivity()(subject).tables["sensitivity"].query("dropout == 'none'")
    by_kind = untouched.groupby("seen")["ap"].mean()
    for row in zero.itertuples():
        assert row.ap == pytest.approx(by_kind[row.where == "seen"])
    assert len(zero) == 2 * len(CRITERIA)


@contextmanager
def in_place(detector, channels, instead):
    """Hooks that write `instead(layer, channel, out)` over the raw output, one a channel."""
    table = detector.channels.table()
    with ExitStack() as hooks:
        for flat in channels.tolist():
            layer, channel = table.iloc[flat]

            def hook(_module, _inputs, out, layer=layer, channel=int(channel)):
                out = out.clone()
                out[:, channel] = instead(layer, channel, out)
                return out

            module = detector.network.get_submodule(layer)
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


@torch.no_grad()
def raw(detector, images):
    """Raw outputs of all layers."""
    found, hooks = {}, []
    for layer in detector.channels.layers:
        hooks.append(
            detector.network.get_submodule(layer).register_forward_hook(
                lambda _m, _i, out, layer=layer: found.update({layer: out.clone()})
            )
        )
    detector(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("instead", ["mean", "resample"])
def test_replacements_equal_a_loop(subject, instead):
    discovery = tiny.pixels(subject.images.discovery)
    if instead == "mean":
        means = {n: y.mean((0, 2, 3)) for n, y in raw(subject.detector, discovery).items()}
        other = lambda layer, channel, _: means[layer][channel]  # noqa: E731
    else:
        number = len(subject.images.test)
        lent = np.random.default_rng([subject.seed, 2]).integers(0, len(discovery), number)
        maps = raw(subject.detector, discovery[torch.from_numpy(lent)])
        other = lambda layer, channel, _: maps[layer][:, channel]  # noqa: E731
    context = lambda detector, channels: in_place(detector, channels, other)  # noqa: E731
    table = KSweep(("weight",), shares=SHARES, instead=(instead,))(subject).tables["k_sweep"]
    for where in ("seen", "unseen"):
        part = table[table["where"] == where]
        heights = each_order(subject, where, "weight", context)[0]
        for (_, row), literal in zip(part.iterrows(), heights, strict=True):
            check(row, "ap", literal, shares=True)
    zeros = KSweep(("weight",), shares=SHARES)(subject).tables["k_sweep"]
    assert not np.allclose(table["ap"], zeros["ap"])


def test_kept_channels_equal_a_loop(subject):
    """All others are at their mean, so that lower AP is worse."""
    discovery = tiny.pixels(subject.images.discovery)
    means = {n: y.mean((0, 2, 3)) for n, y in raw(subject.detector, discovery).items()}
    other = lambda layer, channel, _: means[layer][channel]  # noqa: E731
    context = lambda detector, channels: in_place(detector, channels, other)  # noqa: E731
    result = KSweep(("weight",), KS[1:], instead=("insert",), random_orders=ORDERS)(subject)
    for where in ("seen", "unseen"):
        table, areas = rows_of(result, where, "weight", "insert")
        own = each_order(subject, where, "weight", context, keep=True)[0]
        drawn = each_order(subject, where, "weight", context, matched=True, keep=True)
        for i, (_, row) in enumerate(table.iterrows()):
            check(row, "ap", own[i], shares=True)
            check_against_matched(row, own[i], [order[i] for order in drawn], lower=False)
        heights = [log_height(order) for order in drawn]
        check_against_matched(areas.iloc[0], log_height(own), heights, lower=False)
        assert own[0].value == pytest.approx(0.5)  # the same for all images
    assert all(" channels kept" in f for f in result.findings)


def test_all_channels_kept_is_the_detector_itself(subject):
    table = KSweep(("omega",), (12,), instead=("insert",))(subject).tables["k_sweep"]
    plain = Sensitivity(random_draws=1)(subject).tables["sensitivity"].query("dropout == 'none'")
    every = table.query("k == 12").set_index("where")["ap"]
    for kind, ap in plain.groupby("seen")["ap"].mean().items():
        assert every["seen" if kind else "unseen"] == pytest.approx(ap)


def test_sensitivity_and_sweep_agree_at_the_same_k(subject):
    one = Sensitivity(random_draws=4)(subject)
    swept = KSweep(("omega",), (subject.k,), random_orders=4)(subject)
    ends = ("", "_low", "_high", "_on_average", "_on_average_low", "_on_average_high")
    table = one.tables["sensitivity_against_matched"].query("against == 'matched_k'")
    table = table.set_index("generator")
    for where, group in (("seen", "the seen generator"),
                         ("unseen", "generators never seen (mean)")):  # fmt: skip
        point, area = rows_of(swept, where, "omega")
        point = point[point["k"] == subject.k]
        for end in ends:
            literal = table.loc[group, f"ap_lower_by{end}"]
            assert point[f"beats_matched_by{end}"].item() == literal
            assert area[f"beats_matched_by{end}"].item() == literal
    for found, other in zip(one.findings, swept.findings, strict=True):
        assert found.rsplit(": ", 1)[1] == other.rsplit(": ", 1)[1]


def test_equal_sets_of_channels_are_dropped_once(subject, monkeypatch):
    asked = []
    real = type(subject).evaluate_without_channels

    def count(self, choices, *arguments, **options):
        asked.append(choices)
        return real(self, choices, *arguments, **options)

    monkeypatch.setattr(type(subject), "evaluate_without_channels", count)
    # On this detector all channels have the same width of layer: both orders are equal.
    KSweep(("omega", "lift"), KS[1:], random_orders=2)(subject)
    sets = [tuple(channels.tolist()) for channels in asked[0].values()]
    assert len(sets) == len(set(sets)) <= 3 * (1 + 2)


def test_numbers_of_channels(subject):
    def counts(**options):
        return KSweep(**options)._counts(subject)

    assert counts() == [0, 1, 2]  # up to 20 % of 12
    assert counts(ks=(3, "50%", 1)) == [0, 1, 3, 6]
    assert counts(shares=SHARES) == list(KS)
    assert counts(ks=(2,), shares=(50,)) == [0, 2, 6]
    with pytest.raises(ValueError, match=r"analysis\.k_sweep\.ks=13: must lie between 1 and .* 12"):
        counts(ks=(13,))


def test_several_replacements_in_one_table(subject):
    result = KSweep(("omega", "weight"), shares=(25,), instead=("zero", "mean"))(subject)
    areas = result.tables["k_sweep_area"]
    expected = set(itertools.product(("seen", "unseen"), ("omega", "weight"), ("zero", "mean")))
    assert set(areas[["where", "ranking", "instead"]].itertuples(index=False, name=None)) == (
        expected
    )
    assert set(result.figures) == {
        f"k_sweep_{where}_{instead}" for where in ("seen", "unseen") for instead in ("zero", "mean")
    }
    assert "below_random" not in areas  # there is no random order
    value = areas.query("where == 'seen' and ranking == 'weight' and instead == 'mean'")["area"]
    assert result.scalars["seen_area_weight_area_mean"] == value.item()


def test_findings_tell_the_ranking_of_the_report_and_the_others(result):
    areas = result.tables["k_sweep_area"]
    for where, own, others in zip(
        ("seen", "unseen"), result.findings[::2], result.findings[1::2], strict=True
    ):
        part = areas[areas["where"] == where].set_index("ranking").drop("random")
        row = part.loc["omega"]
        assert f"over 1 to 6 channels dropped, the first by {CRITERIA['omega']} cost " in own
        assert f"cost {abs(row['beats_matched_by']):.3f} " in own
        assert own.endswith(": significantly more than random channels.") == (
            row["beats_matched_by_low"] > 0
        )
        rest = part.drop("omega")
        better = [SHORT[by] for by in rest.index if rest.loc[by, "beats_matched_by_low"] > 0]
        named = others.split("matched in layer: ")[1].split(". Each")[0]
        assert sorted(named.split(", ")) == sorted(better or ["none"])
        for by, value in rest["beats_matched_by"].items():
            assert f"{SHORT[by]} {value:+.3f}" in others


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rankings": ("omega", "size")},
            r"analysis\.k_sweep\.rankings=.*size.*: expected a list of ",
        ),
        ({"rankings": ()}, r"rankings=\[\]: expected a list of different names from omega"),
        ({"rankings": "omega"}, "rankings=omega: expected a list"),
        ({"rankings": ("omega", "omega")}, "expected a list of different names"),
        (
            {"instead": ("nought",)},
            "nought.*expected a list of different names from zero, mean, resample, insert",
        ),
        ({"shares": ()}, r"shares=\[\]: expected a list, each .* percent"),
        ({"shares": (0, 1)}, r"shares=\[0, 1\]"),
        ({"shares": (101,)}, "at most 100"),
        ({"ks": ()}, r"ks=\[\]: expected a list, each element a whole number of at least 1"),
        ({"ks": ("auto",)}, r"ks=\['auto'\]: expected a list, each element a whole number"),
        ({"ks": (0,)}, r"ks=\[0\]"),
        ({"shares": (float("nan"),)}, "nan"),
        ({"random_orders": 0}, "random_orders=0: expected a whole number"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        KSweep(**options)


def test_resampling_needs_images_of_equal_size(tmp_path):
    root = tiny.tree(tmp_path, ("seen",), images=6, size=32)
    tiny.tree(root, ("other",), images=6, size=40)
    with pytest.raises(ValueError, match=r"different sizes.*data\.crop=center224"):
        KSweep(("omega",), shares=SHARES, instead=("resample",))(tiny.subject(root, batch_size=12))


def test_curves_of_another_run_are_drawn_beside(subject, result, tmp_path):
    write({"k_sweep": result}, tmp_path / "other" / "report", {})
    beside = KSweep(
        shares=SHARES, random_orders=ORDERS, rankings=["omega"], beside=str(tmp_path / "other")
    )(subject)
    assert list(beside.figures) == ["drop_curves"]
    titles = [ax.get_title(loc="left") for ax in beside.figures["drop_curves"].axes]
    assert titles[-1] == "other"
    assert len(titles) == 3
    with pytest.raises(ValueError, match=r"k_sweep\.beside=.*no report with a k_sweep; pass"):
        KSweep(rankings=["omega"], beside=str(tmp_path))(subject)


def test_a_ranking_without_images_is_missing_and_said(root):
    detector = tiny.detector()
    detector.network.fc.bias.data += 30  # every image is called generated
    subject = tiny.Subject.of(detector, tiny.splits(root), draws=5, device="cpu")
    result = KSweep(rankings=["omega", "omega_real"], ks=[2], random_orders=2)(subject)
    assert set(result.tables["k_sweep"]["ranking"]) == {"omega"}
    (warning,) = [text for text in result.warnings if "A ranking is missing" in text]
    assert "subject.ranking.by=omega_real" in warning
    with pytest.raises(TooFewImagesError, match="omega_real"):
        KSweep(rankings=["omega_real"], ks=[2], random_orders=2)(subject)
