"""Several checkpoints on one page, compared image by image."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score
from tests.helpers import fake_subject, tiny
from tests.helpers.bootstrap_by_hand import Known, weighted_sum

from tff.ablations.color import Grayscale
from tff.analyses.ablation import Ablation
from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import run
from tff.analyses.ranking import Ranking
from tff.comparisons.checkpoints import (
    Analyzed,
    combine,
    join,
    list_checkpoints,
    shorten_paths,
)
from tff.statistics.bootstrap import draw_resamples
from tff.types import Result

ANALYSES = {"detection": Detection(), "ablation": Ablation(Grayscale()), "ranking": Ranking()}
NAMES = ("seen", "other")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), NAMES, images=20, size=16)


def run_of(root, analyses=ANALYSES, **detector):
    subject = fake_subject.subject(root, **detector)
    return Analyzed(subject, analyses, run(analyses, subject))


@pytest.fixture(scope="module")
def runs(root):
    return {
        "runs/a/best.ckpt": run_of(root),
        "runs/b/best.ckpt": run_of(root, signal={"": 2.0, "color": 3.0}, own=1.0),
        "runs/c/best.ckpt": run_of(root),
    }


@pytest.fixture(scope="module")
def compared(runs):
    return combine(runs)


def test_results_of_one_checkpoint_are_unchanged(runs):
    one = runs["runs/a/best.ckpt"]
    assert combine({"runs/a/best.ckpt": one}) is one.results


def test_tables_hold_all_checkpoints_named_in_the_first_column(runs, compared):
    assert list(compared) == ["comparison", *ANALYSES]
    for analysis in ANALYSES:
        for key, table in compared[analysis].tables.items():
            assert table.columns[0] == "checkpoint"
            for (_, one), letter in zip(runs.items(), "abc", strict=True):
                mine = table[table["checkpoint"] == letter].drop(columns="checkpoint")
                pd.testing.assert_frame_equal(
                    mine.reset_index(drop=True), one.results[analysis].tables[key],
                    check_dtype=False,
                )  # fmt: skip


def test_findings_scalars_and_figures_name_their_detector(runs, compared):
    found, one = compared["ablation"], runs["runs/b/best.ckpt"].results["ablation"]
    mine = [text for text in found.findings if text.startswith("b: ")]
    assert mine == [f"b: {text}" for text in one.findings]
    assert len(found.findings) == 3 * len(one.findings)
    assert found.scalars["b/ap_ablated"] == one.scalars["ap_ablated"]
    assert found.figures["ablation_boxes-b"] is one.figures["ablation_boxes"]
    assert found.captions["ablation_boxes-b"] == f"b. {one.captions['ablation_boxes']}"


def literal(subject, at, cue):
    labels, logits = subject.labels[at], subject.evaluate(cue).logits[at]
    every = [np.arange(len(at)), *draw_resamples(labels, subject.draws, subject.seed)]
    value, *draws = (average_precision_score(labels[rows], logits[rows]) for rows in every)
    return Known.of_fraction(value, draws, min(np.bincount(labels)))


def test_differences_are_taken_image_by_image(runs, compared):
    table = compared["comparison"].tables["comparison"]
    assert len(table) == 3 * 2 * 2
    first = next(iter(runs.values())).subject
    for (_, (subject, analyses, _)), name in zip(runs.items(), "abc", strict=True):
        for words, cue in (("as they are", None), ("without color", analyses["ablation"].ablation)):  # noqa: B007
            for generator, at in subject.generators():  # noqa: B007  # named in the query
                row = table.query(
                    "checkpoint == @name and input == @words and generator == @generator"
                ).iloc[0]
                aps, before = literal(subject, at, cue), literal(first, at, cue)
                found = row[["ap", "ap_low", "ap_high"]].astype(float)
                np.testing.assert_allclose(found, [aps.value, *aps.interval], atol=1e-9)
                more = row[["ap_more", "ap_more_low", "ap_more_high"]].astype(float)
                if name == "a":
                    assert more.isna().all()
                    continue
                if name == "c":
                    continue  # the first one again, see below
                change = weighted_sum([aps, before], [1, -1])
                np.testing.assert_allclose(more, [change.value, *change.interval], atol=1e-9)


def test_equal_detectors_differ_by_nothing(compared):
    table = compared["comparison"].tables["comparison"]
    same = table[table["checkpoint"] == "c"]
    assert (same[["ap_more", "ap_more_low", "ap_more_high"]] == 0).all(axis=None)
    other = table[(table["checkpoint"] == "b") & (table["input"] == "without color")]
    assert (other["ap_more_low"] > 0).all()  # b hardly needs color


def test_findings_and_figures_of_the_comparison(compared):
    result = compared["comparison"]
    table = result.tables["comparison"]
    means = table[table["input"] == "as they are"].groupby("checkpoint")["ap"].mean()
    assert result.findings[0].startswith(
        "Mean AP over generators, images as they are: "
        f"a {means['a']:.3f}; b {means['b']:.3f}; c {means['c']:.3f}. "
        f"Compared with a: b {means['b'] - means['a']:+.3f} ("
    )
    # c is a copy of a; b hardly needs color.
    assert result.findings[0].endswith("; c +0.000 (+0.000 to +0.000, not significant).")
    gray = result.findings[1].partition("Compared with a: b ")[2].partition(";")[0]
    assert "not significant" not in gray
    assert gray.startswith("+0.")
    assert set(result.figures) == {"comparison_as_they_are", "comparison_without_color"}
    legend = result.figures["comparison_as_they_are"].legends[0].get_texts()
    assert [text.get_text() for text in legend] == ["a", "b", "c"]


def test_different_images_with_the_same_names_are_not_paired(runs, tmp_path):
    other = tiny.tree(tmp_path, NAMES, images=20, size=16, seed=1)
    both = {"a.ckpt": runs["runs/a/best.ckpt"], "b.ckpt": run_of(other)}
    result = combine(both)["comparison"]
    assert "ap_more" not in result.tables["comparison"]
    assert len(result.tables["comparison"]) == 2 * 2 * 2


def test_tables_of_only_some_checkpoints_are_joined():
    parts = {
        "a": Result("t", tables={"x": pd.DataFrame({"v": [1]})}, warnings=["w"], alarms=["!"]),
        "b": Result("t", tables={"y": pd.DataFrame({"v": [2]})}),
    }
    result = join(parts)
    assert result.tables["x"].to_dict("list") == {"checkpoint": ["a"], "v": [1]}
    assert result.tables["y"].to_dict("list") == {"checkpoint": ["b"], "v": [2]}
    assert (result.warnings, result.alarms) == (["a: w"], ["a: !"])


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["one.ckpt"], ["one.ckpt"]),
        (["runs/a/best.ckpt"], ["runs/a/best.ckpt"]),
        (["a.ckpt", "b.ckpt"], ["a.ckpt", "b.ckpt"]),
        (["runs/a/best.ckpt", "runs/b/best.ckpt"], ["a", "b"]),
        (["runs/a/x/best.ckpt", "runs/b/x/best.ckpt"], ["a", "b"]),
        (["runs/a/best.ckpt", "runs/b/last.ckpt"], ["a/best.ckpt", "b/last.ckpt"]),
        (["runs/a/best.ckpt", "runs/a/last.ckpt"], ["best.ckpt", "last.ckpt"]),
        (["runs/best.ckpt", "runs/b/best.ckpt"], ["runs", "runs/b"]),
        (["/x/a/best.ckpt", "/x/a/b/best.ckpt"], ["a", "a/b"]),
        (["/x/a/b", "/x/a/b/c"], ["b", "b/c"]),
        (["/best.ckpt", "/x/best.ckpt"], ["/", "/x"]),
        (["best.ckpt", "/x/best.ckpt"], ["best.ckpt", "/x/best.ckpt"]),
        (["../a/best.ckpt", "best.ckpt"], ["../a/best.ckpt", "best.ckpt"]),
        (["r/a/1/c", "r/b/1/c", "r/a/2/c"], ["a/1", "b/1", "a/2"]),
        (["r/ab/c", "r/abc/c"], ["ab", "abc"]),
    ],
)
def test_names_are_the_parts_in_which_paths_differ(paths, expected):
    assert shorten_paths(paths) == expected
    assert len(set(expected)) == len(paths)
    assert shorten_paths(paths[::-1]) == expected[::-1]


@pytest.mark.parametrize("paths", [["a.ckpt", "a.ckpt"], ["r/a.ckpt", "r//a.ckpt", "b.ckpt"]])
def test_the_same_checkpoint_twice_is_refused(paths):
    with pytest.raises(ValueError, match=r"ckpt: the same checkpoint twice in .*a\.ckpt"):
        list_checkpoints(paths)


def test_lists_of_checkpoints():
    assert list_checkpoints(None) == [None]
    assert list_checkpoints("a.ckpt") == ["a.ckpt"]
    assert list_checkpoints(("a.ckpt", "b.ckpt")) == ["a.ckpt", "b.ckpt"]
    with pytest.raises(ValueError, match=r"ckpt=\[\]: pass the path"):
        list_checkpoints([])
