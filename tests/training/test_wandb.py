"""One run for a training and what follows it, read back from its offline files."""

import json
import logging
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers import CSVLogger
from tests.helpers.wandb_file import kept_in

from tff.report.loggers import log_results
from tff.report.wandb import is_reachable
from tff.training import wandb_logger
from tff.training.from_checkpoint import fingerprint
from tff.training.wandb_logger import WeightsAndBiases, finish_loggers, get_sweep_name
from tff.types import Result

wandb = pytest.importorskip("wandb")
CONFIG = {"seed": 7, "data": {"size": 32}}


SERVICE = "WANDB_SERVICE"  # where wandb keeps the address of its service, for children


@pytest.fixture(scope="module", autouse=True)
def service():
    """One for all tests here, and none that later tests could inherit."""
    os.environ.pop(SERVICE, None)
    yield
    wandb.teardown()
    os.environ.pop(SERVICE, None)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != SERVICE]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")


def logger(out, job="train", **options):
    return WeightsAndBiases(
        "tff", str(out), ["dev"], options.pop("group", None), job=job, config=CONFIG, **options
    )


def train(out, step=30, **options):
    """What a training does to its logger; the path of its best checkpoint."""
    mine = logger(out, **options)
    mine.log_metrics({"val/ap": 0.75}, step)
    best = out / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"global_step": step, "weight": torch.arange(3.0)}, best)
    saved = {"monitor": "val/ap", "best_model_score": torch.tensor(0.75)}
    mine.after_save_checkpoint(SimpleNamespace(best_model_path=str(best), **saved))
    mine.finalize("success")
    finish_loggers([mine])
    return best


def analyse(out, results, **options):
    mine = logger(out, "analyze", **options)
    log_results(results, mine, checkpoint="best.ckpt sha256:0123456789ab")
    finish_loggers([mine])


@pytest.fixture
def results():
    table = pd.DataFrame({"layer": ["conv1"], "channel": [3], "omega": [0.5]})
    return {"ranking": Result("Ranking", tables={"ranking": table}, scalars={"k": 21.0})}


def test_training_and_its_analysis_are_one_run(tmp_path, results):
    best = train(tmp_path / "run", group="first")
    analyse(tmp_path / "later", results, ckpt=str(best))
    (first,), (second,) = kept_in(tmp_path / "run"), kept_in(tmp_path / "later")
    assert first.run.run_id == second.run.run_id
    assert first.run.resume  # what tells `wandb sync` to append instead of to replace
    assert second.run.resume
    assert (first.run.project, first.run.run_group) == ("tff", "first")
    assert second.run.run_group == "first"
    assert list(first.run.tags) == ["dev"]
    assert not second.run.tags  # would replace those of the training
    assert (first.run.job_type, second.run.job_type) == ("train", "")
    assert first.config["train"] == CONFIG
    assert second.config["analyze"] == CONFIG
    assert "train" not in second.config
    assert [(row["val/ap"], row["trainer/global_step"]) for row in first.history] == [(0.75, 30)]
    # At the step of the checkpoint that was analysed, so that it appears where it belongs.
    assert [row["ranking/k"] for row in second.history if "ranking/k" in row] == [21.0]
    assert {row["trainer/global_step"] for row in second.history} == {30}
    assert second.summary["ranking/k"] == 21.0
    assert (first.exit_code, second.exit_code) == (0, 0)


def test_the_best_checkpoint_and_the_ranking_are_artifacts_that_name_it(tmp_path, results):
    best = train(tmp_path)
    analyse(tmp_path / "later", results, ckpt=str(best))
    (first,), (second,) = kept_in(tmp_path), kept_in(tmp_path / "later")
    (checkpoint,) = first.artifacts
    (ranking,) = (artifact for artifact in second.artifacts if artifact.type == "ranking")
    assert (checkpoint.type, checkpoint.name) == ("checkpoint", f"checkpoint-{first.run.run_id}")
    name = fingerprint(str(best))
    assert json.loads(checkpoint.metadata) == {"checkpoint": name, "val/ap": 0.75}
    assert set(checkpoint.aliases) == {"latest", "best", name.split(":")[1]}
    (entry,) = checkpoint.manifest.contents
    assert Path(entry.local_path).read_bytes() == best.read_bytes()
    assert Path(entry.local_path).is_relative_to(tmp_path / "wandb")  # all of it in one folder
    assert ranking.type == "ranking"
    assert json.loads(ranking.metadata)["checkpoint"] == "best.ckpt sha256:0123456789ab"


