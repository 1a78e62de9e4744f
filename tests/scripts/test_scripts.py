"""The two scripts on tiny data."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
from tests.helpers import scripts, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny.tree(folder / "images", images=12, size=40)
    run = scripts.run(
        "train.py", "detector=timm", "detector.name=test_resnet", "detector.pretrained=false",
        "aug=color_robust", "data=folder", f"data.root={folder / 'images'}", "data.size=32",
        "data.batch_size=8", "data.workers=0", "trainer.max_epochs=2", "trainer.accelerator=cpu",
        "logger=wandb",
        "module.optimizer.lr=0.001", "callbacks.analyze.images=4",
        "callbacks.analyze.subject.confidence=0.5", "callbacks.analyze.subject.draws=50",
        f"hydra.run.dir={folder / 'a=1 (x), [y]'}",
    )  # fmt: skip
    return folder, folder / "a=1 (x), [y]", run


def test_training_leaves_checkpoints_logs_and_a_summary(trained):
    _, out, run = trained
    assert {"best.ckpt", "last.ckpt"} <= {p.name for p in (out / "checkpoints").iterdir()}
    assert "val/ap" in run.stdout
    assert "python analyze.py 'ckpt=" in run.stdout
    assert "val/ap" in pd.read_csv(out / "logs" / "train" / "metrics.csv")
    assert list((out / "wandb").glob("offline-run-*/run-*.wandb"))


def test_analysis_from_the_checkpoint_alone(trained):
    _, out, _ = trained
    run = scripts.run(
        "analyze.py", f"ckpt={out}/checkpoints/best.ckpt", "subject.confidence=0.5", "images=4",
        "subject.draws=50", f"hydra.run.dir={out}",
    )  # fmt: skip
    report = out / "report"
    assert str(report / "index.html") in run.stdout.replace("\n", "")
    for name, columns in {
        "ranking": "layer channel omega",
        "sensitivity": "generator dropout k ap real_accuracy fake_accuracy threshold",
        "ablation": "generator cue ap ap_ablated median_drop",
        "median_test": "generator cue layer channel p_value",
        "omega_fake": "key mean_relevance",
    }.items():
        table = pd.read_csv(report / "tables" / f"{name}.csv")
        assert set(columns.split()) <= set(table)
        assert set(["crop", "resize", "weights", "seed"]) <= set(table)
    summary = json.loads((report / "summary.json").read_text())
    assert summary["scalars"]["ranking/k"] == 4
    assert summary["versions"]["torch"]
    # The callback saw the same checkpoint and images: the same numbers.
    steps = sorted((out / "checkpoints").glob("step*/summary.json"))
    assert any(
        json.loads(step.read_text())["scalars"]["ablation/ap"] == summary["scalars"]["ablation/ap"]
        for step in steps
    )


@pytest.fixture
def checkpoints(trained, tmp_path):
    """Two of the training, under names that a shell and a sweep take as they are."""
    _, out, _ = trained
    for folder, name in (("one", "best"), ("two", "last")):
        (tmp_path / folder).mkdir()
        shutil.copy(out / "checkpoints" / f"{name}.ckpt", tmp_path / folder / "model.ckpt")
    return [tmp_path / folder / "model.ckpt" for folder in ("one", "two")]


FAST = ("images=4", "subject.draws=20", "subject.confidence=0.5")


def test_a_sweep_over_cues_ends_with_a_matrix(checkpoints, tmp_path):
    run = scripts.run(
        "analyze.py", "-m", "ablation=grayscale,blur", "analysis=[ablation,median_test]", *FAST,
        f"ckpt={checkpoints[0]}", f"passes={tmp_path / 'passes'}",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    report = tmp_path / "sweep" / "report"
    assert str(report / "index.html") in run.stdout.replace("\n", "")
    matrix = pd.read_csv(report / "tables" / "cue_matrix.csv")
    assert list(matrix["cue"]) == ["color"] * 2 + ["sharpness"] * 2  # of two generators
    for i, row in enumerate(matrix.itertuples()):
        tables = tmp_path / "sweep" / str(i // 2) / "report" / "tables"
        ablation = pd.read_csv(tables / "ablation.csv").iloc[i % 2]
        share = pd.read_csv(tables / "conditional_share.csv").iloc[i % 2]
        assert (row.cue, row.generator) == (ablation["cue"], ablation["generator"])
        assert (row.ap_drop, row.share) == (ablation["ap_drop"], share["share"])
    assert {path.stem for path in (report / "figures").glob("*.svg")} == {
        "cue_matrix_ap_drop", "cue_matrix_share", "cue_matrix_share_losing",
        "cue_matrix_share_gaining", "cue_matrix_share_turning",
    }  # fmt: skip
    # The second job read what the first one had computed of the images as they are.
    names = [path.name for path in (tmp_path / "passes").rglob("evaluate-*.parquet")]
    assert sorted(name.split("-")[1] for name in names) == ["blur", "grayscale", "plain"]


def test_two_checkpoints_stand_side_by_side(checkpoints, tmp_path):
    one, two = checkpoints
    scripts.run(
        "analyze.py", f"ckpt=[{one},{two}]", "analysis=[detection,ablation]", *FAST,
        f"hydra.run.dir={tmp_path / 'both'}",
    )  # fmt: skip
    tables = tmp_path / "both" / "report" / "tables"
    comparison = pd.read_csv(tables / "comparison.csv")
    assert list(comparison["checkpoint"]) == ["one"] * 4 + ["two"] * 4  # two generators
    assert list(comparison["ap_more"].isna()) == [True] * 4 + [False] * 4
    for row in comparison.itertuples():
        column = {"as they are": "ap", "without color": "ap_ablated"}[row.input]
        mine = pd.read_csv(tables / "ablation.csv").set_index(["checkpoint", "generator"])
        assert row.ap == mine.loc[(row.checkpoint, row.generator), column]
    detection = pd.read_csv(tables / "detection.csv")
    assert detection.columns[0] == "checkpoint"
    summary = json.loads((tables.parent / "summary.json").read_text())
    assert set(summary["protocol"]) == {str(one), str(two)}
    assert summary["scalars"]["detection/two/seen_ap"]


def test_a_checkpoint_given_twice_is_reported_before_the_work(checkpoints, tmp_path):
    one = checkpoints[0]
    run = scripts.run(
        "analyze.py", f"ckpt=[{one},{one}]", f"hydra.run.dir={tmp_path / 'both'}", check=False
    )
    assert run.returncode == 1
    assert "the same checkpoint twice" in run.stderr
    assert not (tmp_path / "both" / "passes").exists()


@pytest.mark.slow
def test_tables_of_another_protocol_come_from_cached_passes(trained, checkpoints, tmp_path):
    folder, _, _ = trained
    images, passes = tmp_path / "images", tmp_path / "passes"
    shutil.copytree(folder / "images", images)
    common = ("analysis=[detection,sensitivity,ablation,median_test]", *FAST[1:],
              f"passes={passes}")  # fmt: skip
    scripts.run(
        "analyze.py", f"ckpt={checkpoints[0]}", "data=folder", f"data.root={images}",
        "data@discovery=folder", f"discovery.root={images}", "images=4", *common,
        f"hydra.run.dir={tmp_path / 'first'}",
    )  # fmt: skip
    shutil.rmtree(images)
    checkpoints[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in passes.rglob("*")}
    scripts.run("analyze.py", *common, f"hydra.run.dir={tmp_path / 'same'}")
    scripts.run(
        "analyze.py", "report/protocol=tff2022", *common, f"hydra.run.dir={tmp_path / 'other'}"
    )
    assert {path: path.stat().st_mtime_ns for path in passes.rglob("*")} == before
    for name in ("detection", "sensitivity", "ablation", "median_test", "conditional_share"):
        first, same, other = (
            pd.read_csv(tmp_path / run / "report" / "tables" / f"{name}.csv")
            for run in ("first", "same", "other")
        )
        pd.testing.assert_frame_equal(first, same, check_exact=True)
        assert set(first["protocol"]) == {"tff"}
        assert set(other["protocol"]) == {"tff2022"}
        if name == "ablation":
            assert set(first["threshold_rule"] + first["scores"]) == {"halflogits"}
            assert set(other["threshold_rule"] + other["scores"]) == {"oracleprobabilities"}
            assert (first["threshold"] != other["threshold"]).all()
        if name == "median_test":
            pd.testing.assert_series_equal(first["p_value"], other["p_value"])
    run = scripts.run(
        "analyze.py", "analysis=examples", f"passes={passes}",
        f"hydra.run.dir={tmp_path / 'none'}", check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "Traceback" not in run.stderr, run.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train.py", ["detector=resnet51"], "resnet50"),
        ("train.py", ["data.batchsize=3"], "batchsize"),
        pytest.param(
            "train.py",
            ["data=folder", "data.root=/no/such", "detector.pretrained=false"],
            "/no/such",
            marks=pytest.mark.slow,
        ),
        ("train.py", ["detector.pretrained=/no/such.pth"], "no such file"),
        pytest.param("analyze.py", [], "ckpt", marks=pytest.mark.slow),
        ("analyze.py", ["ckpt=/no/such=file.ckpt"], "/no/such=file.ckpt: no such file"),
    ],
)
def test_mistakes_are_reported(name, arguments, message, tmp_path):
    run = scripts.run(name, *arguments, f"hydra.run.dir={tmp_path}", check=False)
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", ["train.py", "analyze.py"])
def test_help_names_the_choices(name):
    text = scripts.run(name, "--help").stdout
    assert "resnet50" in text
    assert f"python {name}" in text


def test_interrupt_ends_training_with_a_checkpoint_that_loads(trained, tmp_path):
    folder, _, _ = trained
    log = tmp_path / "log.txt"
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(scripts.ROOT / "train.py"), "detector=timm",
         "detector.name=test_resnet", "detector.pretrained=false", "aug=none", "data=folder",
         f"data.root={folder / 'images'}", "data.size=32", "data.batch_size=8", "data.workers=0",
         "trainer.max_epochs=10000",
         "trainer.accelerator=cpu", "callbacks.schedule=null", "callbacks.analyze=null",
         f"hydra.run.dir={tmp_path}"],
        cwd=scripts.ROOT, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        # A shell starts background jobs with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        last = tmp_path / "checkpoints" / "last.ckpt"
        for _ in range(600):
            if last.is_file():
                break
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            break
        assert last.is_file(), log.read_text()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # tells where all threads stand
            process.wait(10)
            pytest.fail(f"goes on in spite of the interrupt:\n{log.read_text()[-5000:]}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    from tff.detectors.checkpoint import load

    load(last)
