"""Discover the transferable forensic features of a detector. Start with --help."""

import shlex
import sys

import hydra
from omegaconf import DictConfig

from tff.cli.configuration import prepare
from tff.cli.run_folder import prepare_arguments, stop_on_signals
from tff.errors import readable_errors, script_errors
from tff.startup import prepare_process


@hydra.main(config_path="conf", config_name="analyze", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the chosen analyses on a checkpoint, or on several, and write the report."""
    with readable_errors(), stop_on_signals(cfg.out):
        prepare(cfg, "analyze")
        # Imported here, so that a mistyped option is reported within a second.
        from tff.cli.analyze import analyze, split_by_checkpoint
        from tff.cli.launch import launch, manage_processes

        with manage_processes():
            command = shlex.join(["python", "analyze.py", *sys.argv[1:]])
            launch(cfg.trainer, analyze, split_by_checkpoint(cfg), command)


if __name__ == "__main__":
    prepare_process()
    with script_errors():
        sys.argv[1:] = prepare_arguments("analyze", sys.argv[1:])
        main()
