"""Which single images are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.engine.subject import Subject
from tff.data.dataset import ROW_SEPARATOR, Images

_KINDS = {0: "real", 1: "generated"}


@dataclass(frozen=True)
class Selection:
    """Images to be shown together.

    Attributes:
        name: of the figure.
        about: a sentence on what they are.
        images: seen as the test images are (cropped, resized, compressed).
    """

    name: str
    about: str
    images: Images

    def __iter__(self) -> Iterator[tuple[str, Tensor, str]]:
        """Of each image its path, its pixels (3, H, W) uint8, and what it is, if that is known."""
        for row in range(len(self.images)):
            path, kind = (self.images.manifest.at[row, c] for c in ("path", "kind"))
            yield str(path), self.images[0, row].image, str(kind)


def caption(p: float, kind: str) -> str:
    """The line below an image: what the detector says, and what the image is."""
    return f"P = {p:.2f}" + (f", {kind}" if kind else "")


def select_images(subject: Subject, files: Sequence[str], images: int) -> list[Selection]:
    """The files, or else the test images that the detector mistakes most, and is surest about.

    Args:
        files: paths of images of any size; rows of a Parquet file as in a manifest.
        images: how many in one figure, at least 1.

    Raises:
        FileNotFoundError: there is no such file; the message names it.
    """
    test = subject.images.test
    if files:
        paths = [str(Path(file).expanduser()) for file in files]
        for path in paths:
            if not Path(path.rpartition(ROW_SEPARATOR)[0] or path).is_file():
                raise FileNotFoundError(f"image {path}: no such file")
        table = pd.DataFrame({"path": paths, "label": -1, "generator": "", "kind": ""})
        parts = [table[i : i + images].reset_index(drop=True) for i in range(0, len(table), images)]
        names = ["files"] if len(parts) == 1 else [f"files_{i}" for i in range(1, len(parts) + 1)]
        about = "The images asked for."
        return [
            Selection(name, about, replace(test, manifest=part))
            for name, part in zip(names, parts, strict=True)
        ]
    logits, labels = subject.evaluate().logits, subject.labels
    right = np.where(labels == 1, logits, -logits)  # positive where the detector is right
    order = np.argsort(right, kind="stable")
    mistakes = [row for row in order if right[row] < 0][:images]
    # Of each kind half, since a detector is often surer about one of them.
    sure = [row for row in order[::-1] if right[row] > 0]
    fake, real = ([row for row in sure if labels[row] == label] for label in (1, 0))
    surest = fake[: images - images // 2] + real[: images // 2]
    known = test.manifest.assign(kind=test.manifest["label"].map(_KINDS))
    return [
        Selection(name, about, replace(test, manifest=known.iloc[rows].reset_index(drop=True)))
        for name, about, rows in (
            ("mistakes", "The test images about which the detector errs most.", mistakes),
            ("surest", "Test images about which it is right, and surest.", surest),
        )
    ]


def check_options(name: str, files: object, images: int) -> None:
    """Refuse options of the analysis `name` that mean nothing.

    Raises:
        ValueError: which, and what is expected.
    """
    if isinstance(files, str):
        raise ValueError(f"analysis.{name}.files={files}: expected a list, such as [{files}]")
    if images < 1:
        raise ValueError(f"analysis.{name}.images={images}: must be at least 1")
