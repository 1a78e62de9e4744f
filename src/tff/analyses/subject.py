"""What is analysed: a frozen detector, images, a relevance method, and the passes they share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.passes import Cue, Evaluation, Floats, Passes, Relevance
from tff.data.images import MATCHED_QUALITY
from tff.data.splits import Splits
from tff.detectors.base import Detector
from tff.relevance.lrp import LRP
from tff.types import Channels


class TooFewImagesError(ValueError):
    """A statistic has no images to be computed from."""


@dataclass(eq=False)
class Subject:
    """Made by `Subject.of`; analyses read from it, and share its passes over the images.

    Attributes:
        images: on which channels are found, and on which they are tested.
        lrp: the relevance method, on a copy of its own.
        k: how many top channels are taken for the transferable forensic features.
        confidence: FF-RS uses generated images with P(generated) of at least this, and real ones
            with at most one minus this.
        seed: of every random choice in the analyses.
        draws: resamples behind each interval.
        protocol: how all this was measured, for the tables.
    """

    images: Splits
    lrp: LRP
    passes: Passes
    k: int
    confidence: float
    seed: int
    draws: int
    protocol: dict[str, object]
    _done: dict[Cue | None, Evaluation] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        detector: Detector | None,
        images: Splits,
        relevance: Callable[[Detector], LRP] = LRP,
        *,
        k: int | None = None,
        confidence: float = 0.9,
        seed: int = 0,
        draws: int = 1000,
        batch_size: int = 32,
        workers: int = 0,
        device: str = "auto",
        weights: str = "",
    ) -> Subject:
        """Take private copies, so that nothing done here can reach a detector in training.

        Args:
            detector: None for analyses of the files alone.
            k: None takes the paper's share of the detector's channels.
            device: `auto` takes a GPU where there is one.
            weights: names the detector's weights in the tables.

        Raises:
            ValueError: k is not between 1 and the number of channels.
        """
        if detector is None:
            protocol = _seen(images) | {"seed": seed}
            return cls(images, _NONE, _NONE, 0, confidence, seed, draws, protocol)
        gpu = device == "auto" and torch.cuda.is_available()
        place = torch.device("cuda" if gpu else "cpu" if device == "auto" else device)
        private = copy.deepcopy(detector).eval().requires_grad_(False)
        private = private.to(place).to(memory_format=torch.channels_last)
        total = len(private.channels)
        if k is None:
            k = max(1, round(private.tff_fraction * total))
        if not 0 < k <= total:
            raise ValueError(f"k={k}: must lie between 1 and the number of channels, {total}")
        lrp = relevance(private)
        protocol = _seen(images) | {
            "weights": weights or type(private.network).__name__,
            "relevance": " ".join(f"{name}={value}" for name, value in lrp.protocol.items()),
            "seed": seed,
        }
        passes = Passes(private, place, batch_size, workers)
        return cls(images, lrp, passes, k, confidence, seed, draws, protocol)

    @property
    def detector(self) -> Detector:
        """The private copy in eval mode."""
        return self.passes.detector

    @property
    def channels(self) -> Channels:
        """The numbering of the detector's channels."""
        return self.detector.channels

    @cached_property
    def relevance(self) -> dict[str, Relevance]:
        """FF-RS from `fake` and from `real` images, in one pass over the discovery images.

        Raises:
            TooFewImagesError: no generated image is detected with the confidence asked for.
        """
        images = self.images.discovery
        found = self.passes.relevance(images, self.lrp, self.confidence)
        if not found["fake"].images:
            raise TooFewImagesError(
                f"FF-RS: none of the generated images is detected with P >= {self.confidence}; "
                "train the detector longer, or lower subject.confidence"
            )
        return found

    @cached_property
    def ranking(self) -> Tensor:
        """All channels (n_channels,) by omega of generated images, best first; ties in order."""
        return torch.from_numpy(np.argsort(-self.relevance["fake"].omega, kind="stable"))

    @property
    def top(self) -> Tensor:
        """The k channels taken for the transferable forensic features: (k,) flat indices."""
        return self.ranking[: self.k]

    def evaluate(self, cue: Cue | None = None, responses: bool = False) -> Evaluation:
        """One pass over the test images, kept for whoever asks next.

        Args:
            cue: takes a cue away from the images.
            responses: also record the spatial maxima of the top k channels.
        """
        done = self._done.get(cue)
        if done is None or (responses and done.responses is None):
            channels = self.top if responses else torch.empty(0, dtype=torch.int64)
            done = self._done[cue] = self.passes.evaluate(self.images.test, cue, channels)
        return done

    def evaluate_dropped(self, choices: Mapping[str, Tensor]) -> dict[str, Floats]:
        """Logits (N,) of the test images with each choice of channels dropped, in one reading."""
        return self.passes.evaluate_dropped(self.images.test, choices)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of the test images, 0 real, 1 generated."""
        return self.images.test.manifest["label"].to_numpy(np.int64)

    @cached_property
    def seen(self) -> set[str]:
        """The generators on which the channels were found."""
        return set(self.images.discovery.generators)

    def generators(self) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Each generator of the test images with its rows, the seen one first."""
        for name in sorted(self.images.test.generators, key=lambda n: (n not in self.seen, n)):
            yield name, self.images.test.rows_of(name)

    def describe(self) -> dict[str, object]:
        """The protocol in full, for a report."""
        images = {f"images of {n}": found.counts() for n, found in self.images.named.items()}
        if self.passes is _NONE:
            return {**self.protocol, **images}
        return {
            **self.protocol,
            "k": f"{self.k} of {len(self.channels):,} channels",
            "confidence": self.confidence,
            "bootstrap resamples": self.draws,
            **images,
        }


class _Missing:
    """Stands where a detector should be."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("this analysis needs a detector: pass ckpt=...")


_NONE: Any = _Missing()


def _seen(images: Splits) -> dict[str, object]:
    """How the test images are seen."""
    test = images.test
    matched = {"match_format": f"JPEG {MATCHED_QUALITY}"} if test.match_format else {}
    return {"crop": test.view.crop, "resize": test.view.resize or "none", **matched}
