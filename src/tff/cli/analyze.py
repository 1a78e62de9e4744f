"""Runs of analyze.py, and the analysis that follows a training."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
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
from tff.cli.configuration import prepare
from tff.cli.launch import launch
from tff.cli.run_folder import is_analysis_wanted, is_rank_zero
from tff.command_line import quote_paths
from tff.comparisons.checkpoints import Analyzed, combine, describe_protocol, list_checkpoints
from tff.comparisons.comparison import select_comparisons
from tff.distributed import broadcast, fail_together, get_rank
from tff.report.loggers import log_results
from tff.report.page import collect_versions, write
from tff.report.terminal import show
from tff.training.from_checkpoint import load_subject
from tff.training.wandb_logger import finish_loggers

log = logging.getLogger(__name__)
#: Config groups that the analysis after a training takes over from it.
FOLLOWED = ("ablation", "relevance", "trainer")
#: Name under which they are stored.
AS_TRAINED = "as_trained"


def split_by_checkpoint(cfg: DictConfig) -> dict[str, DictConfig]:
    """Settings for each checkpoint, resolved, since other processes cannot resolve them.

    Raises:
        ValueError: a checkpoint is given twice, or the list is empty.
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
    """Run the chosen analyses on each checkpoint, write the report, and return all scalars.

    Args:
        device: used with `subject.device=auto`.
        settings: for each checkpoint, from `split_by_checkpoint`.
        command: reproduces the run; printed in the report.
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
    """Results of all analyses for one checkpoint."""
    make = instantiate(cfg.subject)
    subject = load_subject(
        cfg.ckpt,
        partial(make, device=device) if cfg.subject.device == "auto" else make,
        partial(instantiate, cfg.data),
        partial(instantiate, cfg.discovery),
        passes=cfg.passes,
        detector=cfg.get("detector"),
        images=cfg.get("images"),
        trained_images=cfg.trained_images,
    )
    return Analyzed(subject, analyses, run(analyses, subject, on_error))


def prepare_analysis(cfg: DictConfig) -> dict[str, DictConfig]:
    """Settings of the analysis that follows a training, by checkpoint; empty if none follows.

    Composed before the training, so that a mistyped option fails early. The analysis does not take
    over the seed of the training, so all trainings are compared with the same random channels.

    Args:
        cfg: of the training.

    Returns:
        Empty on ranks other than 0: some were launched from a composed configuration and know
        neither the sweep nor the configuration folder.

    Raises:
        ValueError: `analyze` or `analyze_options` is invalid.
    """
    if not is_analysis_wanted(cfg.analyze) or not is_rank_zero():
        return {}
    options = list(cfg.analyze_options)
    try:
        settings = compose("analyze", [*_given(cfg), *quote_paths(options)])
        prepare(settings, "analyze")
        return split_by_checkpoint(settings)
    except (HydraException, ValueError) as error:
        raise ValueError(f"analyze_options={options}: {error}") from None


def analyze_best(
    out: Path, settings: Mapping[str, DictConfig], options: Iterable[str]
) -> dict[str, float]:
    """Analyze `checkpoints/best.ckpt` of a run on all its processes; the report goes to its folder.

    Args:
        out: folder of the run.
        settings: from `prepare_analysis` on rank 0.
        options: `analyze_options`, for the command in the report.

    Returns:
        All scalars of the report; empty if the run has no such checkpoint.
    """
    best = out / "checkpoints" / "best.ckpt"
    if not broadcast(best.is_file()):
        log.warning("not analysed: %s was not written", best)
        return {}
    settings = broadcast(settings)
    trainer = next(iter(settings.values())).trainer
    # A detector that has learned too little must not end a sweep.
    return launch(trainer, analyze, settings, _command(best, options), report_unanswered)


def _given(cfg: DictConfig) -> Iterator[str]:
    """Options for analyze.py that come from the training."""
    out = Path(cfg.out)
    for key, path in (("ckpt", out / "checkpoints" / "best.ckpt"), ("out", out)):
        quoted = str(path).replace('"', '\\"')
        yield f'{key}="{quoted}"'
    for group in FOLLOWED:
        if cfg.get(group):
            # Stored as a choice of its group, so that `analyze_options` can override it. The name
            # of the original choice would lose single values and those set by an experiment.
            node = OmegaConf.to_container(cfg[group])
            ConfigStore.instance().store(AS_TRAINED, node, group)
            yield f"{group}={AS_TRAINED}"
    if "wandb" in str(HydraConfig.get().runtime.choices.get("logger")):
        # In a folder beside the metrics of the training, which would be overwritten.
        yield from ("logger=wandb", "logger.csv.version=analyze")


def _command(best: Path, options: Iterable[str]) -> str:
    """Command that repeats the analysis, with the options that were typed."""
    typed = list(HydraConfig.get().overrides.task)
    follow = [o for o in typed if re.split(r"[.=]", o.lstrip("+~"))[0] in FOLLOWED]
    return shlex.join(["python", "analyze.py", f"ckpt={best}", *follow, *options])
