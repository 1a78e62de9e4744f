"""What train.py does."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tff.atomic import remove_abandoned
from tff.cli.analyze import analyze_best, prepare_analysis
from tff.cli.launch import manage_processes
from tff.cli.run_folder import clear_outcome, is_rank_zero, write_failure, write_result
from tff.distributed import broadcast
from tff.training.checkpointing import AtomicCheckpointIO
from tff.training.fit import fit, print_summary
from tff.training.resume import SeedEachStep, find_newest, require_resumable
from tff.training.signals import Interrupt, StoppedBySignal, was_requeued
from tff.training.wandb_logger import finish_loggers

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Fit the detector; the metric that a sweep maximises.

    Raises:
        ValueError, FileNotFoundError: for settings, data or checkpoints that do not work.
        Stopped: by a signal, after saving.
    """
    started, out = time.monotonic(), Path(cfg.out)
    with Interrupt() as interrupt, _told(out, cfg), manage_processes():
        analysis = prepare_analysis(cfg)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        origin: Any = OmegaConf.to_container(cfg.origin, resolve=True)
        module = instantiate(cfg.module)(instantiate(cfg.detector), origin=origin)
        data = instantiate(cfg.data)
        # Plain containers, since OmegaConf would turn objects that are dataclasses into settings.
        callbacks, loggers = (instantiate(c, _convert_="all") for c in (cfg.callbacks, cfg.logger))
        ckpt = begin(out, cfg.resume, cfg.ckpt)
        if ckpt:
            require_resumable(ckpt, module, origin)
        trainer = instantiate(
            cfg.trainer,
            callbacks=[interrupt, SeedEachStep(cfg.seed), *(c for c in callbacks.values() if c)],
            logger=list(loggers.values()),
            plugins=[AtomicCheckpointIO()],
        )
        try:
            metrics = fit(trainer, module, data, ckpt, interrupt)
        finally:
            finish_loggers(trainer.loggers)
        print_summary(metrics, trainer, out)
        objective = metrics.get(cfg.optimized_metric)
        if broadcast(bool(analysis)):
            analyze_best(out, analysis, cfg.analyze_options)
        if trainer.is_global_zero:
            overrides = list(HydraConfig.get().overrides.task)
            write_result(out, objective, metrics, time.monotonic() - started, overrides)
    return objective


def begin(out: Path, resume: bool | str | None, ckpt: str | None) -> Path | None:
    """Tidy the folder of the run, and find the checkpoint to go on from.

    Without one the run starts anew: what a former run left here would be mistaken for its own.

    Args:
        out: folder of the run.
        resume: `auto` or true: from its newest checkpoint, if there is one.
        ckpt: named by the user; the newest one of the run goes before.

    Raises:
        ValueError: resume is something else.
    """
    if resume not in (None, False, True, "auto"):
        raise ValueError(f"resume={resume}: expected auto, true or null")
    folder = out / "checkpoints"
    found = find_newest(folder) if resume or was_requeued() else None
    if is_rank_zero():
        clear_outcome(out)
        for place in (out, folder):
            remove_abandoned(place, 0)
        if found:
            _set_aside(out)
        elif ckpt is None:
            for path in (*folder.glob("*.ckpt"), *folder.glob("step*"), out / "report"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if found:
        log.info("goes on from %s", found)
    return found or (Path(ckpt).expanduser() if ckpt else None)


def _set_aside(out: Path) -> None:
    """Keep the metrics that were logged so far: the logger begins its file anew."""
    for path in out.glob("logs/*/metrics.csv"):
        used = [re.fullmatch(r"metrics-(\d+)", p.stem) for p in path.parent.glob("metrics-*.csv")]
        number = 1 + max((int(match[1]) for match in used if match), default=0)
        path.rename(path.with_name(f"metrics-{number}.csv"))


@contextmanager
def _told(out: Path, cfg: DictConfig) -> Iterator[None]:
    """Leave word of how a run ended before it was done."""
    try:
        yield
    except StoppedBySignal as stopped:
        if stopped.code:
            last = out / "checkpoints" / "last.ckpt"
            saved = f"saved: {last}" if last.is_file() else "nothing was trained yet"
            given = [a for a in sys.argv[1:] if not a.startswith(("resume=", "hydra.run.dir="))]
            again = shlex.join(["python", *sys.argv[:1], *given, "resume=auto"])
            place = "" if {"-m", "--multirun"} & set(given) else f' hydra.run.dir="{out}"'
            print(f"\nStopped; {saved}\nGo on: {again}{place}", file=sys.stderr, flush=True)
        raise
    except Exception as error:
        write_failure(out, error)
        raise
    except SystemExit as ended:  # of a process that was started, and has told why
        write_failure(out, RuntimeError(f"ended with code {ended.code}; its log tells why"))
        raise
