"""How logits become numbers: threshold and scores, as one group of authors or another does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tff.data.datamodule import Splits
from tff.data.dataset import MATCHED_QUALITY, View
from tff.statistics.detection import ThresholdRule, sigmoid
from tff.types import Floats

Scores = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Protocol:
    """What tables depend on besides the images and the detector.

    Args:
        name: by which tables and messages call it.
        threshold: where "generated" begins: `half` (0.5), `validation` (chosen on the validation
            images of the seen generator) or `oracle` (chosen on the test images themselves).
        scores: what average precision is taken of: `logits`, or `probabilities`. These are float32
            then, for thresholds too: they saturate and make ties, as in published evaluations.
        crop: of the test images, which the pass must have had; None: any.
        resize: length of the shorter side, likewise; `none`: not resized.

    Raises:
        ValueError: an option has an unknown value.
    """

    name: str = "tff"
    threshold: ThresholdRule = "half"
    scores: Scores = "logits"
    crop: str | None = None
    resize: str | int | None = None

    def __post_init__(self) -> None:
        for option, value, known in (
            ("threshold", self.threshold, get_args(ThresholdRule)),
            ("scores", self.scores, get_args(Scores)),
        ):
            if value not in known:
                raise ValueError(
                    f"report.protocol.{option}={value}: expected {', '.join(map(str, known))}"
                )

    def probability(self, logits: Floats) -> Floats:
        """(...,) logits -> probability of "generated", which a threshold cuts."""
        exact = sigmoid(logits)
        if self.scores == "logits":
            return exact
        saturated: Floats = exact.astype("float32").astype("float64")
        return saturated

    def score(self, logits: Floats) -> Floats:
        """(...,) logits -> what average precision is taken of."""
        return logits if self.scores == "logits" else self.probability(logits)

    def check(self, view: View) -> None:
        """Refuse images that were seen otherwise than this protocol sees them.

        Raises:
            ValueError: crop or resize differ; the message says which options agree.
        """
        for option, wanted, found in (
            ("crop", self.crop, view.crop),
            ("resize", self.resize, view.resize or "none"),
        ):
            if wanted is not None and wanted != found:
                value = "null" if wanted == "none" and option == "resize" else wanted
                raise ValueError(
                    f"report/protocol={self.name} needs test images with data.{option}={value}, "
                    f"not {found}: run analyze.py with that option"
                )


def describe_view(images: Splits) -> dict[str, object]:
    """How the test images are seen."""
    test = images.test
    matched = {"match_format": f"JPEG {MATCHED_QUALITY}"} if test.match_format else {}
    return {"crop": test.view.crop, "resize": test.view.resize or "none", **matched}
