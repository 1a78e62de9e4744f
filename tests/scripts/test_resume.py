"""train.py stopped by signals and started again, for real, on tiny data."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tests.helpers import tiny
from tests.helpers.machine_faults import ended, until

from tff.detectors.safe_load import read

#: Whole scripts, some of them several times.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK = (
    "detector=resnet18", "detector.pretrained=false", "aug=none", "data=folder", "data.size=32",
    "data.batch_size=4", "data.workers=0", "trainer.accelerator=cpu", "callbacks.analyze=null",
    "callbacks.schedule=null", "logger=none",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), ("seen",), images=20, size=32)


def start(images, *options, cwd=ROOT, log=subprocess.PIPE, **environ):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *QUICK, f"data.root={images}", *options],
        cwd=cwd, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**env, **environ},
        # A shell starts background jobs with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


SPAWN, DDP = "trainer=ddp_sim", "trainer.strategy=ddp"
#: Trainings that are stopped again and again: signal, to all processes or one, further options.
STOPS = {
    "one process": (
        (signal.SIGINT, False, ()),
        (signal.SIGUSR1, True, ("data.workers=2",)),
        (signal.SIGTERM, False, ()),
    ),
    "two spawned": (
        (signal.SIGTERM, False, (SPAWN,)),
        (signal.SIGINT, True, (SPAWN, "data.workers=1")),
    ),
    "two started by Lightning": (
        (signal.SIGTERM, False, (SPAWN, DDP)),
        (signal.SIGUSR2, True, (SPAWN, DDP, "data.workers=1")),
    ),
}


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job whose requests are noted in `asked`."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    return {"SLURM_JOB_ID": "123", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "tff",
            "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
            "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}  # fmt: skip


@pytest.mark.parametrize("stops", STOPS.values(), ids=STOPS)
def test_a_signal_saves_and_ends(images, tmp_path, slurm, stops):
    out, asked = tmp_path / "run", tmp_path / "asked"
    last = out / "checkpoints" / "last.ckpt"
    run = partial(start, images, f"hydra.run.dir={out}", "resume=auto")
    for number, group, options in stops:
        job = slurm if number == signal.SIGUSR1 else {}
        step = read(last)["global_step"] if last.is_file() else 0
        process = run(*options, "trainer.max_epochs=10000", **job)
        until(lambda step=step: last.is_file() and read(last)["global_step"] > step, process)
        (os.killpg if group else os.kill)(process.pid, number)
        code, text = ended(process)
        assert code == 128 + number, text[-4000:]
        assert str(last) in text and "resume=auto" in text, text[-4000:]
        assert not (out / "failed.json").exists()
        assert not (out / "finished.json").exists()
        assert asked.is_file() == bool(job)
        if job:
            assert asked.read_text() == "requeue 123\n"
            asked.unlink()
    content = read(last)
    code, text = ended(run(*options, f"trainer.max_epochs={content['epoch'] + 2}"))
    assert code == 0, text[-4000:]
    assert read(last)["global_step"] > content["global_step"]
    assert json.loads((out / "finished.json").read_text())["objective"] > 0


def test_a_job_that_slurm_starts_again_goes_on_by_itself(images, tmp_path, slurm):
    out = tmp_path / "run"
    process = start(images, f"hydra.run.dir={out}", "trainer.max_epochs=10000", **slurm)
    last = out / "checkpoints" / "last.ckpt"
    until(last.is_file, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    content = read(last)
    epochs = f"trainer.max_epochs={content['epoch'] + 2}"
    again = start(images, f"hydra.run.dir={out}", epochs, **slurm, SLURM_RESTART_COUNT="1")
    code, text = ended(again)
    assert code == 0, text[-4000:]
    assert "resuming from" in text, text[-4000:]


def children(pid):
    """Processes that a process has started for the training."""
    found = []
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_text()
            found += [int(child)] if "spawn_main" in command or "train.py" in command else []
    except OSError:  # it has just ended
        pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize("options", [(SPAWN,), (SPAWN, DDP)], ids=["spawn", "ddp"])
@pytest.mark.parametrize("wait", [2, 8])
@pytest.mark.parametrize(
    ("number", "to"),
    [(signal.SIGINT, "all"), (signal.SIGTERM, "first"), (signal.SIGTERM, "child")],
)
def test_a_signal_while_processes_start_ends_them_all(
    images, tmp_path, options, number, wait, to
):  # fmt: skip
    process = start(images, f"hydra.run.dir={tmp_path}", *options, "trainer.max_epochs=10000")
    until(lambda: children(process.pid), process)
    time.sleep(wait)
    if to == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if to == "first" else children(process.pid)[-1], number)
    code, text = ended(process)
    assert code != 0, text[-4000:]
    end = time.monotonic() + 60
    while time.monotonic() < end and members(process.pid):
        time.sleep(0.2)
    assert not members(process.pid), "left behind"


def members(group):
    """Living processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


