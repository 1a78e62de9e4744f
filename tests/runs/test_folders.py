"""Which folder a run takes, and what it leaves there."""

import json

import pytest
import yaml

from tff.runs.names import folder_name
from tff.runs.outcome import fail, finish, finished, forget
from tff.runs.resume import continued


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "defaults"),
        ("seed=1", "seed-1"),
        ("detector=resnet18,seed=1", "detector-resnet18+seed-1"),
        ("module.optimizer.lr=1e-3", "module.optimizer.lr-1e-3"),
    ],
)
def test_plain_names(overrides, name):
    assert folder_name(overrides) == name


def test_different_options_have_different_names():
    options = [
        "data.root=/a/b", "data.root=/a b", "data.root='/a/b'", "data.root=/a-b", "x=[1,2]",
        "x=1,y=2", "x=1+y-2", "x=" + "a" * 200, "x=" + "a" * 201, "x=ü", "x=ö", "x=", "a@b=c",
        "a/b=c", "x=-1", "x=..", "...",
    ]  # fmt: skip
    names = [folder_name(option) for option in options]
    assert len(set(names)) == len(options)
    for name in names:
        assert 0 < len(name) <= 120
        assert name.isascii()
        assert all(letter.isalnum() or letter in "._+-" for letter in name)


def test_of_many_options_what_differs_is_seen():
    many = "callbacks.analyze.subject.confidence=0.5,data.root=/a/long/path/to/some/images,"
    many += "detector.pretrained=/another/path/weights.pth,module.optimizer.weight_decay=0.0001"
    for seed in (1, 2):
        name = folder_name(f"{many},seed={seed}")
        assert "confidence-0.5+root-h-to-some-images+pretrained-" in name
        assert f"+seed-{seed}-" in name
        assert len(name) <= 120


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, *overrides, done=False):
        folder = tmp_path / "outputs" / "train" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
        if done:
            finish(folder, 0.5, {"val/ap": 0.5}, 3, list(overrides))

    return make


def test_the_newest_unfinished_run_with_the_same_options(runs):
    runs("2026-01", "seed=1")
    runs("2026-02", "seed=1", "resume=auto")
    runs("2026-03", "seed=2")
    runs("2026-04", "seed=1", done=True)
    runs("2026-05", "seed=1", "trainer.max_epochs=3")
    given = ["seed=1", "resume=auto"]
    assert continued(given, {}) == [*given, 'hydra.run.dir="outputs/train/2026-02"']
    assert continued(["seed=1"], {}) == ["seed=1"]
    assert continued(["seed=3", "resume=auto"], {}) == ["seed=3", "resume=auto"]
    given = ["resume=auto", "hydra.run.dir=x", "seed=1"]
    assert continued(given, {}) == given


def test_a_job_that_slurm_starts_again_goes_on(runs):
    runs("2026-01", "seed=1")
    found = continued(["seed=1"], {"SLURM_RESTART_COUNT": "1"})
    assert found == ["seed=1", "resume=auto", 'hydra.run.dir="outputs/train/2026-01"']
    assert continued(["seed=1"], {"SLURM_RESTART_COUNT": "0"}) == ["seed=1"]


def test_a_sweep_is_found_by_its_script_and_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds = ["seed=1,2"]
    for name, script, task in (
        ("1", "train", seeds),
        ("2", "train", [*seeds, "resume=true"]),
        ("3", "train", ["seed=1"]),
        ("4", "analyze", seeds),
    ):
        folder = tmp_path / "outputs" / "multirun" / name
        folder.mkdir(parents=True)
        (folder / "multirun.yaml").write_text(
            yaml.safe_dump({"hydra": {"overrides": {"task": task}, "job": {"name": script}}})
        )
    given = ["-m", *seeds, "resume=true"]
    assert continued(given, {})[-1] == 'hydra.sweep.dir="outputs/multirun/2"'
    assert continued(given, {}, "analyze")[-1] == 'hydra.sweep.dir="outputs/multirun/4"'


def test_damaged_files_of_former_runs_do_no_harm(runs, tmp_path):
    runs("2026-01", "seed=1")
    runs("2026-02", "seed=1")
    (tmp_path / "outputs/train/2026-02/.hydra/overrides.yaml").write_bytes(b"\xff: [")
    assert continued(["seed=1", "resume=auto"], {})[-1].endswith('2026-01"')


def test_an_outcome_is_whole_or_none(tmp_path):
    assert finished(tmp_path) is None
    finish(tmp_path, 0.75, {"val/ap": 0.75}, 12.34, ["seed=1"])
    path = tmp_path / "finished.json"
    assert finished(tmp_path) == {
        "objective": 0.75, "metrics": {"val/ap": 0.75}, "seconds": 12.3, "overrides": ["seed=1"],
    }  # fmt: skip
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert finished(tmp_path) is None
    fail(tmp_path, ValueError("k=0"))
    told = json.loads((tmp_path / "failed.json").read_text())
    assert told == {"type": "ValueError", "error": "k=0"}
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folders_are_those_of_the_settings():
    from pathlib import Path

    from tff.runs.resume import RUNS, SWEEPS

    conf = yaml.safe_load((Path(__file__).parents[2] / "conf" / "train.yaml").read_text())["hydra"]
    for folder, setting in ((RUNS, conf["run"]["dir"]), (SWEEPS, conf["sweep"]["dir"])):
        assert setting.startswith(f"{folder}/${{now:%Y-%m-%d")
