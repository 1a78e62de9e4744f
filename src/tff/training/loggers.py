"""Weights & Biases without surprises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from tff.report.wandb import end
from tff.training.wandb_logger import WeightsAndBiases
from tff.training.wandb_record import read_record, record_of_checkpoint, step_of


def weights_and_biases(
    project: str,
    save_dir: str,
    tags: list[str],
    group: str | None,
    *,
    entity: str | None = None,
    name: str | None = None,
    job: str = "train",
    ckpt: str | Sequence[str] | None = None,
    join: bool = True,
    **options: Any,
) -> WeightsAndBiases:
    """The logger of a job, which goes on with the run that the job belongs to.

    A training goes on with the run that its folder names (`wandb-run.json`), an analysis with the
    run of the training that its checkpoint comes from. An analysis of several checkpoints, or of
    one whose training was not logged, is a run of its own, of job type "analysis".

    Args:
        project: of a new run; a run that is joined stays in its own.
        save_dir: output folder of the job.
        tags: of a training or a new run.
        group: name that runs share; None: that of the sweep, if there is one; "": none.
        entity: user or team; None: the one of the account.
        name: of a new run in the list of runs; None: chosen by Weights & Biases.
        job: "train" for a training, else an analysis.
        ckpt: of an analysis: its checkpoint, or several.
        join: False begins a new run in any case.
        options: see `WeightsAndBiases`.

    Raises:
        ValueError: `wandb-run.json` is damaged.
    """
    training = job == "train"
    several = not (ckpt is None or isinstance(ckpt, str))
    if several and len(ckpt or ()) == 1:
        (ckpt,), several = ckpt or (), False
    record = None
    if join and training:
        record = read_record(Path(save_dir))
    elif join and not several:
        record = record_of_checkpoint(str(ckpt)) if ckpt else read_record(Path(save_dir))
    if group is None:
        group = record.group if record else sweep()
    options |= {"group": group or None, "entity": entity, "project": project, "name": name}
    if training or record is None:  # else those of the training would be replaced
        options |= {"tags": tags, "job_type": "train" if training else "analysis"}
    step = None if training or several or not ckpt else step_of(str(ckpt))
    return WeightsAndBiases(save_dir, record, step=step, job=job, training=training, **options)


def sweep() -> str | None:
    """Name of the folder of the sweep (`-m`) that is running; None outside of one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


@rank_zero_only
def finish(loggers: Iterable[Logger]) -> None:
    """End the runs at Weights & Biases, else the next job of a sweep would write into them."""
    for logger in loggers:
        if isinstance(logger, WeightsAndBiases):
            logger.finish()
        elif isinstance(logger, WandbLogger) and logger.version is not None:
            end(logger.experiment)
