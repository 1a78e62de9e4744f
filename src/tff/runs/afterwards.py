"""After a training, what analyze.py says of its best checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from tff.analyses.base import unanswered
from tff.process import agreed, place
from tff.runs.analysis import analyse, settled
from tff.runs.processes import launch

log = logging.getLogger(__name__)
#: Groups in which the analysis follows the training.
FOLLOWED = ("ablation", "relevance", "trainer")


def wanted(analyze: bool | str) -> bool:
    """Whether a training is to be followed by an analysis.

    Args:
        analyze: `auto`: in a sweep, whose page needs it.

    Raises:
        ValueError: it is neither that nor a yes or no.
    """
    if analyze not in (True, False, "auto"):
        raise ValueError(f"analyze={analyze}: expected true, false or auto")
    return HydraConfig.get().mode == RunMode.MULTIRUN if analyze == "auto" else bool(analyze)


def analyse_best(out: Path, options: Iterable[str]) -> dict[str, float]:
    """Analyse `checkpoints/best.ckpt` of a run on all its processes; the report goes to its folder.

    The seed of the analysis is not that of the run: trainings are compared by the same draws.

    Args:
        out: folder of the run.
        options: further ones, as analyze.py takes them.

    Returns:
        All scalars of the report; none where the run has left no such checkpoint.
    """
    best = out / "checkpoints" / "best.ckpt"
    if not agreed(best.is_file()):
        log.warning("not analysed: %s was not written", best)
        return {}
    # Other processes were started from a composed configuration, and do not know the choices.
    first = place()[0] == 0
    settings = agreed(_settings(best, list(options)) if first else {})
    trainer = settings[str(best)].trainer
    # A training that has learned too little is part of a sweep all the same.
    return launch(trainer, analyse, settings, f"python analyze.py ckpt={best}", unanswered)


def _settings(best: Path, options: list[str]) -> dict[str, DictConfig]:
    chosen = HydraConfig.get().runtime.choices
    follow = [f"{group}={chosen[group]}" for group in FOLLOWED if chosen.get(group)]
    if "wandb" in str(chosen.get("logger")):
        # Beside the metrics of the training, not over them.
        follow += ["logger=wandb", "logger.csv.version=analyze"]
    quoted = str(best).replace('"', '\\"')
    return settled(compose("analyze", [f'ckpt="{quoted}"', *follow, *options]))
