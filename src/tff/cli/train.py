"""What train.py does."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
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
from tff.cli.run_folder import (
    clear_outcome,
    is_rank_zero,
    resume_command,
    was_requeued,
    write_failure,
    write_result,
)
from tff.distributed import broadcast
from tff.options import one_of
from tff.training.checkpointing import AtomicCheckpointIO, Last
from tff.training.fit import SilenceLightning, fit, print_summary
from tff.training.module import METRICS
from tff.training.resume import SeedEachStep, find_newest, require_resumable
from tff.training.signals import Interrupt, StoppedBySignal
from tff.training.wandb_logger import finish_loggers

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train a detector, and analyze it if requested; the metric that a sweep maximizes.

    Raises:
        ValueError, FileNotFoundError: options, data or checkpoints do not work.
        StoppedBySignal: by a signal, after saving.
    """
    started, out = time.monotonic(), Path(cfg.out)
    with _record_end(out):
        # Plain containers: OmegaConf would turn objects that are dataclasses into settings.
        made = {name: c for name, c in instantiate(cfg.callbacks, _convert_="all").items() if c}
        require_metrics(cfg.optimized_metric, made)
        require_available(cfg.trainer)
        callbacks = list(made.values())
        last = next((c for c in callbacks if isinstance(c, Last)), None)
        with Interrupt(last) as interrupt, manage_processes():
            analysis = prepare_analysis(cfg)
            pl.seed_everything(cfg.seed, workers=True, verbose=False)
            origin: Any = OmegaConf.to_container(cfg.origin, resolve=True)
            module = instantiate(cfg.module)(instantiate(cfg.detector), origin=origin)
            data = instantiate(cfg.data)
            loggers = instantiate(cfg.logger, _convert_="all")
            ckpt = prepare_folder(out, cfg.resume, cfg.ckpt)
            if ckpt:
                require_resumable(ckpt, module, origin)
            trainer = instantiate(
                cfg.trainer,
                callbacks=[interrupt, SilenceLightning(), SeedEachStep(cfg.seed), *callbacks],
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


#: Options of Lightning's Trainer that are set by others here: the value that changes nothing, and
#: what to do instead.
SET_ELSEWHERE = {
    "logger": (None, "choose with logger=none or logger=NAME"),
    "callbacks": (None, "use callbacks.NAME=null, or +callbacks.NAME._target_=CLASS"),
    "plugins": (None, "use trainer.precision and trainer.strategy"),
    "barebones": (False, "use logger=none and callbacks.NAME=null"),
    "enable_checkpointing": (True, "use callbacks.best=null and callbacks.last=null"),
    "use_distributed_sampler": (False, "leave it out, since images are divided in any case"),
}


def require_available(trainer: Mapping[str, Any]) -> None:
    """Refuse options of Lightning's Trainer that would be ignored or would contradict ours.

    Raises:
        ValueError: names the option, and what to use instead.
    """
    for option, (harmless, instead) in SET_ELSEWHERE.items():
        if trainer.get(option) not in (None, harmless):
            raise ValueError(f"trainer.{option}={trainer[option]}: cannot be set; {instead}")


def require_metrics(optimized: str, callbacks: Mapping[str, Any]) -> None:
    """Refuse metrics that no training has, before the first epoch instead of after it.

    Args:
        optimized: `optimized_metric`.
        callbacks: name -> callback. Callbacks of other packages may log metrics too, so beside
            them a callback may watch any.

    Raises:
        ValueError: a metric is unknown, or a loss is taken as the better the larger it is.
    """
    one_of(METRICS).require("optimized_metric", optimized)
    packages = {type(callback).__module__.partition(".")[0] for callback in callbacks.values()}
    losses = ("val/loss", "train/loss")
    for name, callback in callbacks.items():
        monitor, mode = (getattr(callback, option, None) for option in ("monitor", "mode"))
        if monitor and packages <= {"tff", "pytorch_lightning"}:
            one_of((*METRICS, *losses)).require(f"callbacks.{name}.monitor", monitor)
        if monitor in losses and mode == "max":
            raise ValueError(
                f"callbacks.{name}.monitor={monitor}: a loss is best where it is smallest; add "
                f"callbacks.{name}.mode=min"
            )


def prepare_folder(out: Path, resume: bool | str | None, ckpt: str | None) -> Path | None:
    """Clean the folder of a run; the checkpoint to resume from, or None.

    A new run removes checkpoints and reports of an earlier one, which would be taken for its own.

    Args:
        out: folder of the run.
        resume: `auto` or true: from the newest checkpoint of the run, if there is one.
        ckpt: named by the user; the newest checkpoint of the run takes precedence.

    Raises:
        ValueError: resume has another value.
    """
    one_of((None, False, True, "auto")).require("resume", resume)
    folder = out / "checkpoints"
    newest = find_newest(folder) if resume or was_requeued() else None
    if is_rank_zero():
        clear_outcome(out)
        for path in (out, folder):
            remove_abandoned(path, 0)
        if newest:
            _keep_metrics(out)
        elif ckpt is None:
            for path in (*folder.glob("*.ckpt"), *folder.glob("step*"), out / "report"):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if newest:
        log.info("resuming from %s", newest)
    return newest or (Path(ckpt).expanduser() if ckpt else None)


def _keep_metrics(out: Path) -> None:
    """Rename `metrics.csv` to `metrics-1.csv`, ...: the logger would overwrite it."""
    for path in out.glob("logs/*/metrics.csv"):
        used = [re.fullmatch(r"metrics-(\d+)", p.stem) for p in path.parent.glob("metrics-*.csv")]
        number = 1 + max((int(match[1]) for match in used if match), default=0)
        path.rename(path.with_name(f"metrics-{number}.csv"))


@contextmanager
def _record_end(out: Path) -> Iterator[None]:
    """Print or write to `failed.json` why a run ended early."""
    try:
        yield
    except StoppedBySignal as stopped:
        if stopped.code:
            last = out / "checkpoints" / "last.ckpt"
            saved = f"saved: {last}" if last.is_file() else "nothing was trained yet"
            text = f"\nStopped; {saved}\nResume: {resume_command(out)}"
            print(text, file=sys.stderr, flush=True)
        raise
    except Exception as error:
        write_failure(out, error)
        raise
    except SystemExit as exit:  # of a process that was started, and has printed why
        write_failure(out, RuntimeError(f"exited with code {exit.code}; see its log"))
        raise
