"""Resuming a training: the checkpoint, whether it fits, and the same random numbers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from packaging.version import Version
from pytorch_lightning import Callback, LightningModule, Trainer

from tff.data.datamodule import Data
from tff.detectors.checkpoint import origin_of
from tff.detectors.safe_load import read
from tff.options import whole
from tff.training.restore import select_restorable


class SeedEachStep(Callback):
    """Seeds PyTorch before each training step from (seed, epoch, batch, rank).

    Dropout and stochastic depth then draw the same numbers whether or not the training was resumed
    before that step, and different ones on each rank.

    Args:
        seed: of the training, 0 or more.
    """

    def __init__(self, seed: int) -> None:
        whole(0).require("seed", seed)
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        entropy = [self.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


def fingerprint_images(trainer: Trainer) -> dict[str, Any] | None:
    """Count of the training images, and digest of their names, labels and generators in order."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, Data):
        return None
    table = data.manifest("train")
    # A folder may be copied to the disk of another machine; files keep their names.
    names = table["path"].astype(str).str.rsplit("/", n=1).str[-1]
    rows = pd.DataFrame({"name": names, "label": table["label"], "generator": table["generator"]})
    values = pd.util.hash_pandas_object(rows.astype(str), index=False).to_numpy()
    return {"count": len(rows), "digest": hashlib.sha256(values.tobytes()).hexdigest()[:16]}


def require_same_images(then: Mapping[str, Any] | None, trainer: Trainer) -> None:
    """Refuse training images that differ from those of a checkpoint.

    Args:
        then: fingerprint in the checkpoint; None: unknown.
        trainer: with the data of the resumed training.

    Raises:
        ValueError: the images differ.
    """
    now = fingerprint_images(trainer) if then else None
    if then and now and dict(then) != now:
        raise ValueError(
            f"the checkpoint was trained on {then['count']:,} images, and the {now['count']:,} "
            "training images of these options are different. Use the same data (data.root, "
            "data.generators, data.classes, data.limit, ...), or train anew in another folder"
        )


log = logging.getLogger(__name__)
#: Options that do not change the training. Images may be elsewhere: `require_same_images`.
MAY_DIFFER = {
    "detector.pretrained", "detector.head", "data.root", "data.photos", "data.cache",
    "data.workers", "data.pixels", "data.on_corrupt",
}  # fmt: skip


def find_newest(folder: Path) -> Path | None:
    """Checkpoint to resume from: `last.ckpt`, else the readable one with the most steps, or None.

    Checkpoints that cannot be used are logged as warnings.
    """
    last = folder / "last.ckpt"
    if last.exists() and _step(last) is not None:
        return last
    others = sorted(path for path in folder.glob("*.ckpt") if path != last)
    steps = {path: step for path in others if (step := _step(path)) is not None}
    if not steps:
        return None
    found = max(steps, key=lambda path: steps[path])
    log.warning("resuming from %s (step %d)", found, steps[found])
    return found


def _step(path: Path) -> int | None:
    try:
        return int(select_restorable(read(path), path)["global_step"])
    except (ValueError, OSError) as error:
        log.warning("cannot be resumed from: %s", error)
        return None


def require_resumable(path: Path, module: torch.nn.Module, origin: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another version, another detector or other options.

    Args:
        module: to be trained further.
        origin: options of detector and data now, as they go into checkpoints.

    Raises:
        FileNotFoundError, ValueError: says what was found and what was expected.
    """
    content = read(path)
    restorable = select_restorable(content, path)
    theirs = restorable["pytorch-lightning_version"]
    ours = version("pytorch-lightning")
    if Version(theirs).release[:2] > Version(ours).release[:2]:
        raise ValueError(
            f"checkpoint {path}: was written by pytorch-lightning {theirs}, and {ours} "
            "is installed; install the newer one to resume"
        )
    then, now = dict(_leaves(origin_of(content, path))), dict(_leaves(origin))
    differ = [k for k in now if k in then and then[k] != now[k] and k not in MAY_DIFFER]
    if differ:
        changes = "; ".join(f"{key}={then[key]} then, {now[key]} now" for key in differ[:5])
        raise ValueError(
            f"checkpoint {path}: was trained with other options: {changes}. Resume with the same "
            "ones, or train anew in another folder (hydra.run.dir=DIR)"
        )
    _require_same_shapes(restorable["state_dict"], module, path)


def _require_same_shapes(weights: Mapping[str, Any], module: torch.nn.Module, path: Path) -> None:
    mine = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in mine.keys() | found.keys() if mine.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"checkpoint {path}: is of another detector: {len(wrong)} of {len(mine)} tensors do "
            f"not fit; {name}: expected {mine.get(name, 'none')}, found {found.get(name, 'none')}. "
            "Name the detector that it was trained as (detector=...)"
        )


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
