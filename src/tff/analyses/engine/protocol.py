"""Evaluation protocol: threshold, scores and view of the images, as in a publication."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tff.data.datamodule import Splits
from tff.data.dataset import CROPS, MATCHED_QUALITY, View
from tff.options import checked, whole
from tff.report.results import TRAINED_IMAGES
from tff.statistics.detection import ThresholdRule, sigmoid
from tff.types import Floats


@dataclass(frozen=True)
@checked("report.protocol")
class Protocol:
    """How logits become scores and decisions, and the view of the images that this requires.

    Args:
        name: in tables and messages.
        threshold: probability above which an image is called generated: `half` (0.5), `validation`
            (best on the validation images of the seen generator) or `oracle` (best on the test
            images themselves).
        scores: average precision is computed from `logits`, or from `probabilities` in float32,
            to which thresholds then apply too. These saturate and have ties, as in published
            evaluations.
        crop: required crop of the test images; None: any.
        resize: required length of the shorter side, or `none` for images that are not resized;
            None: any.
    """

    name: str = "tff"
    threshold: ThresholdRule = "half"
    scores: Literal["logits", "probabilities"] = "logits"
    crop: Annotated[str, CROPS] | None = None
    resize: Literal["none"] | Annotated[int, whole(1)] | None = None

    def probability(self, logits: Floats) -> Floats:
        """Probability of "generated" from logits (...,); thresholds apply to it."""
        exact = sigmoid(logits)
        if self.scores == "logits":
            return exact
        saturated: Floats = exact.astype("float32").astype("float64")
        return saturated

    def score(self, logits: Floats) -> Floats:
        """Scores for average precision from logits (...,)."""
        return logits if self.scores == "logits" else self.probability(logits)

    def check(self, view: View) -> None:
        """Raise ValueError, which names the option to pass, if the view does not fit."""
        for option, required, given in (
            ("crop", self.crop, view.crop),
            ("resize", self.resize, view.resize or "none"),
        ):
            if required is not None and required != given:
                value = "null" if (option, required) == ("resize", "none") else required
                raise ValueError(
                    f"report/protocol={self.name} needs test images with data.{option}={value}, "
                    f"not {given}: run analyze.py with that option"
                )


def describe_view(images: Splits) -> dict[str, object]:
    """Crop, resize and compression of the test images, as columns of tables.

    One more column says so if images are included that served another purpose.
    """
    test = images.test
    matched = {"match_format": f"JPEG {MATCHED_QUALITY}"} if test.match_format else {}
    used = {TRAINED_IMAGES: "included"} if images.discovery.alarms or test.alarms else {}
    return {"crop": test.view.crop, "resize": test.view.resize or "none", **matched, **used}
