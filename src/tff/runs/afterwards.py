"""After a training, what analyze.py says of its best checkpoint."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from tff.analyses.engine.analysis import unanswered
from tff.distributed import agreed
from tff.runs.analysis import analyse, settled
from tff.runs.asked import wanted
from tff.runs.processes import launch
from tff.runs.ranks import first

log = logging.getLogger(__name__)
#: Groups in which the analysis follows the training.
FOLLOWED = ("ablation", "relevance", "trainer")
#: What the settings of the training are called in these groups.
AS_TRAINED = "as_trained"


def following(cfg: DictConfig) -> dict[str, DictConfig]:
    """Settings of the analysis that is to follow a training, as of `settled`; none: none is wanted.

    They are asked for before the training, so that a mistyped option is told then. The seed of the
    analysis is not that of the run: trainings are compared by the same draws.

    Args:
        cfg: of the training.

    Returns:
        None in processes but the first: some were started from a composed configuration, and know
        neither of a sweep nor where configurations lie.

    Raises:
        ValueError: `analyze` or `analyze_options` make no sense.
    """
    if not wanted(cfg.analyze) or not first():
        return {}
    options = list(cfg.analyze_options)
    try:
        return settled(compose("analyze", [*_given(cfg), *options]))
    except HydraException as error:
        raise ValueError(f"analyze_options={options}: {error}") from None


def analyse_best(
    out: Path, settings: Mapping[str, DictConfig], options: Iterable[str]
) -> dict[str, float]:
    """Analyse `checkpoints/best.ckpt` of a run on all its processes; the report goes to its folder.

    Args:
        out: folder of the run.
        settings: as of `following`; those of the first process count.
        options: `analyze_options`, for the command in the report.

    Returns:
        All scalars of the report; none where the run has left no such checkpoint.
    """
    best = out / "checkpoints" / "best.ckpt"
    if not agreed(best.is_file()):
        log.warning("not analysed: %s was not written", best)
        return {}
    settings = agreed(settings)
    trainer = next(iter(settings.values())).trainer
    # A training that has learned too little is part of a sweep all the same.
    return launch(trainer, analyse, settings, _command(best, options), unanswered)


def _given(cfg: DictConfig) -> Iterator[str]:
    """Options for analyze.py in which the analysis follows the training."""
    out = Path(cfg.out)
    for key, path in (("ckpt", out / "checkpoints" / "best.ckpt"), ("out", out)):
        quoted = str(path).replace('"', '\\"')
        yield f'{key}="{quoted}"'
    for group in FOLLOWED:
        if cfg.get(group):
            # A choice like any other, so that options may change it, or choose another one. Names
            # of choices alone would lose single values, and what an experiment has set.
            node = OmegaConf.to_container(cfg[group])
            ConfigStore.instance().store(AS_TRAINED, node, group)
            yield f"{group}={AS_TRAINED}"
    if "wandb" in str(HydraConfig.get().runtime.choices.get("logger")):
        # Beside the metrics of the training, not over them.
        yield from ("logger=wandb", "logger.csv.version=analyze")


def _command(best: Path, options: Iterable[str]) -> str:
    """By which the same can be had again, as far as it was typed."""
    typed = list(HydraConfig.get().overrides.task)
    follow = [o for o in typed if re.split(r"[.=]", o.lstrip("+~"))[0] in FOLLOWED]
    return shlex.join(["python", "analyze.py", f"ckpt={best}", *follow, *options])
