"""Trainings side by side, from the folders that they and their analyses leave."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy.stats import spearmanr, ttest_ind
from tests.helpers.bootstrap_by_hand import ends

from tff.analyses.engine.evaluation import GROUPS
from tff.comparisons.runs import find_runs
from tff.comparisons.sweep import (
    Sweep,
    compare_best,
    correlate_shares,
    find_missing,
    read_job,
    tabulate_jobs,
)
from tff.report.page import write
from tff.report.results import read_results, write_results

SEEN, UNSEEN = "001", ("NA", "=x", "other")
GENERATORS = (SEEN, *UNSEEN)


def with_ends(name, value):
    return {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.03}


def report(folder, random, summaries=True, seed=0, k=21):
    """A report of made-up numbers, which are given back: generator -> ap, ablated, shares."""
    said = {"weights": "best.ckpt sha256:1", "relevance": "rule=zplus", "seed": seed}
    made = pd.DataFrame(random.random((4, 4)), list(GENERATORS), ["ap", "gray", "share", "sep"])
    first = [{"generator": g, "seen": g == SEEN} for g in GENERATORS]
    detection = [
        f | with_ends("ap", v) | {"images": 200} for f, v in zip(first, made["ap"], strict=True)
    ]
    unseen = made.loc[list(UNSEEN)]
    if summaries:
        for where, value in (
            ("seen", made.loc[SEEN, "ap"]),
            ("unseen", unseen["ap"].mean()),
            ("unseen_worst", unseen["ap"].min()),
        ):
            row = {"generator": GROUPS[where], "seen": where == "seen"}
            ends = {"ap": value, "ap_low": value - 0.2, "ap_high": value + 0.1}
            detection.append(row | ends)
    ablation = [
        f | with_ends("ap", m.ap) | {"cue": "color", "ap_ablated": m.gray, "images": 200}
        for f, m in zip(first, made.itertuples(), strict=True)
    ]
    drop = (unseen["ap"] - unseen["gray"]).mean()
    conditional = [
        f | {"cue": "color", "k": k, "share": m.share, "share_losing": m.sep, "images": 100}
        for f, m in zip(first, made.itertuples(), strict=True)
    ]
    tables = {
        "detection": detection,
        "ablation": ablation,
        "ablation_summary": [{"where": "unseen", "cue": "color"} | with_ends("ap_drop", drop)],
        "conditional_share": conditional,
    }
    (folder / "report").mkdir(exist_ok=True)
    tables = {name: pd.DataFrame(rows).assign(**said) for name, rows in tables.items()}
    write_results(folder / "report", tables, {}, {})
    return made


def change(folder, name, **columns):
    """Columns of one table of a report, replaced."""
    tables = read_results(folder / "report").tables
    tables[name] = tables[name].assign(**columns)
    write_results(folder / "report", tables, {}, {})


def settings(folder, detector="resnet18", aug="none", seed=0, choices=True, **typed):
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    config = {"detector": {"name": detector}, "seed": seed, "out": "${hydra:runtime.output_dir}"}
    config["module"] = {"optimizer": {"lr": float(typed.get("module.optimizer.lr", 0.001))}}
    known = {"detector": detector, "aug": aug, "data": "autogan", "experiment": None}
    if choices:
        OmegaConf.save({"hydra": {"runtime": {"choices": known}}}, hydra / "hydra.yaml")
    OmegaConf.save(config, hydra / "config.yaml")
    typed = {"detector": detector, "aug": aug, "seed": seed, **typed}
    OmegaConf.save([f"{k}={v}" for k, v in typed.items()], hydra / "overrides.yaml")


def finished(folder, objective=0.9, **metrics):
    told = {"objective": objective, "metrics": {"val/ap": objective, **metrics}, "seconds": 12.5}
    (folder / "finished.json").write_text(json.dumps(told))
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"")


def failed(folder, error="out of memory\nmore of it", kind="RuntimeError"):
    (folder / "failed.json").write_text(json.dumps({"error": error, "type": kind}))


@pytest.fixture(scope="module")
def template(tmp_path_factory, pytestconfig):
    """Detector x augmentation x seed, all finished and analysed: 2 x 2 x 3 jobs."""
    tmp_path, random = (
        tmp_path_factory.mktemp("template"),
        np.random.default_rng(pytestconfig.option.seed),
    )
    made, number = {}, 0
    for detector in ("resnet18", "resnet50"):
        for aug in ("none", "blur"):
            for seed in (1, 2, 3):
                folder = tmp_path / "sweep" / str(number)
                settings(folder, detector, aug, seed, data="autogan")
                objective = random.random()
                finished(folder, objective, **{"train/loss": 1.0, "val/loss": 0.25})
                numbers = report(folder, random)
                made[str(number)] = (detector, aug, seed, objective, numbers)
                number += 1
    (tmp_path / "sweep" / "multirun.yaml").write_text("hydra: {}\n")
    return tmp_path / "sweep", made


@pytest.fixture
def sweep(template, tmp_path):
    """A copy to spoil, and the made-up numbers."""
    shutil.copytree(template[0], tmp_path / "sweep")
    return tmp_path / "sweep", template[1]


@pytest.fixture
def pair(template, tmp_path):
    """A copy of two jobs, the second of which may be spoiled."""
    for name in ("2", "3"):
        shutil.copytree(template[0] / name, tmp_path / "sweep" / name)
    return tmp_path / "sweep"


def answer(runs, draws=50):
    return Sweep(runs if runs is None else str(runs), draws)()


@pytest.fixture(scope="module")
def result(template):
    """Comparison of all jobs as they are."""
    return answer(template[0])


def flat(made):
    """The made-up numbers as the sweep should tell them, a row a job."""
    rows = []
    for name, (detector, aug, seed, objective, numbers) in made.items():
        unseen = numbers.loc[list(UNSEEN)]
        rows.append(
            {
                "run": name, "group": f"{detector} {aug}", "seed": str(seed),
                "objective": objective, "unseen_ap": unseen["ap"].mean(),
                "seen_ap": numbers.loc[SEEN, "ap"], "worst_ap": unseen["ap"].min(),
                "worst_generator": unseen["ap"].idxmin(),
                "ap_drop": (unseen["ap"] - unseen["gray"]).mean(),
                "conditional_share": unseen["share"].mean(),
                "share_losing": unseen["sep"].mean(),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_one_row_per_job(template, result):
    folder, made = template
    table = result.tables["sweep"]
    want = flat(made)
    assert list(table["run"]) == [str(i) for i in range(12)]  # 10 after 9
    assert set(table["state"]) == {"finished"}
    for column in want:
        if want[column].dtype == float:
            np.testing.assert_allclose(table[column], want[column])
        else:
            assert table[column].tolist() == want[column].tolist()
    np.testing.assert_allclose(table["unseen_ap_low"], want["unseen_ap"] - 0.2)
    np.testing.assert_allclose(table["worst_ap_high"], want["worst_ap"] + 0.1)
    np.testing.assert_allclose(table["ap_drop_high"], want["ap_drop"] + 0.03)
    assert (table["seconds"] == 12.5).all()
    assert (table["k"] == 21).all()
    assert (table["val/loss"] == 0.25).all()
    assert "train/loss" not in table
    assert set(table["generators"]) == {"=x, NA, other"}
    assert list(table["checkpoint"]) == [
        str(folder / str(i) / "checkpoints" / "best.ckpt") for i in range(12)
    ]


def test_means_and_spread_of_groups(template, result):
    table, want = result.tables["sweep_summary"], flat(template[1]).groupby("group")
    assert table["unseen_ap_mean"].is_monotonic_decreasing
    assert set(table["group"]) == set(want.groups)
    for row in table.to_dict("records"):
        part = want.get_group(row["group"])
        assert (row["jobs"], row["compared"], row["seeds"], row["failed"]) == (3, 3, 3, 0)
        for measure in ("objective", "unseen_ap", "worst_ap", "ap_drop", "share_losing"):
            for how, value in (
                ("mean", part[measure].sum() / 3),
                ("sd", np.sqrt(((part[measure] - part[measure].mean()) ** 2).sum() / 2)),
                ("min", part[measure].min()),
                ("max", part[measure].max()),
            ):
                assert row[f"{measure}_{how}"] == pytest.approx(value), (measure, how)
    assert all("do not tell whether" in warning for warning in result.warnings)


def test_correlations(template, result):
    want = flat(template[1])
    jobs = result.tables["sweep"]
    table = correlate_shares(jobs, 100, 5).set_index(["share", "over"])
    assert set(table["draws"]) == {100}
    for share in ("conditional_share", "share_losing"):
        means = want.groupby("group", sort=False)[["unseen_ap", share]].mean()
        for over, part in (("jobs", want), ("group means", means)):
            row = table.loc[(share, over)]
            assert row["n"] == len(part)
            rho = spearmanr(part["unseen_ap"], part[share]).statistic
            assert row["spearman"] == pytest.approx(rho)
            assert np.isnan([row["spearman_low"], row["spearman_high"]]).all()
    assert not table.loc[("share_losing", "jobs"), "independent"]  # three seeds a group
    apart = jobs.assign(group=jobs["run"])
    table = correlate_shares(apart, 100, 5).set_index(["share", "over"])
    for share in ("conditional_share", "share_losing"):
        for over, part in (("jobs", want), ("group means", want)):
            row = table.loc[(share, over)]
            rho = spearmanr(part["unseen_ap"], part[share]).statistic
            assert row["n"] == len(part)
            assert row["spearman"] == pytest.approx(rho)
            # Recomputed with the documented draws: rows with replacement from the seed.
            n = len(part)
            rows = np.random.default_rng(5).integers(0, n, (100, n))
            pairs = part[["unseen_ap", share]].to_numpy()
            drawn = [spearmanr(*pairs[r].T).statistic for r in rows if len(set(r)) > 1]
            expected = ends(rho, drawn)
            if abs(rho) > 1 - 1e-9:  # all resamples are in the same order
                expected = [np.nan, np.nan]
            found = row[["spearman_low", "spearman_high"]].to_list()
            np.testing.assert_allclose(found, expected)


def test_findings_name_the_best_group_and_a_checkpoint_by_validation(template, result):
    folder, made = template
    want = flat(made)
    means = want.groupby("group")["unseen_ap"].agg(["mean", "std"]).sort_values("mean")
    best, following = means.index[-1], means.index[-2]
    findings = result.findings
    assert findings[0] == "12 jobs in 4 groups: 12 finished."
    told = f"Best in mean AP on unseen generators: {best} with {means['mean'].iloc[-1]:.3f} (3 t"
    assert findings[1].startswith(told)
    gap = means["mean"].iloc[-1] - means["mean"].iloc[-2]
    samples = [want.loc[want["group"] == group, "unseen_ap"] for group in (best, following)]
    p = ttest_ind(*samples, equal_var=False).pvalue
    assert findings[2].startswith(f"Next is {following} with")
    no, may = ("", "") if p < 0.05 else ("no ", "may ")
    verdict = f"{no}more than other seeds {may}explain"
    told = f"The difference is {gap:.3f}: {verdict} (Welch's t test over seeds, p = {p:.2g})."
    assert findings[2].endswith(told)
    mine = want[want["group"] == best]
    chosen = mine.loc[mine["objective"].idxmax(), "run"]
    path = folder / chosen / "checkpoints" / "best.ckpt"
    assert findings[3] == f"Checkpoint of this group (its best in validation): {path}"


@pytest.mark.parametrize(
    ("aps", "words"),
    [
        (((0.5, 0.6, 0.55), (0.70, 0.74, 0.72)), "more than other seeds explain (Welch's t test"),
        (((0.5, 0.6, 0.55), (0.50, 0.64, 0.63)), "no more than other seeds may explain (Welch's"),
        (((0.5, 0.5001), (0.9, 0.9001)), "too few seeds to tell whether it is more than chance"),
        (((0.5, 0.5001, 0.5), (0.9,)), "too few seeds to tell whether it is more than chance"),
    ],
)
def test_a_lead_is_held_against_the_spread_over_seeds(tmp_path, rng, aps, words):
    for group, of_group in zip(("resnet18", "resnet50"), aps, strict=True):
        for seed, ap in enumerate(of_group):
            folder = tmp_path / f"{group}{seed}"
            settings(folder, group, seed=seed)
            finished(folder)
            report(folder, rng, summaries=False)
            for name in ("detection", "ablation"):
                change(folder, name, ap=ap)
    assert f": {words}" in answer(tmp_path).findings[2]


def test_a_seed_trained_twice_counts_once(result):
    jobs = result.tables["sweep"]
    groups = jobs["group"].unique()[:2]
    assert np.isfinite(compare_best(jobs, *groups))
    assert np.isnan(compare_best(jobs.assign(seed="1"), *groups))


def test_figures_show_the_jobs(template, result):
    want = flat(template[1])
    groups = list(result.tables["sweep_summary"]["group"])
    ax = result.figures["sweep_ap"].axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == groups
    dots = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
    for i, (group, dot) in enumerate(zip(groups, dots, strict=True)):
        np.testing.assert_allclose(
            sorted(dot.get_xdata()), sorted(want.loc[want["group"] == group, "unseen_ap"])
        )
        assert set(dot.get_ydata()) == {i}
    ax = result.figures["sweep_share_losing"].axes[0]
    for line in ax.lines:
        part = want[want["group"] == line.get_label()]
        np.testing.assert_allclose(line.get_xdata(), part["share_losing"])
        np.testing.assert_allclose(line.get_ydata(), part["unseen_ap"])
    assert len(ax.collections) == 4  # intervals of each group
    assert set(result.captions) == set(result.figures)


def test_results_on_images_of_the_training_are_an_alarm(sweep):
    folder, _ = sweep
    change(folder / "4", "detection", trained_images="included")
    result = answer(folder)
    assert any("trained_images=include" in alarm for alarm in result.alarms)
    table = result.tables["sweep"].set_index("run")
    assert table.loc["4", "trained_images"] == "included"
    assert table["trained_images"].notna().sum() == 1


def test_a_failed_job_is_an_alarm_and_counts_nowhere(sweep):
    folder, made = sweep
    failed(folder / "4")
    (folder / "4" / "finished.json").unlink()
    result = answer(folder)
    table = result.tables["sweep"].set_index("run")
    assert (table.loc["4", "state"], table.loc["4", "error"]) == (
        "failed", "RuntimeError: out of memory"
    )  # fmt: skip
    assert result.alarms == ["Job 4 (resnet18 blur, seed 2) failed: RuntimeError: out of memory"]
    groups = result.tables["sweep_summary"].set_index("group")
    assert groups.loc["resnet18 blur", ["jobs", "failed", "compared", "seeds"]].tolist() == [
        3, 1, 2, 2
    ]  # fmt: skip
    rest = flat({name: made[name] for name in ("3", "5")})
    assert groups.loc["resnet18 blur", "unseen_ap_mean"] == pytest.approx(rest["unseen_ap"].mean())
    together = result.tables["sweep_association"].set_index(["over", "share"])["n"]
    assert together["jobs"].to_dict() == {
        "share_losing": 11, "conditional_share": 11, "share_separating": 0
    }  # fmt: skip
    assert "11 finished, 1 failed" in result.findings[0]
    assert result.scalars["jobs failed"] == 1


def test_the_newer_file_says_how_a_repeated_job_ended(sweep):
    folder, _ = sweep
    for name, age, state in (("4", -100, "finished"), ("5", 100, "failed")):
        failed(folder / name)
        now = (folder / name / "finished.json").stat().st_mtime
        os.utime(folder / name / "failed.json", (now + age, now + age))
        assert read_job(folder / name)["state"] == state


def test_unfinished_and_not_analysed_jobs_are_named(sweep):
    folder, _ = sweep
    (folder / "2" / "finished.json").unlink()
    logs = folder / "2" / "logs" / "train"
    logs.mkdir(parents=True)
    (logs / "metrics.csv").write_text("step,val/ap,train/ap\n1,0.5,\n2,0.75,\n3,,0.9\n")
    (folder / "7" / "report" / "results.json").unlink()
    result = answer(folder)
    table = result.tables["sweep"].set_index("run")
    assert table.loc["2", "state"] == "unfinished"
    assert table.loc["2", "val/ap"] == 0.75
    assert table.loc["7", "state"] == "trained, not analysed"
    assert any(w.startswith("Job 2 neither finished nor failed") for w in result.warnings)
    assert any(w.startswith("Job 7 finished, but the folder has no") for w in result.warnings)
    assert result.tables["sweep_summary"]["compared"].sum() == 10
    assert result.alarms == []


RESULTS = "report/results.json"
DETECTION = {"generator": {"type": "text", "values": ["x"]}}
AP = {"generator": ("text", ["x"]), "seen": ("bool", [True]), "images": ("int64", [9])}
AP |= dict.fromkeys(("ap", "ap_low", "ap_high"), ("float64", [0.5]))
METRICS = {f"val/{number}": 1.0 for number in range(2000)}
# Each line names the one before nine times: all of it would be 9^9 words.
LAUGHS = "a0: &a0 ha\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9)
)
NO_ROWS = {c: {"type": "text", "values": []} for c in ("generator", "seen", "k", "share")}
DAMAGES = {
    "finished.json": ("finished.json", "not json", "cannot be read"),
    "deep JSON": ("finished.json", "[" * 100_000, "cannot be read as JSON"),
    "a huge integer": ("finished.json", '{"seconds": %s}' % ("9" * 5000), "is too large"),
    "a list": ("finished.json", "[1]", "expected an object"),
    "many metrics": ("finished.json", json.dumps({"metrics": METRICS}), "holds 2,000 metrics"),
    "settings": (".hydra/config.yaml", "a: [\n", "cannot be read as settings"),
    "deep settings": (".hydra/config.yaml", "- " * 100_000 + "\n", "nested more than 64 deep"),
    "aliases": (".hydra/hydra.yaml", LAUGHS, "it refers to parts of itself"),
    "code": (".hydra/config.yaml", "a: !!python/name:os.system\n", "cannot be read as settings"),
    "a value of no type": (
        ".hydra/config.yaml",
        "a: !!timestamp x\n",
        "cannot be read as settings",
    ),
    "large settings": (
        ".hydra/config.yaml",
        f"a: {'b' * (1 << 20)}\n",
        "more than 1,048,576 bytes",
    ),
    "no list": (".hydra/overrides.yaml", "a: 1\n", "is no list of options"),
    "cut settings": (".hydra/config.yaml", "a: 1\nb: 2", "its last line has no end"),
    "cut off": (RESULTS, '{"context": {}, "scalars": {}, "tab', "cannot be read as results"),
    "no column": (RESULTS, {"detection": DETECTION}, "table detection has no column seen, images"),
    "no rows": (RESULTS, {"conditional_share": NO_ROWS}, "conditional_share has no rows"),
    "text for truth": (
        RESULTS,
        {"detection": AP | {"seen": ("text", ["x"])}},
        "seen holds not only",
    ),
    "text for numbers": (RESULTS, {"detection": AP | {"ap": ("text", ["1"])}}, "ap holds not only"),
    "infinite": (
        RESULTS,
        {"detection": AP | {"ap": ("float64", ["inf"])}},
        "ap holds not only finite",
    ),
    "no name": (
        RESULTS,
        {"detection": AP | {"generator": ("text", [None])}},
        "holds not only text",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_job_is_named_and_the_others_are_used(pair, damage):
    place, text, words = DAMAGES[damage]
    if isinstance(text, dict):
        columns = ("type", "values")
        tables = {
            name: {
                column: made if isinstance(made, dict) else dict(zip(columns, made, strict=True))
                for column, made in table.items()
            }
            for name, table in text.items()
        }
        text = json.dumps({"scalars": {}, "tables": tables})
    (pair / "3" / place).write_text(text)
    result = answer(pair)
    table = result.tables["sweep"].set_index("run")
    assert table.loc["3", "state"] == "damaged"
    assert words in table.loc["3", "error"]
    (alarm,) = result.alarms
    assert alarm.startswith("Job 3 (")
    assert "has a damaged file: " in alarm
    assert place.rpartition("/")[2] in alarm
    assert "1 finished" in result.findings[0]
    assert "data" not in table  # the one that tells nothing makes no option differ


def write_command(folder, *task, sweeper="hydra._internal.core_plugins.basic_sweeper.BasicSweeper"):
    hydra = {"sweeper": {"_target_": sweeper, "params": None}, "overrides": {"task": [*task]}}
    OmegaConf.save({"hydra": hydra}, folder / "multirun.yaml")


def missing(runs):
    return find_missing(find_runs(str(runs)))


@pytest.mark.parametrize("loss", ["NaN", "null", "Infinity"])
def test_a_training_that_an_earlier_version_took_for_finished(pair, loss):
    text = '{"objective": NaN, "metrics": {"val/ap": NaN, "val/loss": LOSS}}'.replace("LOSS", loss)
    (pair / "3" / "finished.json").write_text(text)
    table = answer(pair).tables["sweep"].set_index("run")
    assert table.loc["3", "state"] == "failed"
    assert table.loc["3", "error"] == "the training diverged: val/loss is no number"


def test_a_training_without_a_best_checkpoint_says_so(pair):
    shutil.rmtree(pair / "3" / "report")
    shutil.rmtree(pair / "3" / "checkpoints", ignore_errors=True)
    table = answer(pair).tables["sweep"].set_index("run")
    assert table.loc["3", "state"] == "trained, not analysed"
    assert table.loc["3", "error"] == "no best.ckpt: no validation chose one"


def test_jobs_that_never_began_are_counted(sweep):
    folder, _ = sweep
    grid = ("detector=resnet18,resnet50", "aug=none,blur", "data.root='a,b'")
    write_command(folder, *grid, "seed=1,2,3")
    assert missing(folder) == []
    write_command(folder, *grid, "seed=range(1,6)", "tags=[a],[b]")  # tags are no part of a job
    (told,) = missing(folder)
    assert told.startswith(f"8 of 20 jobs of {folder} have no folder: ")
    assert told in answer(folder).warnings
    assert missing(folder.parent) == [told]
    assert missing(folder / "1*") == []  # who asks for some wants no others


@pytest.mark.parametrize(
    "how",
    [
        ("x=glob(*)", None),
        ("x=interval(0, 1)", None),
        ("x=1,2", "optuna.Sweeper"),
        ("'", None),
        ("x=range(1, 1000000000000)", None),
        ("x=shuffle(range(1000000000000))", None),
        ("x=range(0, 1, 1e-300)", None),
        ("x=" + "[" * 9000, None),
        ("x=" + "a" * 100_000, None),
        ("x=range(0, 1, 0)", None),
    ],
)
def test_jobs_that_cannot_be_counted(sweep, how):
    folder, _ = sweep
    option, sweeper = how
    write_command(folder, option, "seed=range(100)", **({"sweeper": sweeper} if sweeper else {}))
    assert missing(folder) == []


def test_a_report_of_several_checkpoints_is_refused(pair):
    change(pair / "3", "detection", checkpoint=["a", "b", *"aaaaa"])
    row = read_job(pair / "3")
    assert row["state"] == "damaged"
    assert "is of several checkpoints" in row["error"]


def test_other_options_that_were_swept_make_groups(tmp_path, rng):
    for i, (lr, out) in enumerate((("0.01", "a"), ("1e-2", "b"), ("0.1", "c"), (None, "d"))):
        typed = {"module.optimizer.lr": lr} if lr else {}
        settings(tmp_path / str(i), seed=i, out=out, experiment="demo", **typed)
        finished(tmp_path / str(i))
        report(tmp_path / str(i), rng)
    result = answer(tmp_path)
    table = result.tables["sweep"]
    # The same number typed in two ways is the same; the one that nobody typed is the default.
    assert table["module.optimizer.lr"].tolist() == ["0.01", "0.01", "0.1", "0.001"]
    assert table["group"].tolist() == ["lr=0.01", "lr=0.01", "lr=0.1", "lr=0.001"]
    assert not {"out", "experiment"} & set(table)
    groups = result.tables["sweep_summary"].set_index("group")
    assert groups.loc["lr=0.01", "seeds"] == 2
    assert np.isnan(groups.loc["lr=0.1", "unseen_ap_sd"])


def test_names_without_the_settings_of_hydra(tmp_path):
    settings(tmp_path / "0", "resnet50", "blur_jpeg", 7, choices=False)
    settings(tmp_path / "1", "timm", "none", 7)
    OmegaConf.save(
        {"detector": {"name": "convnext_tiny"}, "seed": 7}, tmp_path / "1/.hydra/config.yaml"
    )
    (tmp_path / "2").mkdir()
    failed(tmp_path / "2", "", None)
    table, _ = tabulate_jobs(find_runs(str(tmp_path)))
    assert table["detector"].tolist() == ["resnet50", "timm convnext_tiny", "unknown"]
    assert table["aug"].tolist() == ["blur_jpeg", "none", "unknown"]
    assert table["seed"].tolist() == ["7", "7", ""]
    assert table["error"].tolist() == ["", "", "no reason was recorded"]


def test_warnings_about_the_comparison(sweep, rng):
    folder, _ = sweep
    report(folder / "0", rng, seed=4, k=30)
    for name in ("3", "4"):  # one is left of this group
        (folder / name / "finished.json").unlink()
    (folder / "8" / ".hydra" / "config.yaml").write_text("seed: 1\ndetector: {name: resnet50}\n")
    warnings = "\n".join(answer(folder).warnings)
    assert "not comparable: analysis_seed is 4, 0." in warnings
    assert "k is 30, 21." in warnings
    assert "Only one training of resnet18 blur" in warnings
    assert "resnet50 none: seed 1 was trained more than once" in warnings


def test_few_jobs_have_no_correlation(result):
    """Twelve jobs of four groups: neither the groups nor the seeds of one are ten."""
    assert result.tables["sweep_association"]["spearman_low"].isna().all()
    assert sum("do not tell whether the two are correlated" in w for w in result.warnings) == 2
    assert not any("Spearman" in f for f in result.findings)
    assert not any(name.startswith("spearman") for name in result.scalars)


@pytest.mark.parametrize("swap", [0, 1])
def test_a_perfect_order_has_no_interval(tmp_path, rng, swap):
    shares = np.linspace(0.9, 0.1, 10)
    shares[:2] = shares[[swap, 1 - swap]]
    for i, (ap, share) in enumerate(zip(np.linspace(0.6, 0.9, 10), shares, strict=True)):
        settings(tmp_path / str(i), seed=i)
        finished(tmp_path / str(i))
        report(tmp_path / str(i), rng, summaries=False)
        for name, value in (("detection", {"ap": ap}), ("conditional_share", {"share": share})):
            change(tmp_path / str(i), name, **value)
    result = answer(tmp_path)
    table = result.tables["sweep_association"].set_index(["share", "over"])
    row = table.loc[("conditional_share", "jobs")]
    rho = spearmanr(np.arange(10), shares).statistic
    assert row["spearman"] == pytest.approx(rho)
    assert np.isnan([row["spearman_low"], row["spearman_high"]]).tolist() == [not swap] * 2
    said = f"{rho:.2f} (" + ("a perfect order, which has no" if not swap else "")
    (finding,) = [f for f in result.findings if "median test" in f]
    assert said in finding
    assert finding.endswith(" over 10 trainings.")
    assert "not significant" not in finding


def test_the_page_shows_odd_names_escaped(pair, tmp_path):
    failed(pair / "3", "=1+1 <script>alert(1)</script>", "ValueError")
    (pair / "3" / "finished.json").unlink()
    page = write({"sweep": answer(pair)}, tmp_path / "report", {}).read_text()
    assert "<script>alert" not in page
    assert "=1+1" in page