def test_a_checkpoint_above_the_limit_is_named_and_not_copied(tmp_path):
    best = train(tmp_path, upload_limit=10)
    ((artifact,),) = (kept.artifacts for kept in kept_in(tmp_path))
    (entry,) = artifact.manifest.contents
    assert entry.ref == best.as_uri()
    assert not list(tmp_path.glob("wandb/*/artifacts/**/*.ckpt"))
    train(tmp_path / "other", checkpoint=False)
    assert [kept.artifacts for kept in kept_in(tmp_path / "other")] == [[]]


def test_a_restart_goes_on_with_the_run_of_its_folder(tmp_path):
    train(tmp_path, 30, group="one")
    before = (tmp_path / "wandb-run.json").read_text()
    mine = logger(tmp_path)
    mine.log_metrics({"val/ap": 0.5}, 40)
    finish_loggers([mine])
    assert (tmp_path / "wandb-run.json").read_text() == before
    kept = {part.run.run_id: part for part in kept_in(tmp_path)}
    assert list(kept) == [json.loads(before)["id"]]
    assert next(iter(kept.values())).run.run_group == "one"
    train(tmp_path / "another")
    assert json.loads((tmp_path / "another" / "wandb-run.json").read_text())["id"] not in kept


@pytest.mark.parametrize("case", ["two checkpoints", "not to be joined", "not logged"])
def test_what_belongs_to_no_training_is_a_run_of_its_own(tmp_path, results, case):
    best = train(tmp_path / "run")
    record = (tmp_path / "run" / "wandb-run.json").read_text()
    far = tmp_path / "far" / "a" / "b" / "c" / "x.ckpt"
    options = {
        "two checkpoints": {"ckpt": [str(best), str(far)]},
        "not to be joined": {"ckpt": str(best), "join": False},
        "not logged": {"ckpt": str(far)},
    }[case]
    analyse(tmp_path / "run" / "side", results, **options)
    (kept,) = kept_in(tmp_path / "run" / "side")
    assert kept.run.run_id != json.loads(record)["id"]
    assert kept.run.job_type == "analysis"
    assert kept.summary["ranking/k"] == 21.0
    assert not (tmp_path / "run" / "side" / "wandb-run.json").exists()
    assert (tmp_path / "run" / "wandb-run.json").read_text() == record


def test_a_list_of_one_checkpoint_is_that_checkpoint(tmp_path):
    best = train(tmp_path)
    assert logger(tmp_path, "analyze", ckpt=[str(best)]).version == logger(tmp_path).version


def test_jobs_of_a_sweep_bear_its_name(tmp_path, monkeypatch):
    from hydra.types import RunMode

    def said(mode):
        node = SimpleNamespace(mode=mode, sweep=SimpleNamespace(dir="outputs/multirun/mine"))
        monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
        monkeypatch.setattr(HydraConfig, "get", lambda: node)
        return get_sweep_name()

    assert said(RunMode.RUN) is None
    assert said(None) is None
    assert said(RunMode.MULTIRUN) == "mine"
    best = train(tmp_path)
    assert [kept.run.run_group for kept in kept_in(tmp_path)] == ["mine"]
    train(tmp_path / "own", group="own")
    assert [kept.run.run_group for kept in kept_in(tmp_path / "own")] == ["own"]
    train(tmp_path / "none", group="")
    assert [kept.run.run_group for kept in kept_in(tmp_path / "none")] == [""]
    # An analysis in a sweep of analyses stays in the group of its training.
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=None))
    assert logger(tmp_path, "analyze", ckpt=str(best))._wandb_init["group"] == "mine"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"id": 3, "project": "p"}', '{"id": "", "project": "p"}', '{"id": "a"'],
)
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "wandb-run.json").write_text(text)
    with pytest.raises(ValueError, match=r"wandb-run\.json.*delete it"):
        logger(tmp_path)


def test_an_unknown_mode_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(
        ValueError, match="WANDB_MODE=sometimes: expected one of online, offline, disabled"
    ):
        logger(tmp_path).log_metrics({"a": 1.0}, 0)


