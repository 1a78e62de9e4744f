"""Single images for pictures: their selection, figures and table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from tff.analyses.engine.subject import Subject
from tff.data.dataset import ROW_SEPARATOR, Images
from tff.options import PATH, each
from tff.plots.image_grids import Picture, image_grid, shrink_image
from tff.types import Pixels, Result

#: Allowed values of the option `files`.
PATHS = each(PATH)
SIDE = 512  # pixels of the longer side of pictures; a figure shows no more
_KINDS = {0: "real", 1: "generated"}
#: Path, pixels (3, H, W) uint8 and the small picture (h, w, 3) of an image -> its logit, and the
#: pictures that explain it, by the label of their row in the figure.
Explain = Callable[[str, Tensor, Pixels], tuple[float, Mapping[str, Picture]]]


@dataclass(frozen=True)
class Selection:
    """Images shown together in one figure.

    Attributes:
        name: of the figure.
        about: caption of the figure.
        images: cropped, resized and compressed like the test images.
    """

    name: str
    about: str
    images: Images

    def __iter__(self) -> Iterator[tuple[str, Tensor, str]]:
        """Path, pixels (3, H, W) uint8 and kind of each image; the kind is empty if unknown."""
        for row in range(len(self.images)):
            path, kind = (self.images.manifest.at[row, c] for c in ("path", "kind"))
            yield str(path), self.images[0, row].image, str(kind)


def select_images(subject: Subject, files: Sequence[str], images: int) -> list[Selection]:
    """Given files, or else the test images with the worst mistakes and the surest successes.

    Args:
        files: paths of images of any size; rows of a Parquet file as in a manifest.
        images: number of images per figure.

    Raises:
        FileNotFoundError: no such file.
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
        about = "The given images."
        return [
            Selection(name, about, replace(test, manifest=part))
            for name, part in zip(names, parts, strict=True)
        ]
    logits, labels = subject.evaluate().logits, subject.labels
    right = np.where(labels == 1, logits, -logits)  # positive where the detector is right
    order = np.argsort(right, kind="stable")
    mistakes = order[right[order] < 0][:images]
    # Half of each kind, since a detector is often surer about one of them.
    sure = order[::-1][right[order[::-1]] > 0]
    fake, real = (sure[labels[sure] == label] for label in (1, 0))
    surest = np.concatenate([fake[: images - images // 2], real[: images // 2]])
    known = test.manifest.assign(kind=test.manifest["label"].map(_KINDS))
    return [
        Selection(name, about, replace(test, manifest=known.iloc[rows].reset_index(drop=True)))
        for name, about, rows in (
            ("mistakes", "The test images on which the detector errs most.", mistakes),
            ("surest", "The test images that the detector gets right most surely.", surest),
        )
    ]


def show_images(
    result: Result, name: str, selections: Iterable[Selection], explain: Explain
) -> None:
    """Add a figure for each selection, and a table `name` with one row per image.

    Columns: `chosen` (the selection), `path`, `image` (real, generated, or empty if unknown), `p`
    (probability of "generated"), `logit`.
    """
    table: list[tuple[object, ...]] = []
    for selection in selections:
        rows: dict[str, list[Picture]] = {}
        for path, image, kind in selection:
            small = shrink_image(to_picture(image), SIDE)
            logit, found = explain(path, image, small)
            p = float(1 / (1 + np.exp(-logit)))
            seen = small, f"P = {p:.2f}" + (f", {kind}" if kind else "")
            for label, picture in {"image": seen, **found}.items():
                rows.setdefault(label, []).append(picture)
            table.append((selection.name, path, kind, p, logit))
        figure = f"{name}_{selection.name}"
        result.figures[figure] = image_grid(rows)
        result.captions[figure] = selection.about + ("" if rows else " There are none.")
    result.tables[name] = pd.DataFrame(table, columns=["chosen", "path", "image", "p", "logit"])


def to_picture(image: Tensor) -> Pixels:
    """(3, H, W) uint8 -> (H, W, 3)."""
    return np.asarray(image.permute(1, 2, 0), np.uint8)


def describe_evidence(subject: Subject) -> str:
    """The decision that maps of relevance or activation explain, by `relevance.real_sign`."""
    decides = subject.lrp.real_sign > 0
    return "the decision (real or generated)" if decides else 'the answer "generated"'
