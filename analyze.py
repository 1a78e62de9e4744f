"""Discover the transferable forensic features of a detector. Start with --help."""

import shlex
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from tff.command_line import quoted, readable_errors


@hydra.main(config_path="conf", config_name="analyze", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the chosen analyses on a checkpoint and write the report."""
    # Imported here, so that a mistyped option is told within a second.
    from hydra.utils import instantiate

    from tff.analyses.base import run
    from tff.data.splits import Splits
    from tff.detectors.checkpoint import load
    from tff.report.loggers import log
    from tff.report.page import write
    from tff.report.terminal import show
    from tff.report.versions import versions
    from tff.training.loggers import finish
    from tff.training.restore import fingerprint

    with readable_errors():
        if cfg.ckpt is None:  # for analyses of the files alone
            detector, weights = None, "none"
            images = instantiate(cfg.data).everything()
        else:
            detector, weights = load(cfg.ckpt, cfg.get("detector")), fingerprint(cfg.ckpt)
            images = Splits(instantiate(cfg.discovery).discovery(), instantiate(cfg.data).test())
        subject = instantiate(cfg.subject)(detector, images.limited(cfg.images), weights=weights)
        results = run(instantiate(cfg.analysis, _convert_="all"), subject)
        context = {
            "checkpoint": f"{cfg.ckpt} ({weights})",
            "protocol": subject.describe(),
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
