"""What single images were judged by, as class activation maps see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from tff.analyses.activation_maps import METHODS, ActivationMaps
from tff.analyses.base import Analysis
from tff.analyses.selected import Selection, require, said, selections
from tff.analyses.subject import Subject
from tff.detectors.feature_maps import beside_relu
from tff.plots import image_grids
from tff.types import Result

ABOUT = """
Class activation maps, by the package grad-cam: which places of the feature map {layer} speak for
{what}. They are coarse, since a feature map has few places, and they show where evidence is, not
what it is made of. Guided Grad-CAM multiplies Grad-CAM with the gradient of single pixels. Each map
has its own scale. P is the probability of "generated" that the detector gives.
"""
_SIDE = 512  # pixels of a side, more than a figure shows


@dataclass(frozen=True)
class CAMs(Analysis):
    """Class activation maps of files, or of images that the detector mistakes or is surest about.

    Args:
        methods: some of `METHODS`.
        layer: name of a module of the network; None takes the last feature map.
        files: paths of images of any size.
        images: how many in one figure.

    Raises:
        ValueError: an option has an impossible value.
    """

    rests_on_detection: ClassVar[bool] = False
    methods: Sequence[str] = ("gradcam", "guided_gradcam")
    layer: str | None = None
    files: Sequence[str] = ()
    image_grids: int = 4

    def __post_init__(self) -> None:
        require("cams", self.files, self.images)
        unknown = [method for method in self.methods if method not in METHODS]
        if isinstance(self.methods, str) or unknown or not self.methods:
            raise ValueError(
                f"analysis.cams.methods={self.methods}: expected a list of {', '.join(METHODS)}"
            )

    def answer(self, subject: Subject) -> Result:
        """Table `cams`, a row an image, and a figure for each choice of images."""
        chosen = selections(subject, self.files, self.images)
        maps = ActivationMaps(subject.detector, self.layer, subject.lrp.real_sign)
        result = Result("Class activation maps")
        table: list[dict[str, Any]] = []
        for selection in chosen:
            name = f"cams_{selection.name}"
            rows, facts = self._maps(subject, maps, selection)
            table += facts
            result.figures[name] = image_grids.image_grid(rows if facts else {})
            result.captions[name] = selection.about + ("" if facts else " There are none.")
        decides = subject.lrp.real_sign > 0
        what = "the decision (real or generated)" if decides else 'the answer "generated"'
        result.about = ABOUT.format(layer=maps.layer or "(none yet)", what=what)
        columns = ["chosen", "path", "image", "layer", "p", "logit"]
        result.tables = {"cams": pd.DataFrame(table, columns=columns)}
        if "guided_gradcam" in self.methods and (other := beside_relu(subject.detector.network)):
            result.warnings.append(
                "Guided backpropagation changes nn.ReLU only; this network has "
                f"{', '.join(other)}, through which its gradient is the plain one."
            )
        return result

    def _maps(
        self, subject: Subject, maps: ActivationMaps, selection: Selection
    ) -> tuple[dict[str, list[tuple[image_grids.Pixels, str]]], list[dict[str, Any]]]:
        """The rows of a figure and of the table."""
        rows: dict[str, list[tuple[image_grids.Pixels, str]]] = {
            line: [] for line in ("image", *(METHODS[method] for method in self.methods))
        }
        facts = []
        for path, image, kind in selection:
            pixels = image[None].to(subject.passes.device).float() / 255
            logit, found = maps(pixels, self.methods, path)
            p = 1 / (1 + np.exp(-logit))
            shown = image_grids.small_image(np.asarray(image.permute(1, 2, 0), np.uint8), _SIDE)
            rows["image"].append((shown, said(p, kind)))
            for method, values in found.items():
                light = image_grids.brightness(image_grids.small(values, _SIDE))
                fine = method == "guided_gradcam"
                picture = image_grids.bare(light) if fine else image_grids.overlay(shown, light)
                rows[METHODS[method]].append((picture, "" if light.any() else "nothing positive"))
            facts.append(
                {"chosen": selection.name, "path": path, "image": kind, "layer": maps.layer}
                | {"p": p, "logit": logit}
            )
        return rows, facts
