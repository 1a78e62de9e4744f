"""What is looked at: images, the passes over them, and what these found, each made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.kept import Kept
from tff.analyses.network import Network
from tff.analyses.options import Options
from tff.analyses.passes import Passes
from tff.analyses.passfile import identity
from tff.analyses.records import Activity, Cue, Evaluation, Floats, Relevance, Rows
from tff.analyses.which import drawn, evenly, labels_of
from tff.data.datamodule import Splits
from tff.data.dataset import Images
from tff.detectors.detector import Detector
from tff.relevance.lrp import LRP
from tff.types import Channels


class TooFewImagesError(ValueError):
    """A statistic has no images to be computed from."""


def require_numbers(logits: Floats, images: Images, how: str) -> None:
    """Refuse logits that are NaN: no statistic of them means anything.

    Raises:
        ValueError: with how many there are, and of which image.
    """
    if len(rows := np.flatnonzero(np.isnan(logits))):
        raise ValueError(
            f"the detector gives no number (NaN) for {len(rows)} of {len(logits)} images {how}, "
            f"such as {images.manifest['path'].iloc[rows[0]]}: its training has diverged, or its "
            "activations overflow"
        )


@dataclass(eq=False)
class Observed:
    """What does not depend on how channels are ranked; `Subject` is the whole.

    Attributes:
        images: on which channels are found, and on which they are tested.
        passes: how images are read.
        network: what there is to know of the detector without images.
        options: how it is looked at.
        protocol: how all this was measured, for the tables.
    """

    images: Splits
    passes: Passes | Kept
    network: Network
    options: Options
    protocol: dict[str, object]
    _done: dict[tuple[str, Cue | None], Evaluation] = field(default_factory=dict)
    _dropped: dict[object, dict[str, Floats]] = field(default_factory=dict)

    @property
    def channels(self) -> Channels:
        """The numbering of the detector's channels."""
        return self.network.channels

    @property
    def detector(self) -> Detector:
        """The private copy in eval mode."""
        return self.passes.detector

    @property
    def lrp(self) -> LRP:
        """The relevance method, on a copy of its own."""
        return self.passes.lrp

    @property
    def seed(self) -> int:
        """Of every random choice."""
        return self.options.seed

    @property
    def draws(self) -> int:
        """Resamples behind each interval."""
        return self.options.draws

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of the test images, 0 real, 1 generated."""
        return labels_of(self.images.test)

    @cached_property
    def relevance(self) -> dict[str, Relevance]:
        """FF-RS from `fake` and from `real` images, in one pass over the discovery images.

        Raises:
            TooFewImagesError: no generated image is detected with the confidence asked for.
        """
        confidence = self.options.confidence
        found = self.passes.relevance(self.images.discovery, confidence)
        if not found["fake"].images:
            raise TooFewImagesError(
                f"FF-RS: none of the generated images is detected with P >= {confidence}; "
                "train the detector longer, or lower subject.confidence"
            )
        return found

    @cached_property
    def activity(self) -> Activity:
        """What each channel does on the average discovery image, from one pass."""
        return self.passes.activity(self.images.discovery)

    def _evaluate(self, which: str, cue: Cue | None, channels: Tensor | None = None) -> Evaluation:
        """One pass over `test` or `discovery` images; with channels, their responses too."""
        images = getattr(self.images, which)
        if which == "discovery" and identity(images) == identity(self.images.test):
            return self._evaluate("test", cue, channels)
        done = self._done.get((which, cue))
        if done is None or (channels is not None and done.responses is None):
            sample = np.empty(0, np.int64) if channels is None else self.sample
            none = torch.empty(0, dtype=torch.int64)
            done = self.passes.evaluate(images, cue, none if channels is None else channels, sample)
            how = "as they are" if cue is None else f"without {getattr(cue, 'cue', 'the cue')}"
            require_numbers(done.logits, images, how)
            self._done[which, cue] = done
        return done

    def evaluate_dropped(
        self, choices: Mapping[str, Tensor], instead: Tensor | Images | None = None
    ) -> dict[str, Floats]:
        """Logits (N,) of the test images with each choice of channels dropped, in one reading.

        Kept for whoever asks for the same, unless something stands in place of the channels.
        """
        key = tuple((name, tuple(channels.tolist())) for name, channels in choices.items())
        if instead is None and key in self._dropped:
            return dict(self._dropped[key])
        found = self.passes.evaluate_dropped(self.images.test, choices, instead)
        for name, logits in found.items():
            require_numbers(logits, self.images.test, f"with channels dropped ({name})")
        if instead is None:
            self._dropped[key] = found
        return dict(found)

    @cached_property
    def sample(self) -> Rows:
        """(n,) test images of which the responses of all channels are kept."""
        return evenly(self.images.test, self.options.sample)

    def lenders(self) -> Images:
        """For each test image a discovery image that may lend its maps."""
        return drawn(self.images.discovery, len(self.images.test), self.seed)
