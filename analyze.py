"""Discover the transferable forensic features of a detector. Start with --help."""

import shlex
import sys
from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from tff.command_line import quoted, readable_errors


@hydra.main(config_path="conf", config_name="analyze", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the chosen analyses on a checkpoint, or on several, and write the report."""
    # Imported here, so that a mistyped option is told within a second.
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from tff.analyses.base import run
    from tff.analyses.side_by_side import Run, listed, protocol, side_by_side
    from tff.report.loggers import log
    from tff.report.page import write
    from tff.report.terminal import show
    from tff.report.versions import versions
    from tff.training.loggers import finish
    from tff.training.subjects import subject_of

    with readable_errors():
        runs = {}
        for ckpt in listed(cfg.ckpt):
            one = OmegaConf.merge(cfg, {"ckpt": ckpt})
            data, discovery = partial(instantiate, one.data), partial(instantiate, one.discovery)
            options = {key: one.get(key) for key in ("passes", "detector", "images")}
            options["files"] = HydraConfig.get().runtime.choices.data != "checkpoint"
            subject = subject_of(ckpt, instantiate(one.subject), data, discovery, **options)
            analyses = instantiate(one.analysis, _convert_="all")
            runs[str(ckpt)] = Run(subject, analyses, run(analyses, subject))
        results = side_by_side(runs)
        context = {
            "protocol": protocol(runs),
            "options": OmegaConf.to_container(cfg, resolve=True),
            "versions": versions(),
            "command": shlex.join(["python", "analyze.py", *sys.argv[1:]]),
        }
        page = write(results, Path(cfg.out) / "report", context)
        loggers = instantiate(cfg.logger, _convert_="all").values()
        try:
            for logger in loggers:
                log(results, logger)
        finally:
            finish(loggers)
        show(results, page)


if __name__ == "__main__":
    sys.argv[1:] = quoted(sys.argv[1:])
    main()
