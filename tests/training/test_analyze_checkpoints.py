"""When checkpoints are analysed, what it costs, and what happens when it fails."""

import json
import logging
from dataclasses import dataclass
from functools import partial

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.helpers import tiny

from tff.analyses.detection import Detection
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import TooFewImagesError
from tff.data.folder import Folder
from tff.report.page import write
from tff.training.analyze_checkpoints import AnalyzeCheckpoints
from tff.training.module import UniversalDetector


@dataclass(frozen=True)
class Failing(Analysis):
    error: type[Exception] = RuntimeError

    def answer(self, subject):
        subject.evaluate()
        torch.rand(3)  # must not reach the training
        raise self.error("no such luck")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("images"), images=20, size=32)  # 80: 20 steps of 4


def fit(
    root, out, analyses, checkpoint=None, ckpt=None, options=None, subject=Subject.of, **trainer
):  # fmt: skip
    pl.seed_everything(1, verbose=False)
    data = Folder(root=str(root), batch_size=4, size=32, workers=0)
    module = UniversalDetector(tiny.detector(), partial(torch.optim.Adam, lr=1e-3))
    folder = out / "checkpoints"
    last = ModelCheckpoint(folder, "last", enable_version_counter=False, **(checkpoint or {}))
    subject = partial(subject, draws=10, confidence=0.5, batch_size=4)
    callback = AnalyzeCheckpoints(analyses, subject, 4, str(folder), **(options or {}))
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False}
    trainer = pl.Trainer(
        **(settings | trainer), callbacks=[last, callback], num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        default_root_dir=out,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return module


def steps(out):
    return sorted(int(path.name[4:]) for path in (out / "checkpoints").glob("step*"))


ONE = {"detection": Detection()}
EVERY_2 = {"every_n_train_steps": 2, "save_on_train_epoch_end": False}


def total(root):
    data = Folder(root=str(root), batch_size=4, size=32, workers=0)
    return len(data.train_dataloader())


@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_every_nth_save_and_the_last_one(every, root, tmp_path):
    fit(root, tmp_path, ONE, EVERY_2, options={"every_n": every})
    saved = list(range(2, total(root) + 1, 2))
    wanted = {step for i, step in enumerate(saved, 1) if i % every == 0} | {saved[-1]}
    assert steps(tmp_path) == sorted(wanted)


def test_the_count_goes_on_after_a_restart(root, tmp_path):
    options = {"every_n": 3}
    fit(root, tmp_path / "one", ONE, EVERY_2, options=options)
    fit(root, tmp_path / "two", ONE, EVERY_2, options=options, max_steps=4)
    last = tmp_path / "two" / "checkpoints" / "last.ckpt"
    fit(root, tmp_path / "two", ONE, EVERY_2, ckpt=last, options=options)
    # The interrupted run looked at its own last one too.
    assert set(steps(tmp_path / "two")) == {*steps(tmp_path / "one"), 4}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_analysis_that_was_killed_is_made_up_for(moment, root, tmp_path, monkeypatch):
    fit(root, tmp_path / "one", ONE, EVERY_2)

    def die(*arguments):
        if arguments[-1]["step"] == 4:
            if moment == "after":
                write(*arguments)
            raise Killed
        return write(*arguments)

    monkeypatch.setattr("tff.training.analyze_checkpoints.write", die)
    with pytest.raises(Killed):
        fit(root, tmp_path / "two", ONE, EVERY_2)
    written = []

    def note(*arguments):
        written.append(arguments[-1]["step"])
        return write(*arguments)

    monkeypatch.setattr("tff.training.analyze_checkpoints.write", note)
    fit(root, tmp_path / "two", ONE, EVERY_2, ckpt=tmp_path / "two" / "checkpoints" / "last.ckpt")
    assert steps(tmp_path / "two") == steps(tmp_path / "one")
    assert written[:2] == ([6, 8] if moment == "after" else [4, 6])
    for name in ("step000004", "step000006"):
        one, two = (
            (tmp_path / run / "checkpoints" / name / "tables" / "detection.csv").read_text()
            for run in ("one", "two")
        )
        assert one == two


def test_the_checkpoint_of_another_folder_is_analysed_there(root, tmp_path):
    fit(root, tmp_path / "one", {}, EVERY_2, max_steps=4)
    fit(root, tmp_path / "two", ONE, EVERY_2, ckpt=tmp_path / "one" / "checkpoints" / "last.ckpt")
    assert min(steps(tmp_path / "two")) == 6


def test_a_failing_analysis_leaves_training_and_the_others(root, tmp_path, caplog):
    analyses = {"bad": Failing(), "detection": Detection()}
    with caplog.at_level(logging.ERROR):
        module = fit(root, tmp_path / "with", analyses)
    without = fit(root, tmp_path / "without", {})
    for one, other in zip(module.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)
    (report,) = (tmp_path / "with" / "checkpoints").glob("step*")
    assert "no such luck" in (report / "index.html").read_text()
    assert "FAILED" in (report / "index.html").read_text()
    assert (report / "tables" / "detection.csv").is_file()
    (record,) = [r for r in caplog.records if r.name == "tff.training.analyze_checkpoints"]
    assert "bad: no such luck" in record.getMessage()
    assert record.exc_info


def test_or_ends_it(root, tmp_path):
    with pytest.raises(RuntimeError, match="no such luck"):
        fit(root, tmp_path, {"bad": Failing()}, options={"on_error": "raise"})


def test_too_few_images_are_no_error(root, tmp_path, caplog):
    analyses = {"few": Failing(TooFewImagesError), "detection": Detection()}
    with caplog.at_level(logging.WARNING):
        fit(root, tmp_path, analyses, options={"on_error": "raise"})
    assert "skipped: few: no such luck" in caplog.text
    (report,) = (tmp_path / "checkpoints").glob("step*")
    assert (report / "tables" / "detection.csv").is_file()


def test_a_report_that_cannot_be_written_leaves_training(root, tmp_path, caplog):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / f"step{total(root):06d}").write_text("in the way")
    fit(root, tmp_path, ONE)
    assert "training continues" in caplog.text


