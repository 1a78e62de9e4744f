"""Results to a logger of Lightning."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pandas as pd
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.report.figures import render_png
from tff.report.files import without_formulas
from tff.types import Result

ROWS_LOGGED = 1000


@rank_zero_only
def log(results: Mapping[str, Result], logger: Logger, step: int | None = None) -> None:
    """Sends the scalars to a logger, and to Weights & Biases the figures and tables as well.

    The table named `ranking` becomes an artifact of type "ranking", as CSV.
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
        if "ranking" in result.tables:
            _log_ranking(result.tables["ranking"], logger)


def _log_ranking(ranking: pd.DataFrame, logger: WandbLogger) -> None:
    import wandb  # slow, and needed by this logger only

    artifact = wandb.Artifact(f"ranking-{logger.experiment.id}", type="ranking")
    with artifact.new_file("ranking.csv", encoding="utf-8") as file:
        without_formulas(ranking).to_csv(file, index=False)
    logger.experiment.log_artifact(artifact)
