"""Train a universal detector. Start with --help."""

import sys

import hydra
from omegaconf import DictConfig

from tff.cli.run_folder import finished_result, lock_folder, resume, share_folder
from tff.errors import quote_paths, readable_errors


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Fit the detector; the metric that a sweep maximises."""
    with readable_errors(), lock_folder(cfg.out):
        if cfg.resume and (done := finished_result(cfg)):
            print(f"Finished already, with {cfg.optimized_metric} {done['objective']}: {cfg.out}")
            return done["objective"]
        # Imported here, so that a mistyped option is told within a second.
        from tff.cli.train import train

        return train(cfg)


if __name__ == "__main__":
    sys.argv[1:] = resume(share_folder(quote_paths(sys.argv[1:]), "train"))
    main()
