"""Train a universal detector. Start with --help."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from tff.command_line import quoted, readable_errors


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Fit the detector; the metric that a sweep maximises."""
    # Imported here, so that a mistyped option is told within a second.
    import pytorch_lightning as pl
    from hydra.utils import instantiate

    from tff.training.fit import fit, show
    from tff.training.interrupt import Interrupt
    from tff.training.loggers import finish

    with readable_errors():
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        origin = OmegaConf.to_container(cfg.origin, resolve=True)
        module = instantiate(cfg.module)(instantiate(cfg.detector), origin=origin)
        data = instantiate(cfg.data)
        # Plain containers, since OmegaConf would turn objects that are dataclasses into settings.
        callbacks, loggers = (instantiate(c, _convert_="all") for c in (cfg.callbacks, cfg.logger))
        trainer = instantiate(
            cfg.trainer,
            callbacks=[Interrupt(), *(callback for callback in callbacks.values() if callback)],
            logger=list(loggers.values()),
        )
        try:
            metrics = fit(trainer, module, data, cfg.ckpt)
        finally:
            finish(trainer.loggers)
        show(metrics, trainer, Path(cfg.out))
    return metrics.get(cfg.optimized_metric)


if __name__ == "__main__":
    sys.argv[1:] = quoted(sys.argv[1:])
    main()
