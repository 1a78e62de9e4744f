"""Results in Lightning loggers."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.report.page import render_png
from tff.report.wandb import link_checkpoint, log_artifact
from tff.safe_text import escape_formulas
from tff.types import Result

ROWS_LOGGED = 1000
_REPORT = ("index.html", "summary.json", "results.json", "tables")


@rank_zero_only
def log_results(
    results: Mapping[str, Result],
    logger: Logger,
    step: int | None = None,
    *,
    checkpoint: str | None = None,
    report: Path | None = None,
) -> None:
    """Log the scalars; with Weights & Biases, the figures and tables as well.

    There, the table named `ranking` becomes an artifact of type "ranking", as CSV, and the report
    without its figure files one of type "report"; both name the checkpoint.

    Args:
        results: name of an analysis -> its result.
        step: training step of the analyzed checkpoint; None: the logger chooses.
        checkpoint: fingerprint of the analyzed checkpoint.
        report: folder that `tff.report.page.write` has filled.
    """
    scalars = {f"{a}/{s}": float(v) for a, r in results.items() for s, v in r.scalars.items()}
    logger.log_metrics(scalars, step)
    if not isinstance(logger, WandbLogger):
        return
    for name, result in results.items():
        for key, figure in result.figures.items():
            image = Image.open(io.BytesIO(render_png(figure)))
            caption = result.captions.get(key, key)
            logger.log_image(f"{name}/{key}", [image], step=step, caption=[caption])
        for key, table in result.tables.items():
            logger.log_table(f"{name}/{key}", dataframe=table.head(ROWS_LOGGED), step=step)
    origin = {"step": step, "checkpoint": checkpoint}
    metadata = {key: value for key, value in origin.items() if value is not None}
    if checkpoint is not None:
        link_checkpoint(logger, checkpoint)
    for result in results.values():
        if "ranking" in result.tables:
            _log_ranking(result.tables["ranking"], logger, metadata)
    if report is not None:
        files = {name: Path(report) / name for name in _REPORT}
        log_artifact(logger, "report", {n: p for n, p in files.items() if p.exists()}, metadata)


def _log_ranking(
    ranking: pd.DataFrame, logger: WandbLogger, metadata: Mapping[str, object]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranking.csv"
        escape_formulas(ranking).to_csv(path, index=False)
        log_artifact(logger, "ranking", {path.name: path}, metadata)
