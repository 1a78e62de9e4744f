"""Loggers get what they can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from tests.helpers.wandb_file import kept_in

from tff.report.loggers import log_results
from tff.report.page import write
from tff.report.wandb import link_checkpoint
from tff.types import Result


def test_scalars_reach_any_logger(tmp_path: Path, results: dict[str, Result]) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    log_results(results, logger, 7)
    logger.save()
    row = pd.read_csv(tmp_path / "metrics.csv").iloc[-1]
    assert row["ranking/k"] == 3
    assert row["step"] == 7


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbLogger]:
    module = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")  # the logger would set it for good
    yield WandbLogger(offline=True, save_dir=tmp_path, project="tff")
    module.finish()


def test_figures_tables_and_the_ranking_reach_wandb(
    wandb: WandbLogger, results: dict[str, Result], tmp_path: Path
) -> None:
    log_results(results, wandb, 7, checkpoint="best.ckpt sha256:0123456789ab")
    files = Path(wandb.experiment.dir)
    assert dict(wandb.experiment.summary)["ranking/k"] == 3
    assert len(list(files.rglob("*.png"))) == 2
    tables = list(files.rglob("*.table.json"))
    assert sorted(len(json.loads(t.read_text())["data"]) for t in tables) == [3, 40]
    wandb.experiment.finish()
    (kept,) = kept_in(tmp_path)
    (artifact,) = (a for a in kept.artifacts if a.type == "ranking")
    assert artifact.name == f"ranking-{kept.run.run_id}"
    metadata = json.loads(artifact.metadata)
    assert metadata == {"checkpoint": "best.ckpt sha256:0123456789ab", "step": 7}
    (entry,) = artifact.manifest.contents
    assert entry.path == "ranking.csv"
    assert len(pd.read_csv(entry.local_path)) == 40


def test_page_and_tables_of_the_report_become_an_artifact(
    wandb: WandbLogger, results: dict[str, Result], tmp_path: Path
) -> None:
    write(results, tmp_path / "report", {})
    log_results(results, wandb, report=tmp_path / "report")
    wandb.experiment.finish()
    (kept,) = kept_in(tmp_path)
    (artifact,) = (a for a in kept.artifacts if a.type == "report")
    files = {entry.path: entry.local_path for entry in artifact.manifest.contents}
    assert set(files) == {
        "index.html", "summary.json", "results.json", "tables/ranking.csv", "tables/ablation.csv"
    }  # fmt: skip
    for name, copy in files.items():
        assert Path(copy).read_bytes() == (tmp_path / "report" / name).read_bytes()


@pytest.mark.parametrize("trouble", [None, ValueError("no such artifact"), OSError("lost")])
def test_a_checkpoint_that_the_run_has_logged_is_used_by_what_was_made_of_it(
    wandb: WandbLogger, monkeypatch: pytest.MonkeyPatch, trouble: Exception | None
) -> None:
    used = []

    def take(name: str, type: str) -> None:
        used.append((name, type))
        if trouble:
            raise trouble

    run = SimpleNamespace(
        id="abc", offline=False, disabled=False, use_artifact=take,
        settings=SimpleNamespace(base_url="http://127.0.0.1:9"),
    )  # fmt: skip
    monkeypatch.setattr(wandb, "_experiment", run)
    link_checkpoint(wandb, "best.ckpt sha256:0123456789ab")
    assert not used  # nothing answers there
    monkeypatch.setattr("tff.report.wandb.is_reachable", lambda url: True)
    link_checkpoint(wandb, "best.ckpt sha256:0123456789ab")
    assert used == [("checkpoint-abc:0123456789ab", "checkpoint")]
