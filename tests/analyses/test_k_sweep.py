"""`KSweep` against a loop that drops channels itself, one choice after the other."""

import itertools
from contextlib import ExitStack, contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import t
from sklearn.metrics import average_precision_score
from tests.helpers import tiny
from tests.helpers.bootstrap_by_hand import ends

from tff.analyses.engine.top_channels import CRITERIA
from tff.analyses.k_sweep import KSweep
from tff.analyses.sensitivity import Sensitivity
from tff.detectors.hooks import drop_channels
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


@torch.no_grad()
def logits(subject, channels, context=drop_channels):
    images = tiny.pixels(subject.images.test)
    if not len(channels):
        return subject.detector(images).double().numpy()
    with context(subject.detector, channels):
        return subject.detector(images).double().numpy()


def aps(subject, at, score):
    """(1 + draws,): AP of the images first, then of each resample."""
    labels = subject.labels[at]
    every = [np.arange(len(at)), *draw_resamples(labels, subject.draws, subject.seed)]
    return np.array([average_precision_score(labels[r], score[at][r]) for r in every])


def curve(subject, where, by, context=drop_channels):
    """(len(KS), 1 + draws): means over generators of a kind, and over random orders."""
    return each_order(subject, where, by, context).mean(0)


@cache
def each_order(subject, where, by, context=drop_channels):
    """(orders, len(KS), 1 + draws): means over generators of a kind."""
    at_of = [at for name, at in subject.generators() if (name in subject.seen) == (where == "seen")]
    return np.array(
        [
            [np.mean([aps(subject, at, logits(subject, order[:k], context)) for at in at_of], 0)
             for k in KS]
            for order in orders(subject, by)
        ]
    )  # fmt: skip


def check(row, name, literal, tolerance=1e-6):
    """Value and interval of a column against (1 + draws,) numbers."""
    expected = [literal[0], *ends(literal[0], literal[1:])]
    found = row[[name, f"{name}_low", f"{name}_high"]].astype(float)
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("by", CRITERIA)
def test_every_point_and_area_equals_a_loop(subject, result, by):
    for where in ("seen", "unseen"):
        heights = curve(subject, where, by)
        table, areas = (
            t[(t["where"] == where) & (t["ranking"] == by)]
            for t in (result.tables["k_sweep"], result.tables["k_sweep_area"])
        )
        assert list(table["k"]) == list(KS)
        np.testing.assert_allclose(table["share"], np.array(KS) / 12)
        for (_, row), literal in zip(table.iterrows(), heights, strict=True):
            check(row, "ap", literal)
        x = np.array(KS) / 12
        area = np.trapezoid(heights, x, axis=0) / 0.5
        row = areas.iloc[0]
        check(row, "area", area)
        assert row["up_to_share"] == 0.5
        found = row[["below_random", "below_random_low", "below_random_high"]].astype(float)
        if by == "random":
            assert found.isna().all()
            continue
        drawn = np.trapezoid(each_order(subject, where, "random"), x, axis=1) / 0.5
        chance = drawn.mean(0) - area
        reach = t.ppf(0.975, ORDERS - 1) * drawn[:, 0].std(ddof=1) * np.sqrt(1 + 1 / ORDERS)
        low, high = (np.hypot(end - chance[0], reach) for end in ends(chance[0], chance[1:]))
        expected = [chance[0], chance[0] - low, chance[0] + high]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_sweep_meets_something(subject, result):
    table = result.tables["k_sweep"]
    assert table["ap"].min() < 0.9 * table["ap"].max()
    random = table[table["ranking"] == "random"]["ap"]
    assert random.nunique() > 2
    areas = result.tables["k_sweep_area"].set_index(["where", "ranking"])
    # The detector's one channel that sees red is what omega names first.
    assert areas.loc[("unseen", "omega"), "below_random"] > 0


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
    table = KSweep(("weight",), SHARES, (instead,))(subject).tables["k_sweep"]
    for where in ("seen", "unseen"):
        part = table[table["where"] == where]
        heights = curve(subject, where, "weight", context)
        for (_, row), literal in zip(part.iterrows(), heights, strict=True):
            check(row, "ap", literal)
    zeros = KSweep(("weight",), SHARES)(subject).tables["k_sweep"]
    assert not np.allclose(table["ap"], zeros["ap"])


def test_several_replacements_in_one_table(subject):
    result = KSweep(("omega", "weight"), (25,), ("zero", "mean"))(subject)
    areas = result.tables["k_sweep_area"]
    expected = set(itertools.product(("seen", "unseen"), ("omega", "weight"), ("zero", "mean")))
    assert set(areas[["where", "ranking", "instead"]].itertuples(index=False, name=None)) == (
        expected
    )
    assert set(result.figures) == {
        f"k_sweep_{where}_{instead}" for where in ("seen", "unseen") for instead in ("zero", "mean")
    }
    assert "below_random" not in areas  # there is no random order
    assert not any("random order" in finding for finding in result.findings)
    value = areas.query("where == 'seen' and ranking == 'weight' and instead == 'mean'")["area"]
    assert result.scalars["seen_area_weight_area_mean"] == value.item()


def test_findings_name_the_ranking_with_the_least_area(result):
    areas = result.tables["k_sweep_area"]
    seen = areas[areas["where"] == "seen"].set_index("ranking")
    best = seen["area"].idxmin()
    assert (
        f"AP falls soonest by {CRITERIA[best]}: mean AP {seen['area'].min():.3f}"
        in (result.findings[0])
    )
    sure = "significantly" if seen.loc["omega", "below_random_low"] > 0 else "not significantly"
    assert f"): {sure}" in result.findings[0].split(", below random orders by ")[1]


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
            "nought.*expected a list of different names from zero, mean, resample",
        ),
        ({"shares": ()}, r"shares=\[\]: expected a list, each .* percent"),
        ({"shares": (0, 1)}, r"shares=\[0, 1\]"),
        ({"shares": (101,)}, "at most 100"),
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
        KSweep(("omega",), SHARES, ("resample",))(tiny.subject(root, batch_size=12))
