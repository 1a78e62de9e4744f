"""Train a universal detector. Start with --help."""

import sys

import hydra
from omegaconf import DictConfig

from tff.cli.configuration import prepare
from tff.cli.run_folder import finished_result, lock_folder, prepare_arguments
from tff.errors import readable_errors, script_errors
from tff.startup import prepare_process


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    """Train the detector; the metric that a sweep maximizes."""
    with readable_errors(), lock_folder(cfg.out):
        if cfg.resume and (result := finished_result(cfg)):
            print(f"Already finished, with {cfg.optimized_metric} {result['objective']}: {cfg.out}")
            return result["objective"]
        prepare(cfg, "train")
        # Imported here, so that a mistyped option is reported within a second.
        from tff.cli.train import train

        return train(cfg)


if __name__ == "__main__":
    prepare_process()
    with script_errors():
        sys.argv[1:] = prepare_arguments("train", sys.argv[1:])
        main()
