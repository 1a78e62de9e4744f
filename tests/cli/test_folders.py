"""Which folder a run takes, and what it leaves there."""

import json
import os
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from tff.cli.run_folder import (
    RUNS,
    SWEEPS,
    clear_outcome,
    folder_name,
    job_folder,
    lock_folder,
    name_jobs,
    read_result,
    resume_folder,
    write_failure,
    write_result,
)

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("", "defaults"),
        ("seed=1", "seed-1"),
        ("detector=resnet18,seed=1", "detector-resnet18+seed-1"),
        ("module.optimizer.lr=1e-3", "module.optimizer.lr-1e-3"),
        ("data.match_format=True", "data.match_format-True"),
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


NO_PART = (
    "resume=true", "tags=[a,b]", "logger=wandb", "logger.csv.version=other", "analyze=false",
    "+logger.wandb.notes=n", 'analyze_options=["images=4"]', "callbacks.analyze=null",
    "callbacks.analyze.images=4", "analysis@callbacks.analyze.analyses=[ranking]",
)  # fmt: skip


def test_what_is_no_part_of_a_job_is_not_in_its_name():
    own = ["seed=1", "data.root=/a,b", "+trainer.limit_val_batches=1"]
    name = job_folder(own)
    assert name == folder_name(",".join(sorted(own)))
    assert job_folder([*NO_PART, *reversed(own)]) == name
    assert job_folder(["logger_of_mine=1"]) != job_folder([])


@pytest.mark.parametrize(
    ("one", "other"), [("x=A", "x=a"), ("x.T_max=1", "x.t_max=1"), ("x=[A]", "x=[a]")]
)
def test_names_differ_where_the_file_system_ignores_the_case(one, other):
    assert folder_name(one).lower() != folder_name(other).lower()


@pytest.mark.parametrize("option", ["tags=[a],[b]", "logger=csv,none", "analyze=true,false",
                                    "callbacks.analyze.images=choice(4,8)", "resume=auto,true",
                                    "analysis@callbacks.analyze.analyses=[ranking],[ablation]",
                                    "+logger.wandb.notes=a,b"])  # fmt: skip
def test_jobs_have_folders_of_their_own_whatever_is_swept(option):
    arguments = name_jobs(["-m", option, "seed=1,2"])
    (parsed,) = OverridesParser.create().parse_overrides([option])
    names = set()
    for value in (values := list(parsed.sweep_string_iterator())):
        job = [f"{parsed.get_key_element()}={value}", "seed=1", arguments[-1], "hydra.sweep.dir=x"]
        job += ["logger=wandb"] if "wandb" in option else []
        with initialize_config_dir(str(CONF), version_base="1.3"):
            names.add(compose("train", job, return_hydra_config=True).hydra.sweep.subdir)
    assert len(names) == len(values) > 1
    assert all("seed-1" in name for name in names)


def test_nothing_else_is_in_the_name_of_a_job():
    for arguments in (
        ["-m", "seed=1,2", "tags=[a,b]"], ["tags=[a],[b]"], ["-m", "detector=glob(*)"],
        ["-m", "tags=[a],[b]", "hydra.sweep.subdir=mine"], ["-m", "wrong==="],
    ):  # fmt: skip
        assert name_jobs(arguments) == arguments


def test_a_sweep_with_the_same_job_twice_is_refused():
    with pytest.raises(SystemExit, match=r"seed=1,2,1: 1 occurs twice"):
        name_jobs(["-m", "seed=1,2,1"])


def test_the_settings_name_jobs_so():
    job = ["detector=resnet18", "seed=1", "logger=csv", "tags=[x]", "callbacks.analyze.images=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*job, "hydra.sweep.dir=x"], return_hydra_config=True)
    assert cfg.hydra.sweep.subdir == "detector-resnet18+seed-1"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, *overrides, done=False):
        folder = tmp_path / "outputs" / "train" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
        if done:
            write_result(folder, 0.5, {"val/ap": 0.5}, 3, list(overrides))

    return make


def test_the_newest_unfinished_run_with_the_same_options(runs):
    runs("2026-01", "seed=1")
    runs("2026-02", "seed=1", "resume=auto")
    runs("2026-03", "seed=2")
    runs("2026-04", "seed=1", done=True)
    runs("2026-05", "seed=1", "trainer.max_epochs=3")
    given = ["seed=1", "resume=auto"]
    assert resume_folder(given, "train", {}) == [*given, 'hydra.run.dir="outputs/train/2026-02"']
    assert resume_folder(["seed=1"], "train", {}) == ["seed=1"]
    assert resume_folder(["seed=3", "resume=auto"], "train", {}) == ["seed=3", "resume=auto"]
    given = ["resume=auto", "hydra.run.dir=x", "seed=1"]
    assert resume_folder(given, "train", {}) == given


