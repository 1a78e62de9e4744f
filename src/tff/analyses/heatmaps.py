"""Heat maps of single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.image_selection import Selection, caption, check_options, select_images
from tff.analyses.engine.subject import Subject
from tff.plots import image_grids
from tff.relevance.patch import positive_heat
from tff.types import Pixels, Result

ABOUT_EXAMPLES = """
The first test images of each generator: photographs, and generated images with the detector's
probability of "generated". Below each generated image is its relevance map: bright pixels are those
that the decision rests on, found by layer-wise relevance propagation down to the pixels.
"""


@dataclass(frozen=True)
class Examples(Analysis):
    """A few images of each generator with their relevance maps.

    Args:
        images: how many of each kind and generator.
    """

    sanity_checks: ClassVar = "files"
    images: int = 6

    def answer(self, subject: Subject) -> Result:
        """One figure a generator, no tables."""
        result = Result("What the detector is shown", ABOUT_EXAMPLES)
        for generator, at in subject.generators():
            real, fake = (at[subject.labels[at] == label][: self.images] for label in (0, 1))
            rows = {
                "real": [(self._image(subject, row), "") for row in real],
                "generated": [],
                "relevance": [],
            }
            for row in fake:
                image = self._image(subject, row)
                pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
                explanation = subject.lrp.explain(pixels.to(subject.passes.device), pixels=True)
                p = float(explanation.logit.sigmoid())
                rows["generated"].append((image, f"P = {p:.2f}"))
                assert explanation.pixels is not None
                light = image_grids.normalize(positive_heat(explanation.pixels[0]))
                rows["relevance"].append((image_grids.colorize(light), ""))
            name = f"examples_{generator}"
            result.figures[name] = image_grids.image_grid(rows)
            result.captions[name] = f"Test images of {generator}" + (
                " (seen in training)." if generator in subject.seen else " (never seen)."
            )
        return result

    def _image(self, subject: Subject, row: int) -> NDArray[np.uint8]:
        image = subject.images.test[0, int(row)].image
        return np.asarray(image.permute(1, 2, 0), np.uint8)


ABOUT = """
Layer-wise relevance propagation from the logit down to the pixels. Bright pixels are those that
{what} rests on: positive relevance, summed over the colors, over the image in gray and alone. Each
map has its own scale, so that brightness cannot be compared between images. P is the probability of
"generated" that the detector gives.
"""
_SIDE = 512  # pixels of a side, more than a figure shows


@dataclass(frozen=True)
class Heatmaps(Analysis):
    """LRP heat maps of files, or of the test images that the detector mistakes or is surest about.

    Args:
        files: paths of images of any size.
        images: how many in one figure.
        blur: side in pixels of the median filter that takes single bright pixels away; odd, 1 for
            none (the paper's is 5).
        signed: also show relevance with its sign, in red and blue.

    Raises:
        ValueError: an option has an impossible value.
    """

    sanity_checks: ClassVar = "files"
    files: Sequence[str] = ()
    images: int = 4
    blur: int = 1
    signed: bool = False

    def __post_init__(self) -> None:
        check_options("heatmaps", self.files, self.images)
        if self.blur < 1 or self.blur % 2 == 0:
            raise ValueError(f"analysis.heatmaps.blur={self.blur}: must be odd, 1 for none")

    def answer(self, subject: Subject) -> Result:
        """Table `heatmaps`, a row an image, and a figure for each choice of images."""
        decides = subject.lrp.real_sign > 0
        what = "the decision (real or generated)" if decides else 'the answer "generated"'
        result = Result("What single images were judged by", ABOUT.format(what=what))
        table: list[dict[str, Any]] = []
        for selection in select_images(subject, self.files, self.images):
            name = f"heatmaps_{selection.name}"
            rows, facts = self._maps(subject, selection)
            table += facts
            result.figures[name] = image_grids.image_grid(rows if facts else {})
            result.captions[name] = selection.about + ("" if facts else " There are none.")
        result.tables = {
            "heatmaps": pd.DataFrame(table, columns=["chosen", "path", "image", "p", "logit"])
        }
        return result

    def _maps(
        self, subject: Subject, selection: Selection
    ) -> tuple[dict[str, list[tuple[Pixels, str]]], list[dict[str, Any]]]:
        """The rows of a figure and of the table."""
        lines = ["image", "over the image", "alone", "with its sign"][: 4 if self.signed else 3]
        rows: dict[str, list[tuple[Pixels, str]]] = {line: [] for line in lines}
        facts = []
        for path, image, kind in selection:
            logit, relevance = explain_pixels(subject, image)
            p = 1 / (1 + np.exp(-logit))
            shown = image_grids.shrink_image(np.asarray(image.permute(1, 2, 0), np.uint8), _SIDE)
            values = image_grids.shrink(relevance, _SIDE)
            light = image_grids.normalize(values, self.blur)
            rows["image"].append((shown, caption(p, kind)))
            rows["over the image"].append((image_grids.overlay(shown, light), ""))
            rows["alone"].append(
                (image_grids.colorize(light), "" if light.any() else "nothing positive")
            )
            if self.signed:
                rows["with its sign"].append((image_grids.colorize_signed(values), ""))
            facts.append(
                {"chosen": selection.name, "path": path, "image": kind, "p": p, "logit": logit}
            )
        return rows, facts


def explain_pixels(subject: Subject, image: Tensor) -> tuple[float, image_grids.Map]:
    """The logit of one image (3, H, W) uint8, and the relevance of its pixels (H, W), with sign.

    Of an image that the detector calls real, the relevance speaks for `real`, unless
    `relevance.real_sign` is `paper`.
    """
    pixels = image[None].to(subject.passes.device).float() / 255
    found = subject.lrp.explain(pixels, pixels=True)
    assert found.pixels is not None
    logit = float(found.logit)
    # Relevance is linear in what is laid on the logit, so that the sign may come afterwards.
    sign = subject.lrp.real_sign if logit < 0 else 1.0
    relevance = sign * found.pixels[0].sum(0).double()
    return logit, np.asarray(torch.nan_to_num(relevance).cpu().numpy())