def test_the_cost_is_logged_and_written(root, tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path, name="logs", version="train")
    fit(root, tmp_path, ONE, logger=logger)
    metrics = pd.read_csv(tmp_path / "logs" / "train" / "metrics.csv")
    (report,) = (tmp_path / "checkpoints").glob("step*")
    summary = json.loads((report / "summary.json").read_text())
    (seconds,) = metrics["analysis/seconds"].dropna()
    (share,) = metrics["analysis/share"].dropna()
    assert summary["analysis/seconds"] == pytest.approx(seconds)
    assert seconds > 0
    assert 0 < share < 1


def lost(*_, **__):
    raise OSError("an image is lost")


def test_a_subject_that_cannot_be_made_is_reported(root, tmp_path, caplog):
    logger = pl.loggers.CSVLogger(tmp_path, name="logs", version="train")
    fit(root, tmp_path, ONE, subject=lost, logger=logger)
    assert "training continues: checkpoint of step" in caplog.text
    (report,) = (tmp_path / "checkpoints").glob("step*")
    page = (report / "index.html").read_text()
    assert "FAILED" in page
    assert "failed (OSError): an image is lost" in page
    assert json.loads((report / "summary.json").read_text())["analysis/seconds"] > 0


def test_what_was_found_is_written_where_no_logger_takes_it(root, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tff.training.analyze_checkpoints.loggers.log_results", lost)
    fit(root, tmp_path, ONE, logger=pl.loggers.CSVLogger(tmp_path))
    assert "training continues: report of step" in caplog.text
    (report,) = (tmp_path / "checkpoints").glob("step*")
    assert (report / "tables" / "detection.csv").is_file()


def test_checkpoints_that_no_callback_sees_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match=r"pass callbacks\.best\.save_weights_only=false"):
        fit(root, tmp_path, ONE, {"save_weights_only": True})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"on_error": "ignore"}, "one of log, raise"), ({"every_n": 0}, "at least 1")],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        AnalyzeCheckpoints({}, Subject.of, None, "x", **options)
