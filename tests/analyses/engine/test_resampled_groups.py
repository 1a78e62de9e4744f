"""Intervals over groups of images: which rows, tables and sentences they reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.analyses.engine.test_replay import make
from tests.helpers import fake_subject, tiny

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.engine.evaluation import describe_resamples, evaluators
from tff.analyses.engine.replay import cache_passes, replay
from tff.analyses.engine.sanity_checks import few_groups_warning
from tff.analyses.engine.subject import FEWEST_GROUPS
from tff.data.datamodule import Splits
from tff.statistics.bootstrap import count_draws

N = 24  # images of each generator and label


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("groups") / "images", images=N, size=16)


def grouped(root, size, unit="photograph", **fake):
    """A subject whose images 0 to size - 1, ... of each generator and label are of one group."""
    found = fake_subject.subject(root, **fake)
    return replace(found, images=Splits(*(with_groups(i, size, unit) for i in found.images[:2])))


def with_groups(images, size, unit="photograph"):
    numbers = images.manifest["path"].str.extract(r"(\d+)\.png")[0].astype(int) // size
    return replace(images, manifest=images.manifest.assign(group=numbers.astype(str)), unit=unit)


def test_images_of_a_group_are_drawn_together(root):
    subject = grouped(root, size=2)
    for evaluator in evaluators(subject):
        times = count_draws(evaluator.resamples, len(evaluator.rows))
        names = subject.images.test.manifest["group"].to_numpy()[evaluator.rows]
        for name in set(names):  # of both labels
            assert (times[:, names == name] == times[:, names == name][:, :1]).all()
        assert evaluator.columns()["resampled"] == "photograph"
        assert evaluator.columns()["groups"] == N // 2
    first, other = (e.resamples for e in evaluators(subject))
    np.testing.assert_array_equal(first, other)  # the same photographs in both generators


def test_few_groups_are_not_resampled(root):
    few, none = grouped(root, size=8), fake_subject.subject(root)
    for one, other in zip(evaluators(few), evaluators(none), strict=True):
        np.testing.assert_array_equal(one.resamples, other.resamples)
        assert (one.columns()["resampled"], one.columns()["groups"]) == ("image", 3)
        assert (other.columns()["resampled"], other.columns()["groups"]) == ("image", None)
    test, ranking = few_groups_warning(few)
    assert test == (
        "The test images of seen, unseen come from 3 photographs. No interval here holds the "
        "chance of the photographs: with other photographs, all numbers may change by more than "
        "their intervals say."
    )
    assert ranking.startswith("Channels are ranked on images of 3 photographs: other photographs")
    assert few_groups_warning(none) == few_groups_warning(grouped(root, size=2)) == []
    test, _ranking = few_groups_warning(grouped(root, size=4, unit="scene"))
    assert test == (
        "The test images of seen, unseen come from 6 scenes. Intervals allow for the chance of the "
        "scenes, as far as so few show it."
    )


def test_smallest_number_of_groups_counts(root):
    """So many groups of each kind are enough; one fewer of one kind is not."""
    subject = grouped(root, size=2)
    test = subject.images.test
    rows = test.rows_of("seen")
    real = (test.manifest["label"] == 0).to_numpy()
    for n_real, enough in ((FEWEST_GROUPS, True), (FEWEST_GROUPS - 1, False)):
        index = np.arange(len(test))
        names = np.where(real, index % n_real, 1000 + index).astype(str)
        images = replace(test, manifest=test.manifest.assign(group=names))
        one = replace(subject, images=subject.images._replace(test=images))
        assert (one.resampled_groups(rows) is not None) == enough


def test_captions_say_what_intervals_are_over(root):
    assert describe_resamples(fake_subject.subject(root)) == (
        "Intervals are over images; from how many photographs or other sources these come is not "
        "known (data.group)."
    )
    assert describe_resamples(grouped(root, 2, "person")) == (
        "Intervals are over 12 persons, each with all of its images."
    )
    assert describe_resamples(grouped(root, 8)) == (
        "Intervals are over images; these come from 3 photographs, which is too few to resample."
    )
    subject = grouped(root, 2)
    test = subject.images.test
    names = test.manifest["group"].where(test.manifest["generator"] == "seen", "one")
    mixed = replace(test, manifest=test.manifest.assign(group=names))
    subject = replace(subject, images=subject.images._replace(test=mixed))
    assert describe_resamples(subject) == (
        "Intervals are over 12 photographs, each with all of its images; for unseen, of fewer "
        "photographs, over images."
    )


def test_groups_widen_intervals(root):
    """Logits that all images of a photograph share: there are 12 values of each kind, not 24."""
    plain, by_group = fake_subject.subject(root), grouped(root, 2)
    numbers = by_group.images.test.manifest["group"].astype(int).to_numpy()
    values = np.random.default_rng(3).normal(size=(2, N // 2))[plain.labels, numbers] + plain.labels
    widths = []
    for subject in (plain, by_group):
        subject._passes.change = lambda _name, _logits: values
        table = Detection()(subject).tables["detection"]
        assert table["resampled"].iloc[0] == ("image" if subject is plain else "photograph")
        widths.append((table["auc_high"] - table["auc_low"]).iloc[0])
    assert widths[1] > 1.15 * widths[0]


def test_results_say_it_and_replay_knows_it(root, tmp_path):
    splits = Splits(*(with_groups(images, 2, "person") for images in tiny.splits(root)[:2]))
    known = cache_passes(make()(tiny.detector(), splits), tmp_path / "passes")
    analyses = {"detection": Detection(), "ablation": Ablation(Grayscale())}
    first = run(analyses, known)
    again = run(analyses, replay(tmp_path / "passes", make()))
    for name in analyses:
        assert first[name].captions == again[name].captions
        assert first[name].tables[name].equals(again[name].tables[name])
        assert "Intervals are over 12 persons" in " ".join(first[name].captions.values())
        assert set(first[name].tables[name]["groups"].dropna()) == {12}
    # Other groups are other subjects, but their passes are the same.
    files = {path.name for path in (tmp_path / "passes").rglob("evaluate*")}
    unknown = cache_passes(make()(tiny.detector(), tiny.splits(root)), tmp_path / "passes")
    run(analyses, unknown)
    assert {path.name for path in (tmp_path / "passes").rglob("evaluate*")} == files
    assert len(list((tmp_path / "passes").rglob("subject-*.json"))) == 2
