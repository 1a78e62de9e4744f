"""Relevance maps of single images: of given files, mistakes, or examples of each generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.image_selection import (
    PATHS,
    SIDE,
    describe_evidence,
    select_images,
    show_images,
    to_picture,
)
from tff.analyses.engine.subject import Subject
from tff.options import Allowed, checked, whole
from tff.plots.image_grids import (
    Picture,
    colorize,
    colorize_signed,
    image_grid,
    normalize,
    overlay,
    shrink,
)
from tff.types import Floats, Pixels, Result

ABOUT = """
Layer-wise relevance propagation from the logit down to the pixels. Bright pixels are those on which
{evidence} rests: positive relevance, summed over the colors, over the image in gray and alone. Each
map has its own scale, so brightness cannot be compared between images. P is the probability of
"generated" that the detector gives.
"""
_ODD = Allowed(lambda n: whole(least=1).holds(n) and n % 2 == 1, "an odd number, 1 for none")


@dataclass(frozen=True)
@checked("analysis.heatmaps")
class Heatmaps(Analysis):
    """LRP heat maps of files, or of the test images that the detector mistakes or is surest of.

    Args:
        files: paths of images of any size.
        images: number of images in one figure.
        blur: side in pixels of a median filter, which removes single bright pixels; odd, 1 for none
            (the paper uses 5).
        signed: also show relevance with its sign, in red and blue.
    """

    sanity_checks: ClassVar = "files"
    files: Annotated[Sequence[str], PATHS] = ()
    images: Annotated[int, whole(least=1)] = 4
    blur: Annotated[int, _ODD] = 1
    signed: bool = False

    def answer(self, subject: Subject) -> Result:
        """Table `heatmaps`, one row per image, and a figure for each selection of images."""
        maps = TurnedMaps(subject)

        def explain(_path: str, image: Tensor, small: Pixels) -> tuple[float, dict[str, Picture]]:
            logit, relevance = maps.explain(image)
            values = shrink(relevance, SIDE)
            light = normalize(values, self.blur)
            pictures = {
                "over the image": (overlay(small, light), ""),
                "alone": (colorize(light), "" if light.any() else "nothing positive"),
            }
            if self.signed:
                pictures["with its sign"] = colorize_signed(values), ""
            return logit, pictures

        about = ABOUT.format(evidence=describe_evidence(subject))
        result = Result("What single images were judged by", about)
        show_images(result, "heatmaps", select_images(subject, self.files, self.images), explain)
        result.tables["heatmaps"][["turns", "stays"]] = np.reshape(maps.agreement, (-1, 2))
        maps.report(result, "heatmaps")
        return result


def explain_pixels(subject: Subject, image: Tensor) -> tuple[float, Floats]:
    """The logit of an image (3, H, W) uint8, and its signed relevance, summed over colors (H, W).

    The relevance of an image that the detector calls real speaks for `real`, unless
    `relevance.real_sign` is `paper`.
    """
    pixels = image[None].to(subject.passes.device).float() / 255
    found = subject.lrp.explain(pixels, pixels=True)
    assert found.pixels is not None
    logit = float(found.logit)
    # Relevance is linear in its value at the logit, so the sign can be applied afterwards.
    sign = subject.lrp.real_sign if logit < 0 else 1.0
    relevance = sign * found.pixels[0].sum(0).double()
    return logit, np.asarray(torch.nan_to_num(relevance).cpu().numpy())


def correlate(first: Floats, second: Floats) -> float:
    """Correlation over the pixels of the positive parts of two maps; NaN if one is constant."""
    a, b = (np.ravel(values.clip(min=0)) for values in (first, second))
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")


class TurnedMaps:
    """Relevance maps, and whether they show the images or the geometry of the network.

    Each image is explained a second time, turned by 180 degrees. A map of what is in the image
    turns with it. A map that stays in place is that of the network: convolutions with a stride read
    some places more than others, on images of even size most of all the upper left.

    Attributes:
        agreement: for each image the correlation of its map with that of the turned image, turned
            back (`turns`), and as it is (`stays`).
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.agreement: list[tuple[float, float]] = []

    def explain(self, image: Tensor) -> tuple[float, Floats]:
        """The logit of an image and its map, see `explain_pixels`."""
        logit, relevance = explain_pixels(self._subject, image)
        _, turned = explain_pixels(self._subject, image.flip(-2, -1))
        back = turned[::-1, ::-1]
        self.agreement.append((correlate(relevance, back), correlate(relevance, turned)))
        return logit, relevance

    def report(self, result: Result, name: str) -> None:
        """Say beside the maps how they turn; a warning if they show the network.

        Args:
            result: of the analysis; the scalars `NAME_turns` and `NAME_stays` are added.
            name: of the analysis.
        """
        pairs = [pair for pair in self.agreement if np.isfinite(pair).all()]
        if not pairs:
            return
        turns, stays = (float(value) for value in np.mean(pairs, axis=0))
        result.scalars |= {f"{name}_turns": turns, f"{name}_stays": stays}
        result.about += (
            "\nMaps of what is in an image turn with it. With the map of the image turned by 180 "
            f"degrees, a map correlates by {turns:.2f} if it is turned back, and by {stays:.2f} if "
            f"it is not (means of {len(pairs)} images).\n"
        )
        if stays >= turns:
            result.warnings.append(
                "The relevance maps show the geometry of the network rather than the images: when "
                "an image is turned by 180 degrees, its map stays in place (correlation "
                f"{stays:.2f}) instead of turning with it ({turns:.2f}). Take no bright place for "
                "a trace: either the evidence lies all over the image, or the network reads some "
                "places more than others."
            )


ABOUT_EXAMPLES = """
The first test images of each generator: real ones, and generated ones with the detector's
probability of "generated" (P). Below each generated image is its relevance map: bright pixels are
those on which {evidence} rests, found by layer-wise relevance propagation down to the pixels.
"""


@dataclass(frozen=True)
@checked("analysis.examples")
class Examples(Analysis):
    """A few images of each generator with their relevance maps.

    Args:
        images: number of images of each kind and generator.
    """

    sanity_checks: ClassVar = "files"
    images: Annotated[int, whole(least=1)] = 6

    def answer(self, subject: Subject) -> Result:
        """One figure per generator, no tables."""
        test = subject.images.test
        about = ABOUT_EXAMPLES.format(evidence=describe_evidence(subject))
        result, maps = Result("What the detector sees", about), TurnedMaps(subject)
        for generator, rows in subject.generators():
            real, fake = (rows[subject.labels[rows] == label][: self.images] for label in (0, 1))
            grid: dict[str, list[Picture]] = {
                "real": [(to_picture(test[0, int(row)].image), "") for row in real],
                "generated": [],
                "relevance": [],
            }
            for row in fake:
                image = test[0, int(row)].image
                logit, relevance = maps.explain(image)
                p = 1 / (1 + np.exp(-logit))
                grid["generated"].append((to_picture(image), f"P = {p:.2f}"))
                light = normalize(relevance)
                grid["relevance"].append((colorize(light), ""))
            name = f"examples_{generator}"
            result.figures[name] = image_grid(grid)
            known = "seen in training" if generator in subject.seen else "never seen"
            result.captions[name] = f"Test images of {generator} ({known})."
        maps.report(result, "examples")
        return result
