"""Discover the transferable forensic features of a detector. Start with --help."""

import shlex
import sys

import hydra
from omegaconf import DictConfig

from tff.cli.run_folder import resume, share_folder
from tff.errors import quote_paths, readable_errors


@hydra.main(config_path="conf", config_name="analyze", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the chosen analyses on a checkpoint, or on several, and write the report."""
    # Imported here, so that a mistyped option is told within a second.
    from tff.cli.analyze import analyze, split_by_checkpoint
    from tff.cli.launch import launch, manage_processes

    with readable_errors(), manage_processes():
        command = shlex.join(["python", "analyze.py", *sys.argv[1:]])
        launch(cfg.trainer, analyze, split_by_checkpoint(cfg), command)


if __name__ == "__main__":
    sys.argv[1:] = resume(share_folder(quote_paths(sys.argv[1:]), "analyze"), script="analyze")
    main()