def test_what_is_finished_is_not_run_again_and_a_sweep_grows(images, tmp_path):
    sweep = (f"hydra.sweep.dir={tmp_path}", "trainer.max_epochs=1", "resume=true", "-m")
    code, text = ended(start(images, "seed=1,2", *sweep))
    assert code == 0, text[-4000:]
    folders = sorted(p.name for p in tmp_path.iterdir() if p.is_dir())
    assert len(folders) == 2
    assert all(set(name) <= set(NAMED) and len(name) <= 120 for name in folders)
    shutil.rmtree(tmp_path / folders[1])
    times = (tmp_path / folders[0] / "finished.json").stat().st_mtime_ns
    code, text = ended(start(images, "seed=1,2,3", *sweep))
    assert code == 0, text[-4000:]
    assert text.count("Already finished") == 1
    assert (tmp_path / folders[0] / "finished.json").stat().st_mtime_ns == times
    found = {json.loads(p.read_text())["overrides"][-2] for p in tmp_path.glob("*/finished.json")}
    assert len(list(tmp_path.glob("*/finished.json"))) == 3, found


NAMED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-"


def test_the_folder_of_the_same_options_is_found(images, tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    process = start(images, "trainer.max_epochs=10000", cwd=tmp_path)
    end = time.monotonic() + 120
    while not (found := list(tmp_path.glob("outputs/train/*/checkpoints/last.ckpt"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = start(images, "resume=auto", "trainer.max_epochs=10000", cwd=tmp_path)
    step, (last,) = read(found[0])["global_step"], found
    while read(last)["global_step"] == step and time.monotonic() < end + 60:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    code, text = ended(process)
    assert code == 143, text[-4000:]
    assert read(last)["global_step"] > step
    assert len(list(tmp_path.glob("outputs/train/*"))) == 1


def test_an_error_is_left_in_the_folder(images, tmp_path):
    code, text = ended(start(images / "nowhere", f"hydra.run.dir={tmp_path}"))
    assert code == 1, text
    assert "nowhere" in json.loads((tmp_path / "failed.json").read_text())["error"]


def test_a_training_that_is_going_on_is_left_alone(images, tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    given = ("trainer.max_epochs=10000", "data.workers=1")
    one = start(images, *given, cwd=tmp_path)
    (last,) = until(lambda: list(tmp_path.glob("outputs/train/*/checkpoints/last.ckpt")), one)
    out = last.parents[1]
    typed = out / ".hydra" / "overrides.yaml"
    before = typed.read_bytes()

    code, text = ended(start(images, *given, "seed=7", f"hydra.run.dir={out}", cwd=tmp_path))
    assert code == 1, text[-4000:]
    assert text.count("Error: ") == 1
    assert f"{out}: another training is running in this folder" in text
    assert "Traceback" not in text
    assert typed.read_bytes() == before
    assert not (out / "failed.json").exists()

    two = start(images, *given, "resume=auto", cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("outputs/train/*/checkpoints/last.ckpt"))) == 2, two)
    two.send_signal(signal.SIGTERM)
    code, text = ended(two)
    assert code == 143, text[-4000:]
    assert f"since it is still running: {out.relative_to(tmp_path)}" in text

    step = read(last)["global_step"]
    until(lambda: read(last)["global_step"] > step, one)  # nothing has happened to it
    one.send_signal(signal.SIGKILL)
    one.wait()
    # At once: the process that loads its images may still be there.
    three = start(images, *given, f"hydra.run.dir={out}", "resume=auto", cwd=tmp_path)
    step = read(last)["global_step"]
    until(lambda: read(last)["global_step"] > step, three)
    three.send_signal(signal.SIGTERM)
    code, text = ended(three)
    assert code == 143, text[-4000:]
    assert "resuming from" in text
    one.communicate()


@pytest.mark.parametrize("options", [(), (SPAWN, DDP)], ids=["one", "two"])
def test_a_finished_run_answers_for_its_own_options_only(images, tmp_path, options):
    given = (f"hydra.run.dir={tmp_path}", "trainer.max_epochs=1", *options)
    code, text = ended(start(images, *given))
    assert code == 0, text[-4000:]
    done = (tmp_path / "finished.json").read_bytes()
    typed = (tmp_path / ".hydra" / "overrides.yaml").read_bytes()
    weights = (tmp_path / "checkpoints" / "best.ckpt").read_bytes()

    # An option that is given twice counts as it was given last.
    other = (*given, "trainer.max_epochs=2", "seed=7", "resume=auto")
    code, text = ended(start(images / "nowhere", *other))
    assert code == 1, text[-4000:]
    assert text.count("Error: ") == 1
    for told in ("trainer.max_epochs: 1 then, 2 now", "seed: not given then, 7", "data.root: "):
        assert told in text
    assert (tmp_path / "finished.json").read_bytes() == done
    assert (tmp_path / ".hydra" / "overrides.yaml").read_bytes() == typed

    analysed = 'analyze_options=["subject.draws=20","subject.confidence=0","images=6"]'
    again = (*given, "resume=auto", "analyze=true", analysed)
    code, text = ended(start(images, *again))
    assert code == 0, text[-4000:]
    assert (tmp_path / "report" / "summary.json").is_file()
    assert (tmp_path / "checkpoints" / "best.ckpt").read_bytes() == weights
    now = json.loads((tmp_path / "finished.json").read_text())
    assert {k: now[k] for k in ("objective", "metrics")} == {
        k: json.loads(done)[k] for k in ("objective", "metrics")
    }
    code, text = ended(start(images, *again, "logger=csv"))
    assert code == 0 and "Already finished" in text, text[-4000:]
