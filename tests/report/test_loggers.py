"""Loggers get what they can hold."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from tff.report.loggers import log
from tff.types import Result


def test_scalars_reach_any_logger(tmp_path: Path, results: dict[str, Result]) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    log(results, logger, 7)
    logger.save()
    row = pd.read_csv(tmp_path / "metrics.csv").iloc[-1]
    assert row["ranking/k"] == 3
    assert row["step"] == 7


def test_figures_tables_and_the_ranking_reach_wandb(
    tmp_path: Path, results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    logger = WandbLogger(offline=True, save_dir=tmp_path, project="tff")
    artifacts = []
    try:
        run, real = logger.experiment, logger.experiment.log_artifact
        monkeypatch.setattr(run, "log_artifact", lambda a: artifacts.append(a) or real(a))
        log(results, logger, 7)
        files = Path(logger.experiment.dir)
        summary = dict(logger.experiment.summary)
    finally:
        wandb.finish()
    assert summary["ranking/k"] == 3
    assert len(list(files.rglob("*.png"))) == 2
    (artifact,) = (a for a in artifacts if a.type == "ranking")
    assert list(artifact.manifest.entries) == ["ranking.csv"]
    tables = list(files.rglob("*.table.json"))
    assert sorted(len(json.loads(t.read_text())["data"]) for t in tables) == [3, 40]
