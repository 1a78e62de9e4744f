"""The cue matrix, from reports as `report.page.write` leaves them."""

import itertools

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from tff.comparisons.cue_matrix import CueMatrix, compare_cues
from tff.report.page import write
from tff.report.results import write_results

GENERATORS = ("other", "mine")  # the second one is the seen one


def ablation(cue, drops, weights="w", name=None, generators=GENERATORS):
    rows = [
        {
            "generator": generator, "seen": generator == "mine", "cue": cue,
            "ablation": name or f"{cue}()", "ap": 0.9, "ap_drop": drop,
            "ap_drop_low": drop - 0.1, "ap_drop_high": drop + 0.1, "median_drop": drop / 2,
            "weights": weights,
        }
        for generator, drop in zip(generators, drops, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def conditional(cue, share, weights="w", name=None, generators=GENERATORS):
    rows = [
        {
            "generator": generator, "seen": generator == "mine", "cue": cue,
            "ablation": name or f"{cue}()", "share": share, "share_losing": share / 2,
            "share_gaining": share / 3, "share_turning": share / 5, "share_separating": share / 7,
            "share_of_all": share / 4, "weights": weights,
        }
        for generator in generators
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def sweep(tmp_path):
    """Writes the report of the next job of a sweep, from tables; gives all reports."""
    number = itertools.count()

    def job(**tables):
        report = tmp_path / str(next(number)) / "report"
        report.mkdir(parents=True)
        write_results(report, tables, {}, {})
        return sorted(tmp_path.glob("*/report"))

    return job


def cells(figure):
    """Texts of the cells by (row, column) labels."""
    ax = figure.axes[0]
    rows, columns = ([t.get_text() for t in a.get_ticklabels()] for a in (ax.yaxis, ax.xaxis))
    places = {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in ax.texts}
    return {(rows[i], columns[j]): text for (i, j), text in places.items()}


def test_the_table_holds_drops_and_shares_of_all_jobs(sweep):
    sweep(ablation=ablation("blur", (0.05, 0.2)), conditional_share=conditional("blur", 0.6))
    reports = sweep(
        ablation=ablation("color", (0.3, 0.4)), conditional_share=conditional("color", 0.8)
    )
    result = compare_cues(reports)
    table = result.tables["cue_matrix"]
    assert list(table.columns[:4]) == ["weights", "cue", "ablation", "generator"]
    assert len(table) == 4
    row = table.query("cue == 'blur' and generator == 'mine'").iloc[0]
    assert (row["ap_drop"], row["ap_drop_low"], row["share"]) == (0.2, 0.1, 0.6)
    assert (row["share_of_all"], row["median_drop"], row["ap"]) == (0.15, 0.1, 0.9)
    assert result.findings == [
        "Change of AP, mean over generators: -0.350 without color (falls significantly on 2 of 2), "
        "-0.125 without blur (falls significantly on 1 of 2). Of 4 pairs of cue and generator AP "
        "falls significantly in 3 and rises in 0; of pairs without any change, one in 20 would "
        "seem to."
    ]
    assert result.scalars == {"ap_drop_color": pytest.approx(0.35), "ap_drop_blur": 0.125}


def test_the_figures_show_each_number_in_its_cell(sweep):
    sweep(ablation=ablation("blur", (0.05, 0.2)), conditional_share=conditional("blur", 0.6))
    reports = sweep(
        ablation=ablation("color", (0.3, -0.4)), conditional_share=conditional("color", 0.8)
    )
    result = compare_cues(reports)
    figures = result.figures
    assert list(figures) == [
        "cue_matrix_ap_drop", "cue_matrix_share_losing", "cue_matrix_share_gaining",
        "cue_matrix_share_turning", "cue_matrix_share",
    ]  # fmt: skip
    assert (
        "-0.125 without blur (falls significantly on 1 of 2), +0.050 without color (falls "
        in (result.findings[0])
    )
    assert (
        "without color (falls significantly on 1 and rises significantly on 1 of 2)"
        in (result.findings[0])
    )
    found = cells(figures["cue_matrix_ap_drop"])
    # The cue that costs most is the first row, the seen generator the first column.
    assert {place: text.get_text() for place, text in found.items()} == {
        ("blur", "mine (seen)"): "0.20", ("blur", "other"): "0.05",
        ("color", "mine (seen)"): "-0.40", ("color", "other"): "0.30",
    }  # fmt: skip
    ax = figures["cue_matrix_ap_drop"].axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["blur", "color"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["mine (seen)", "other"]
    # Only the interval of 0.05 +- 0.1 holds zero.
    sizes = {place: text.get_fontsize() for place, text in found.items()}
    assert [place for place, size in sizes.items() if size < max(sizes.values())] == [
        ("blur", "other")
    ]
    assert ax.images[0].get_clim() == (-0.4, 0.4)
    found = cells(figures["cue_matrix_share_losing"])
    assert found["color", "other"].get_text() == "0.40"
    assert found["color", "other"].get_text() != cells(figures["cue_matrix_share"])[
        "color", "other"
    ].get_text()  # fmt: skip


def test_captions_begin_with_their_own_letters(sweep):
    sweep(ablation=ablation("blur", (0.1, 0.2)))
    result = compare_cues(sweep(ablation=ablation("color", (0.1, 0.2))))
    assert result.captions == {"cue_matrix_ap_drop": "AP lost without the cue. w"}


def test_fewer_than_two_cues_have_no_matrix(sweep):
    assert compare_cues([]) is None
    assert compare_cues(sweep(ranking=pd.DataFrame({"omega": [1.0]}))) is None
    assert compare_cues(sweep(ablation=ablation("color", (0.1, 0.2)))) is None
    # The same one on other channels, say.
    assert compare_cues(sweep(ablation=ablation("color", (0.1, 0.2)))) is None


def test_two_strengths_of_one_cue_are_two_rows_with_their_own_shares(sweep):
    for sigma, drop in ((1, 0.1), (2, 0.3)):
        name = f"Blur(sigma={sigma})"
        reports = sweep(
            ablation=ablation("blur", (drop, drop), name=name),
            conditional_share=conditional("blur", 2 * drop, name=name),
        )
    result = compare_cues(reports)
    found = cells(result.figures["cue_matrix_share"])
    assert found["Blur(sigma=1)", "other"].get_text() == "0.20"
    assert found["Blur(sigma=2)", "other"].get_text() == "0.60"
    assert set(result.scalars) == {"ap_drop_Blur(sigma=1)", "ap_drop_Blur(sigma=2)"}


def test_a_job_without_shares_or_a_generator_leaves_cells_empty(sweep):
    sweep(ablation=ablation("blur", (0.1, 0.2)), conditional_share=conditional("blur", 0.6))
    reports = sweep(ablation=ablation("color", (0.5,), generators=("third",)))
    result = compare_cues(reports)
    assert set(cells(result.figures["cue_matrix_ap_drop"])) == {
        ("blur", "mine (seen)"), ("blur", "other"), ("color", "third")
    }  # fmt: skip
    assert {row for row, _ in cells(result.figures["cue_matrix_share"])} == {"blur"}
    assert result.tables["cue_matrix"]["share"].isna().sum() == 1


def test_undefined_drops_are_empty_cells_and_no_finding(sweep):
    sweep(ablation=ablation("blur", (np.nan, np.nan)))
    result = compare_cues(sweep(ablation=ablation("color", (np.nan, np.nan))))
    assert cells(result.figures["cue_matrix_ap_drop"]) == {}
    assert result.findings == []
    result = compare_cues(sweep(ablation=ablation("hue", (np.nan, 0.2))))
    assert set(cells(result.figures["cue_matrix_ap_drop"])) == {("hue", "mine (seen)")}
    assert "generators: -0.200 without hue (falls significantly on 1 of 1). " in result.findings[0]


def test_each_detector_has_its_own_matrix(sweep):
    for cue, drop in (("blur", 0.1), ("color", 0.3)):
        both = [ablation(cue, (drop, drop), "a"), ablation(cue, (2 * drop, drop / 10), "b")]
        reports = sweep(ablation=pd.concat(both).assign(checkpoint="first"))
    result = compare_cues(reports)
    assert list(result.figures) == ["cue_matrix_ap_drop_a", "cue_matrix_ap_drop_b"]
    assert result.findings[0].startswith("a: change of AP, mean")
    found = cells(result.figures["cue_matrix_ap_drop_b"])
    assert found["color", "other"].get_text() == "0.60"
    assert result.captions["cue_matrix_ap_drop_b"].endswith(". b")
    assert result.scalars["ap_drop_color_a"] == pytest.approx(0.3)


def test_odd_names_are_unchanged(sweep, tmp_path, hostile):
    names = (hostile, "=1+1", "001", "NA", "None")
    for cue in ("=cue", "$x_1$"):
        reports = sweep(
            ablation=ablation(cue, (0.1, 0.2, 0.3, 0.4, 0.5), "12e5", generators=names),
            conditional_share=conditional(cue, 0.5, "12e5", generators=names),
        )
    result = compare_cues(reports)
    table = result.tables["cue_matrix"]
    assert set(table["generator"]) == set(names)
    assert set(table["cue"]) == {"=cue", "$x_1$"}
    assert set(table["weights"]) == {"12e5"}
    assert table["share"].notna().all()
    page = write({"cue_matrix": result}, tmp_path / "report", {}).read_text()
    assert "<script>alert" not in page
    assert "'=1+1" in (tmp_path / "report" / "tables" / "cue_matrix.csv").read_text()


def test_a_damaged_report_is_named_and_the_others_are_used(sweep):
    for cue in ("blur", "color", "hue"):
        reports = sweep(ablation=ablation(cue, (0.1, 0.2)))
    (reports[1] / "results.json").write_text("{")
    result = compare_cues(reports)
    assert set(result.tables["cue_matrix"]["cue"]) == {"blur", "hue"}
    (warning,) = result.warnings
    assert warning.startswith(f"A job is skipped: {reports[1] / 'results.json'}: cannot be read")


def test_a_sweep_ends_with_the_matrix(sweep, tmp_path, capsys):
    config = OmegaConf.create(
        {"hydra": {"sweep": {"dir": str(tmp_path)}, "overrides": {"task": ["ablation=a,b"]}}}
    )
    CueMatrix().on_multirun_end(config)
    sweep(ablation=ablation("blur", (0.1, 0.2)))
    CueMatrix().on_multirun_end(config)
    assert not (tmp_path / "report").exists()
    sweep(ablation=ablation("color", (0.1, 0.2)))
    for _ in range(2):  # again: its own report is no job, and is replaced
        CueMatrix().on_multirun_end(config)
    assert len(pd.read_csv(tmp_path / "report" / "tables" / "cue_matrix.csv")) == 4
    assert '"ablation=a,b"' in (tmp_path / "report" / "summary.json").read_text()
    assert "Which cue does the detector need?" in capsys.readouterr().out


def test_results_on_images_of_the_training_are_an_alarm(sweep):
    sweep(ablation=ablation("blur", (0.05, 0.2)))
    reports = sweep(ablation=ablation("color", (0.3, 0.4)))
    assert not compare_cues(reports).alarms
    included = ablation("hue", (0.1, 0.2)).assign(trained_images="included")
    result = compare_cues(sweep(ablation=included))
    assert any("trained_images=include" in alarm for alarm in result.alarms)
