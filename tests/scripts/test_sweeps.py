"""Sweeps, run for real: launchers, failed jobs, several processes within a job, Optuna."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from tests.helpers import scripts, tiny

ROOT = Path(__file__).parents[2]
LAUNCHERS = sorted(path.stem for path in (ROOT / "conf/hydra/launcher").glob("*.yaml"))


def options(folder):
    return [
        "-m", "detector=timm", "detector.name=test_resnet", "detector.pretrained=false",
        "aug=none", "data=folder", f"data.cache={folder / 'cache'}", "data.size=32",
        "data.batch_size=4", "data.workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu",
        "callbacks.progress=null", "callbacks.analyze=null", "logger=none",
        f"hydra.sweep.dir={folder / 'sweep'}",
    ]  # fmt: skip


def sweep(folder, *arguments, path=None):
    """Run `train.py -m` in its own session; processes that it leaves running are an error."""
    command = [sys.executable, "train.py", *options(folder), *arguments]
    environ = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    if path:
        environ["PATH"] = f"{path}:{environ['PATH']}"
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=400)
        until = time.monotonic() + 15  # what has told its result may still be ending
        while (left := of_session(process.pid)) and time.monotonic() < until:
            time.sleep(0.5)
    finally:
        for pid in of_session(process.pid):
            os.kill(pid, 9)
    assert not left, said
    return process.returncode, said


def of_session(session):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def jobs(folder):
    """Jobs of the sweep by what became of them."""
    found = {"finished": [], "failed": []}
    for job in sorted((folder / "sweep").iterdir()):
        for name, those in found.items():
            if (job / f"{name}.json").is_file():
                those.append(job)
    return found


def logs(folder):
    """What jobs that submitit started have printed."""
    return "".join(p.read_text() for p in (folder / "sweep/.submitit").rglob("*_log.*"))


@pytest.fixture
def images(tmp_path):
    return tiny.tree(tmp_path / "images", images=24, size=40)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_of_ours_has_the_options_of_the_plugin_of_that_name(name):
    Plugins.instance()  # registers them
    plugin = ConfigStore.instance().load(f"hydra/launcher/{name}.yaml").node
    ours = yaml.safe_load((ROOT / "conf/hydra/launcher" / f"{name}.yaml").read_text())
    assert set(ours) == set(plugin)
    assert ours["_target_"] == plugin["_target_"]


def slurm(*overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        launcher = ["hydra/launcher=submitit_slurm", *overrides]
        return compose("train", launcher, return_hydra_config=True).hydra.launcher


def test_tasks_follow_gpus_and_nodes_follow_the_trainer():
    assert (slurm().tasks_per_node, slurm().nodes) == (1, 1)
    asked = slurm("hydra.launcher.gpus_per_node=8", "trainer=ddp", "trainer.num_nodes=2")
    assert (asked.tasks_per_node, asked.nodes) == (8, 2)


def test_a_failed_job_is_reported_and_does_not_stop_the_others(tmp_path, images):
    (tmp_path / "more").symlink_to(images)
    roots = [images, tmp_path / "missing", tmp_path / "more"]
    data = f"data.root={','.join(map(str, roots))}"
    run = scripts.run("train.py", *options(tmp_path), data, check=False)
    assert run.returncode == 1
    assert f"{tmp_path / 'missing'}: no such folder" in run.stderr
    found = jobs(tmp_path)
    assert (len(found["finished"]), len(found["failed"])) == (2, 1), run.stdout + run.stderr
    assert all((job / "checkpoints" / "best.ckpt").is_file() for job in found["finished"])
    (failed,) = found["failed"]
    assert "no such folder" in json.loads((failed / "failed.json").read_text())["error"]


@pytest.mark.slow
def test_jobs_in_processes_of_their_own(tmp_path, images):
    code, said = sweep(
        tmp_path, "hydra/launcher=submitit_local", f"data.root={tmp_path / 'missing'},{images}"
    )
    assert code == 1
    assert "missing: no such folder" in said.rpartition("Error: ")[2]
    assert "validated against" not in said  # our launcher, and Hydra takes no offence at its name
    found = jobs(tmp_path)
    assert (len(found["finished"]), len(found["failed"])) == (1, 1), said
    assert len(list((tmp_path / "sweep/.submitit").glob("[0-9]*/*_0_log.out"))) == 2


@pytest.mark.slow
def test_optuna_seeks_and_a_failed_trial_does_not_stop_it(tmp_path, images):
    code, said = sweep(
        tmp_path, "hparams_search=optuna", "hydra.sweeper.n_trials=4",
        f"data.root=choice({images},{tmp_path / 'missing'})", "data.batch_size=4",
    )  # fmt: skip
    assert code == 0, said
    best = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert 0 <= best["best_value"] <= 1
    assert 1e-5 <= best["best_params"]["module.optimizer.lr"] <= 1e-3
    found = jobs(tmp_path)
    assert len(found["finished"] + found["failed"]) == 4
    assert found["failed"]  # with the seed of the sampler, one of the four at least
    assert best["best_params"]["data.root"] == str(images)
    objectives = [
        json.loads((j / "finished.json").read_text())["objective"] for j in found["finished"]
    ]
    assert best["best_value"] == max(objectives)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_processes_in_each_job(tmp_path, images, launcher, strategy):
    code, said = sweep(
        tmp_path, f"hydra/launcher={launcher}", "trainer=ddp_sim", f"trainer.strategy={strategy}",
        *(["hydra.launcher.n_jobs=1"] if launcher == "joblib" else []),
        f"data.root={images}", "seed=1,2",
    )  # fmt: skip
    assert code == 0, said
    found = jobs(tmp_path)
    assert (len(found["finished"]), len(found["failed"])) == (2, 0), said
    folders = [p for p in (tmp_path / "sweep").iterdir() if p.is_dir() and p.name != ".submitit"]
    assert len(folders) == 2
    # Spawned processes end with the training, so the analysis that follows starts others.
    groups = 4 if strategy == "ddp_spawn" else 2
    assert (said + logs(tmp_path)).count("MEMBER: 1/2") == groups


@pytest.mark.slow
def test_slurm_gets_the_resources_of_a_job_and_its_tasks_form_one_job(tmp_path, images):
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("sbatch", "srun", "sacct"):
        stub = (
            f'exec "{sys.executable}" "{ROOT / "tests" / "helpers" / "slurm_stub.py"}" {name} "$@"'
        )
        (path / name).write_text(f"#!/bin/sh\n{stub}\n")
        (path / name).chmod(0o755)
    code, said = sweep(
        tmp_path, "hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=2",
        "hydra.launcher.timeout_min=90", "hydra.launcher.array_parallelism=1",
        "hydra.launcher.partition=long", "trainer=ddp_sim", "trainer.strategy=ddp",
        f"data.root={images}", "seed=1,2", path=path,
    )  # fmt: skip
    assert code == 0, said
    (script,) = (tmp_path / "sweep/.submitit").rglob("*_submission.sh")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script.read_text(), re.MULTILINE))
    for option, value in {
        "nodes": "1", "ntasks-per-node": "2", "gpus-per-node": "2", "cpus-per-task": "8",
        "time": "90", "array": "0-1%1", "signal": "USR2@120", "partition": "long",
        "requeue": "", "job-name": "train",
    }.items():  # fmt: skip
        assert asked[option] == value, option
    found = jobs(tmp_path)
    assert (len(found["finished"]), len(found["failed"])) == (2, 0), said
    folders = [p for p in (tmp_path / "sweep").iterdir() if p.is_dir() and p.name != ".submitit"]
    assert len(folders) == 2
    assert logs(tmp_path).count("MEMBER: 1/2") == 2