def test_disabled_leaves_nothing_behind(tmp_path, monkeypatch, results):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    train(tmp_path)
    analyse(tmp_path / "later", results)
    assert {path.name for path in tmp_path.iterdir()} <= {"checkpoints", "later"}
    assert not list((tmp_path / "later").iterdir())


def test_a_training_that_failed_is_shown_as_failed(tmp_path):
    mine = logger(tmp_path)
    mine.log_metrics({"val/ap": 0.5}, 1)
    mine.finalize("failed")
    finish_loggers([mine])
    assert [kept.exit_code for kept in kept_in(tmp_path)] == [1]


def test_finish_does_not_begin_what_was_never_used(tmp_path):
    finish_loggers([logger(tmp_path), CSVLogger(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_death_of_the_service_ends_only_the_logging(tmp_path, results, caplog):
    mine = logger(tmp_path / "one")
    mine.log_metrics({"val/ap": 0.5}, 1)
    listed = ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="]
    lines = subprocess.run(listed, capture_output=True, text=True).stdout.splitlines()
    (pid,) = (int(line.split()[0]) for line in lines if "wandb-core" in line)
    os.kill(pid, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        for step in range(100):  # the first ones may go into a buffer
            mine.log_metrics({"val/ap": 0.5}, step)
        log_results(results, mine, 100)
        finish_loggers([mine])
    told = [record.getMessage() for record in caplog.records]
    assert sum("logging stops, since it failed" in text for text in told) == 1
    train(tmp_path / "two")  # the next job of a sweep
    (kept,) = kept_in(tmp_path / "two")
    assert kept.summary["val/ap"] == 0.75


@pytest.mark.parametrize(
    ("requested", "key", "reachable", "mode", "warning"),
    [
        ("offline", True, True, "offline", ""),
        ("", False, True, "offline", ""),
        ("online", False, True, "offline", "there is no account"),
        ("", True, False, "offline", "does not answer"),
        ("", True, True, "online", ""),
    ],
)
def test_the_mode_follows_the_account_and_the_network(
    requested, key, reachable, mode, warning, monkeypatch, caplog, tmp_path
):
    if requested:
        monkeypatch.setenv("WANDB_MODE", requested)
    else:
        monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    monkeypatch.setattr(wandb_logger, "is_reachable", lambda url: reachable)
    assert wandb_logger.choose_mode() == mode
    assert warning in caplog.text
    assert bool(warning) == bool(caplog.records)


def test_a_run_that_cannot_start_online_is_kept_offline(tmp_path, monkeypatch, caplog):
    def refuse():
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb_logger, "choose_mode", refuse)
    train(tmp_path)
    assert "permission denied The run is kept offline." in caplog.text
    assert [kept.summary["val/ap"] for kept in kept_in(tmp_path)] == [0.75]


def test_a_variable_that_holds_nothing_is_not_set(tmp_path, monkeypatch, caplog):
    for name in ("MODE", "BASE_URL", "RUN_ID", "TAGS", "SILENT", "CONSOLE", "RESUME", "ENTITY"):
        monkeypatch.setenv(f"WANDB_{name}", " ")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    monkeypatch.setattr(wandb_logger, "is_reachable", lambda url: False)
    train(tmp_path)
    assert [record.message for record in caplog.records if "ignored" in record.message] == []
    assert "does not answer; the run is kept offline" in caplog.text
    assert [kept.summary["val/ap"] for kept in kept_in(tmp_path)] == [0.75]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("BASE_URL", "nonsense", "Input should be a valid URL, relative URL without a base"),
        ("RUN_ID", "a/b", "Run ID cannot contain the characters"),
        ("TAGS", "a,,b", "Tag at index 1 is empty"),
        ("RESUME", "perhaps", "Input should be 'allow', 'must', 'never' or 'auto'"),
    ],
)
def test_a_variable_that_cannot_be_used_keeps_the_run_offline(
    name, value, reason, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv(f"WANDB_{name}", value)
    train(tmp_path)
    assert f"WANDB_{name} is ignored (" in caplog.text
    assert reason in caplog.text
    assert [kept.summary["val/ap"] for kept in kept_in(tmp_path)] == [0.75]


@pytest.mark.parametrize(("url", "reachable"), [("http://127.0.0.1:9", False), ("nonsense", False)])
def test_nobody_answers(url, reachable):
    assert is_reachable(url) == reachable
