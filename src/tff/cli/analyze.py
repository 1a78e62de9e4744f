"""What analyze.py does, and train.py after a training."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tff.analyses.engine.analysis import Analysis, OnError, report_unanswered, run
from tff.cli.launch import launch
from tff.cli.run_folder import is_analysis_wanted, is_rank_zero
from tff.comparisons.checkpoints import Analyzed, combine, describe_protocol, list_checkpoints
from tff.comparisons.comparison import select_comparisons
from tff.data.datamodule import Data
from tff.distributed import broadcast, fail_together, get_rank
from tff.report.loggers import log_results
from tff.report.page import collect_versions, write
from tff.report.terminal import show
from tff.training.from_checkpoint import load_data, load_subject
from tff.training.wandb_logger import finish_loggers


def split_by_checkpoint(cfg: DictConfig) -> dict[str, DictConfig]:
    """The settings for each checkpoint, without references to what other processes do not know.

    Raises:
        ValueError: a checkpoint is given twice, or none in a list.
    """
    found = {}
    for ckpt in list_checkpoints(cfg.ckpt):
        one: Any = OmegaConf.merge(cfg, {"ckpt": ckpt})
        OmegaConf.resolve(one)
        found[str(ckpt)] = one
    return found


def analyze(
    device: str, settings: Mapping[str, DictConfig], command: str, on_error: OnError | None = None
) -> dict[str, float]:
    """Run the chosen analyses on each checkpoint, and write the report; all scalars.

    Args:
        device: for a subject that leaves the choice.
        settings: of analyze.py for each checkpoint, as of `split_by_checkpoint`.
        command: by which the same can be had again, for the report.
        on_error: makes a result of an error; None: the first error ends the run.
    """
    cfg = next(iter(settings.values()))
    chosen = {ckpt: instantiate(one.analysis, _convert_="all") for ckpt, one in settings.items()}
    if comparisons := select_comparisons(next(iter(chosen.values())), cfg.ckpt):
        results = {name: compare() for name, compare in comparisons.items()}
        measured: Mapping[str, object] = {}
    else:
        runs = {ckpt: _run(device, one, chosen[ckpt], on_error) for ckpt, one in settings.items()}
        results, measured = combine(runs), describe_protocol(runs)
    with fail_together():
        if get_rank() == 0:
            options: Any = OmegaConf.to_container(cfg)
            context = {
                "protocol": measured,
                "options": options | ({"ckpt": list(settings)} if len(settings) > 1 else {}),
                "versions": collect_versions(),
                "command": command,
            }
            page = write(results, Path(cfg.out) / "report", context)
            loggers = instantiate(cfg.logger, _convert_="all").values()
            one_checkpoint = cfg.ckpt is not None and len(settings) == 1
            fingerprint = str(measured["weights"]) if one_checkpoint else None
            try:
                for one in loggers:
                    log_results(results, one, checkpoint=fingerprint, report=page.parent)
            finally:
                finish_loggers(loggers)
            show(results, page)
    return {f"{a}/{s}": float(v) for a, r in results.items() for s, v in r.scalars.items()}


def _run(
    device: str, cfg: Any, analyses: Mapping[str, Analysis], on_error: OnError | None
) -> Analyzed:
    """The answers to all that is asked of one checkpoint."""
    make = instantiate(cfg.subject)
    subject = load_subject(
        cfg.ckpt,
        partial(make, device=device) if cfg.subject.device == "auto" else make,
        _make_data(cfg.data, cfg.ckpt),
        _make_data(cfg.discovery, cfg.ckpt),
        passes=cfg.passes,
        detector=cfg.get("detector"),
        images=cfg.get("images"),
    )
    return Analyzed(subject, analyses, run(analyses, subject, on_error))


def _make_data(node: DictConfig, ckpt: str | None) -> Callable[[], Data] | None:
    """Makes the data of a config group; None for those of the checkpoint, which is read once."""
    if node == {"_target_": f"{load_data.__module__}.{load_data.__name__}", "ckpt": ckpt}:
        return None
    return partial(instantiate, node)


log = logging.getLogger(__name__)
#: Groups in which the analysis follows the training.
FOLLOWED = ("ablation", "relevance", "trainer")
#: What the settings of the training are called in these groups.
AS_TRAINED = "as_trained"


def prepare_analysis(cfg: DictConfig) -> dict[str, DictConfig]:
    """Settings of the analysis that follows a training, by checkpoint; empty if none follows.

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
    if not is_analysis_wanted(cfg.analyze) or not is_rank_zero():
        return {}
    options = list(cfg.analyze_options)
    try:
        return split_by_checkpoint(compose("analyze", [*_given(cfg), *options]))
    except HydraException as error:
        raise ValueError(f"analyze_options={options}: {error}") from None


def analyze_best(
    out: Path, settings: Mapping[str, DictConfig], options: Iterable[str]
) -> dict[str, float]:
    """Analyse `checkpoints/best.ckpt` of a run on all its processes; the report goes to its folder.

    Args:
        out: folder of the run.
        settings: as of `prepare_analysis`; those of the first process count.
        options: `analyze_options`, for the command in the report.

    Returns:
        All scalars of the report; none where the run has left no such checkpoint.
    """
    best = out / "checkpoints" / "best.ckpt"
    if not broadcast(best.is_file()):
        log.warning("not analysed: %s was not written", best)
        return {}
    settings = broadcast(settings)
    trainer = next(iter(settings.values())).trainer
    # A training that has learned too little is part of a sweep all the same.
    return launch(trainer, analyze, settings, _command(best, options), report_unanswered)


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
