"""What the images look like, and where in them the detector sees its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from tff.analyses.base import Analysis
from tff.analyses.subject import Subject
from tff.plots import image_grids
from tff.relevance.patch import positive
from tff.types import Result

ABOUT = """
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

    rests_on_detection: ClassVar[bool] = False
    image_grids: int = 6

    def answer(self, subject: Subject) -> Result:
        """One figure a generator, no tables."""
        result = Result("What the detector is shown", ABOUT)
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
                light = image_grids.brightness(positive(explanation.pixels[0]))
                rows["relevance"].append((image_grids.bare(light), ""))
            name = f"examples_{generator}"
            result.figures[name] = image_grids.image_grid(rows)
            result.captions[name] = f"Test images of {generator}" + (
                " (seen in training)." if generator in subject.seen else " (never seen)."
            )
        return result

    def _image(self, subject: Subject, row: int) -> NDArray[np.uint8]:
        image = subject.images.test[0, int(row)].image
        return np.asarray(image.permute(1, 2, 0), np.uint8)
