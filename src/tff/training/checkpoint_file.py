"""Checkpoints that are whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from tff.atomic import whole
from tff.detectors.safe_load import read


class CheckpointFile(TorchCheckpointIO):
    """Write beside, see that it is on the disk, then rename.

    Lightning writes to the folder of temporary files and moves; between two file systems that is a
    copy, which may be cut short under the final name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write it beside `path`, then rename.

        Raises:
            OSError: the disk is full or the like; the former checkpoint is as it was.
        """
        # Opened here: the errors of torch's own writer do not say what went wrong.
        with whole(Path(path), lasting=True) as part, part.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Tensors (on the CPU) and plain containers only, whatever is asked for.

        Raises:
            FileNotFoundError, ValueError: as `tff.detectors.safe_load.read`.
        """
        return read(path)
