"""What analyze.py does on each process, and train.py after a training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tff.analyses.engine.analysis import Failed, run
from tff.comparisons.checkpoints import Run, listed, protocol, side_by_side
from tff.distributed import place, together
from tff.report.loggers import log_results
from tff.report.page import versions, write
from tff.report.terminal import show
from tff.training.from_checkpoint import fingerprint, subject_of
from tff.training.wandb_logger import finish


def settled(cfg: DictConfig) -> dict[str, DictConfig]:
    """The settings for each checkpoint, without references to what other processes do not know.

    Raises:
        ValueError: a checkpoint is given twice, or none in a list.
    """
    found = {}
    for ckpt in listed(cfg.ckpt):
        one: Any = OmegaConf.merge(cfg, {"ckpt": ckpt})
        OmegaConf.resolve(one)
        found[str(ckpt)] = one
    return found


def analyse(
    device: str, settings: Mapping[str, DictConfig], command: str, failed: Failed | None = None
) -> dict[str, float]:
    """Run the chosen analyses on each checkpoint, and write the report; all scalars.

    Args:
        device: for a subject that leaves the choice.
        settings: of analyze.py for each checkpoint, as of `settled`.
        command: by which the same can be had again, for the report.
        failed: makes a result of an error; None: the first error ends all.
    """
    runs = {ckpt: _run(device, one, failed) for ckpt, one in settings.items()}
    results = side_by_side(runs)
    cfg = next(iter(settings.values()))
    with together():
        if place()[0] == 0:
            options: Any = OmegaConf.to_container(cfg)
            context = {
                "protocol": protocol(runs),
                "options": options | ({"ckpt": list(settings)} if len(settings) > 1 else {}),
                "versions": versions(),
                "command": command,
            }
            page = write(results, Path(cfg.out) / "report", context)
            loggers = instantiate(cfg.logger, _convert_="all").values()
            alone = cfg.ckpt if loggers and len(settings) == 1 else None
            sha = fingerprint(alone) if alone else None  # reads the whole file
            try:
                for one in loggers:
                    log_results(results, one, checkpoint=sha, report=page.parent)
            finally:
                finish(loggers)
            show(results, page)
    return {f"{a}/{s}": float(v) for a, r in results.items() for s, v in r.scalars.items()}


def _run(device: str, cfg: Any, failed: Failed | None) -> Run:
    """The answers to all that is asked of one checkpoint."""
    analyses = instantiate(cfg.analysis, _convert_="all")
    make = instantiate(cfg.subject)
    subject = subject_of(
        cfg.ckpt,
        partial(make, device=device) if cfg.subject.device == "auto" else make,
        partial(instantiate, cfg.data),
        partial(instantiate, cfg.discovery),
        passes=cfg.passes,
        detector=cfg.get("detector"),
        images=cfg.get("images"),
        files=cfg.data.get("_target_") != "tff.training.from_checkpoint.data_of",
        reports=all(analysis.of_reports for analysis in analyses.values()),
    )
    return Run(subject, analyses, run(analyses, subject, failed))