def test_the_newest_is_the_one_that_was_started_last_whatever_its_name(runs, tmp_path):
    for age, name in enumerate(["2026-02", "2026-01", "torchrun-7", "srun-31"]):
        runs(name, "seed=1")
        path = tmp_path / "outputs" / "train" / name / ".hydra" / "overrides.yaml"
        os.utime(path, (1e9 - age, 1e9 - age))
    assert resume_folder(["seed=1", "resume=auto"], "train", {})[-1].endswith('2026-02"')


def test_a_run_that_is_still_running_is_skipped(runs, tmp_path, capsys):
    runs("2026-01", "seed=1")
    runs("2026-02", "seed=1")
    given = ["seed=1", "resume=auto"]
    with lock_folder(tmp_path / "outputs/train/2026-02"):
        assert resume_folder(given, "train", {})[-1].endswith('2026-01"')
        assert "still running: outputs/train/2026-02" in capsys.readouterr().err
        with lock_folder(tmp_path / "outputs/train/2026-01"):
            assert resume_folder(given, "train", {}) == given
    assert resume_folder(given, "train", {})[-1].endswith('2026-02"')


@pytest.mark.parametrize("option", NO_PART)
def test_what_is_no_part_of_a_run_may_differ(runs, option):
    runs("2026-01", "seed=1", "analyze=true")
    runs("2026-02", "seed=1", "callbacks.last=null")
    found = resume_folder(["seed=1", "resume=auto", option], "train", {})
    assert found[-1].endswith('2026-01"')


def test_a_job_that_slurm_starts_again_goes_on(runs):
    runs("2026-01", "seed=1")
    found = resume_folder(["seed=1"], "train", {"SLURM_RESTART_COUNT": "1"})
    assert found == ["seed=1", "resume=auto", 'hydra.run.dir="outputs/train/2026-01"']
    assert resume_folder(["seed=1"], "train", {"SLURM_RESTART_COUNT": "0"}) == ["seed=1"]


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
    assert resume_folder(given, "train", {})[-1] == 'hydra.sweep.dir="outputs/multirun/2"'
    assert resume_folder(given, "analyze", {})[-1] == 'hydra.sweep.dir="outputs/multirun/4"'
    for option in NO_PART:
        assert (
            resume_folder([*given, option], "train", {})[-1]
            == 'hydra.sweep.dir="outputs/multirun/2"'
        )
    os.utime("outputs/multirun/1/multirun.yaml")
    assert resume_folder(given, "train", {})[-1] == 'hydra.sweep.dir="outputs/multirun/1"'


def test_damaged_files_of_former_runs_do_no_harm(runs, tmp_path):
    runs("2026-01", "seed=1")
    runs("2026-02", "seed=1")
    (tmp_path / "outputs/train/2026-02/.hydra/overrides.yaml").write_bytes(b"\xff: [")
    assert resume_folder(["seed=1", "resume=auto"], "train", {})[-1].endswith('2026-01"')


def test_an_outcome_is_whole_or_none(tmp_path):
    assert read_result(tmp_path) is None
    write_result(tmp_path, 0.75, {"val/ap": 0.75}, 12.34, ["seed=1"])
    path = tmp_path / "finished.json"
    assert read_result(tmp_path) == {
        "objective": 0.75, "metrics": {"val/ap": 0.75}, "seconds": 12.3, "overrides": ["seed=1"],
    }  # fmt: skip
    whole = path.read_bytes()
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert read_result(tmp_path) is None
    write_failure(tmp_path, ValueError("k=0"))
    told = json.loads((tmp_path / "failed.json").read_text())
    assert told == {"type": "ValueError", "error": "k=0"}
    clear_outcome(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folders_are_those_of_the_settings():
    conf = yaml.safe_load((CONF / "train.yaml").read_text())["hydra"]
    for folder, setting in ((RUNS, conf["run"]["dir"]), (SWEEPS, conf["sweep"]["dir"])):
        assert setting.startswith(f"{folder}/${{now:%Y-%m-%d")
