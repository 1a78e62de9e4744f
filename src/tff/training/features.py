"""Features of a frozen tower, computed once for each view of an image and kept on the disk.

A training of the head alone then reads a few hundred numbers in place of each image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from tff.analyses.engine.cache import digest, digest_network, identify
from tff.atomic import remove_abandoned, write_atomically
from tff.data.dataset import Images
from tff.data.loaders import EvaluationBatches, Keys, loader
from tff.detectors.detector import Detector
from tff.detectors.input_sizes import explain_size
from tff.detectors.weights import find_head
from tff.distributed import fail_together, get_rank, get_world_size
from tff.progress import track
from tff.types import Batch

log = logging.getLogger(__name__)
#: Images that are computed at a time, and such batches in a file; a killed run loses one at most.
BATCH = 32
BATCHES = 8


class Features(Dataset[Batch]):
    """Features in place of the pixels of images, with the same keys.

    Args:
        images: of a split, with augmentation.
        order: keys of the images of one view, in the order of the file.
        path: of a file with an array (views x images, D); it stays on the disk.
    """

    def __init__(self, images: Images, order: Keys, path: Path) -> None:
        keys = np.array([key[1:] for key in order])
        self._crops = int(keys[:, 1].max()) + 1
        self._places = np.argsort(keys[:, 0] * self._crops + keys[:, 1])
        self._labels = torch.from_numpy(images.manifest["label"].to_numpy(np.int64).copy())
        self._values = _open(path)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: tuple[int, ...]) -> Batch:
        """Features (D,) of one view of an image, with its label and row."""
        view, row, *number = key
        place = self._places[row * self._crops + (number[0] if number else 0)]
        values = self._values[view * len(self._places) + place]
        return Batch(torch.from_numpy(values.copy()), self._labels[row], torch.tensor(row))


class ComputeFeatures:
    """Computes the features of a split, or finds them where an earlier run has left them.

    Args:
        detector: all of which is frozen, except the layer that computes the logit.
        folder: of the files; all processes must see the same one.
        workers: processes that load images.
    """

    def __init__(self, detector: Detector, folder: Path, workers: int) -> None:
        self.detector, self.folder, self.workers = detector, folder, workers

    def __call__(self, split: str, images: Images, views: int) -> Dataset[Batch]:
        """Features of a split; all processes must call it.

        Args:
            split: name, for the progress.
            images: with augmentation.
            views: of each image; the view of an epoch has its number.
        """
        batches = EvaluationBatches(images, BATCH).batches
        order = [key for batch in batches for key in batch]
        path = self._name(images, views, split)
        todo = [
            [[(view, *key[1:]) for key in batch] for batch in batches[start : start + BATCHES]]
            for view in range(views)
            for start in range(0, len(batches), BATCHES)
        ]
        parts = [path.with_name(f"{path.stem}-{i}-of-{len(todo)}.npy") for i in range(len(todo))]
        with fail_together() as check:
            if not path.is_file():
                self._compute(images, dict(zip(parts, todo, strict=True)), split, check)
        with fail_together():
            if get_rank() == 0 and not path.is_file():
                _join(parts, path, views * len(order))
        return Features(images, order, path)

    def _name(self, images: Images, views: int, split: str) -> Path:
        """File of these features, by all that they depend on."""
        network = self.detector.network
        with _without_head(network):
            tower = digest_network(network, self.detector.mean, self.detector.std)
        # The parameters of a transform are in its text.
        drawn = {"views": views, "transform": repr(images.transform), **identify(images)}
        return self.folder / f"{split}-{digest([tower, drawn])[:24]}.npy"

    def _compute(
        self, images: Images, todo: dict[Path, list[Keys]], split: str, check: Any
    ) -> None:
        """Write this process's share of the parts that are missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.folder)
        own = list(todo)[get_rank() :: get_world_size()]
        missing = [part for part in own if not part.is_file()]
        if len(missing) < len(own):
            log.info("features of %s: %d of %d parts are there", split, len(own) - len(missing),
                     len(own))  # fmt: skip
        weight = next(self.detector.parameters())
        loaded = iter(loader(images, [b for p in missing for b in todo[p]], self.workers))
        for part in track(missing, f"features of {split}"):
            values = []
            for _ in todo[part]:
                image = next(loaded).image.to(weight.device, memory_format=torch.channels_last)
                with torch.no_grad(), explain_size(self.detector, image):
                    made = self.detector.features((image.float() / 255).to(weight.dtype))
                if made.ndim != 2:
                    raise ValueError(
                        f"data.views: the last layer of {type(self.detector.network).__name__} "
                        "gets maps, not one vector of features an image; leave the option out"
                    )
                values.append(made.float().cpu().numpy())
            with write_atomically(part) as path, path.open("wb") as file:
                np.save(file, np.concatenate(values))
            check()


@contextmanager
def _without_head(network: nn.Module) -> Iterator[None]:
    """The network without the layer that computes the logit."""
    name, head = find_head(network)
    network.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        network.set_submodule(name, head)


def _open(path: Path) -> Any:
    """The array in a file, left on the disk; one of Python objects is refused."""
    return np.lib.format.open_memmap(path, "r")


def _join(parts: list[Path], path: Path, rows: int) -> None:
    """Write one file with the rows of all parts, and remove these."""
    width = _open(parts[0]).shape[1]
    with write_atomically(path) as made:
        whole: Any = np.lib.format.open_memmap(made, "w+", np.float32, (rows, width))
        start = 0
        for part in parts:
            values = _open(part)
            whole[start : start + len(values)] = values
            start += len(values)
        whole.flush()
        del whole
    for part in parts:
        part.unlink()
