"""What is analysed: a frozen detector, images, a relevance method, and the passes they share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses import criteria, top
from tff.analyses.network import NONE, Network
from tff.analyses.observed import Observed
from tff.analyses.options import Options, RankingRule
from tff.analyses.passes import Passes
from tff.analyses.protocol import Protocol, seen
from tff.analyses.records import Cue, Evaluation, Floats
from tff.analyses.which import labels_of
from tff.data.datamodule import Splits
from tff.detectors.detector import Detector
from tff.relevance.lrp import LRP
from tff.statistics.detection import ThresholdRule, average_precision, best_threshold


@dataclass(eq=False)
class Subject(Observed):
    """Made by `Subject.of`; analyses read from it, and share its passes over the images."""

    @classmethod
    def of(
        cls,
        detector: Detector | None,
        images: Splits | None,
        relevance: Callable[[Detector], LRP] = LRP,
        *,
        batch_size: int = 32,
        workers: int = 0,
        device: str = "auto",
        weights: str = "",
        scoring: Protocol | None = None,
        ranking: RankingRule | None = None,
        **options: Any,
    ) -> Subject:
        """Take private copies, so that nothing done here can reach a detector in training.

        Args:
            detector: None for analyses of the files alone.
            images: None for analyses of reports alone.
            device: `auto` takes a GPU where there is one.
            weights: names the detector's weights in the tables.
            options: see `Options`.

        Raises:
            ValueError: an option has an impossible value.
        """
        chosen = Options(scoring=scoring or Protocol(), ranking=ranking or RankingRule(), **options)
        if images is None:
            return cls(Splits.none(), NONE, NONE, chosen, {})
        if detector is None:
            return cls(images, NONE, NONE, chosen, seen(images) | {"seed": chosen.seed})
        gpu = device == "auto" and torch.cuda.is_available()
        place = torch.device("cuda" if gpu else "cpu" if device == "auto" else device)
        private = copy.deepcopy(detector).eval().requires_grad_(False)
        private = private.to(place).to(memory_format=torch.channels_last)
        lrp = relevance(private)
        network = Network.of(private, lrp)
        protocol = seen(images) | {
            "protocol": chosen.scoring.name,
            "weights": weights or type(private.network).__name__,
            "relevance": " ".join(f"{name}={value}" for name, value in lrp.protocol.items()),
            "seed": chosen.seed,
        }
        passes = Passes(private, lrp, place, batch_size, workers)
        return cls(images, passes, network, chosen, protocol)

    def __post_init__(self) -> None:
        if self.passes is not NONE:
            self.options.scoring.check(self.images.test.view)
            top.parsed(self.options.k, len(self.channels), self.network.tff_fraction)

    def scores(self, by: str, seed: int | None = None) -> Floats:
        """(n_channels,) by one of `criteria.CRITERIA`."""
        of_seed = self.seed if seed is None else seed
        return criteria.scores(
            by, lambda: self.relevance["fake"].omega, lambda: self.activity, self.channels, of_seed
        )

    def order(self, by: str, seed: int | None = None) -> Tensor:
        """All channels (n_channels,) by a criterion, best first; ties in order."""
        rule = self.options.ranking.duplicates
        return criteria.order(self.scores(by, seed), self.network.twins, rule)

    @cached_property
    def ranking(self) -> Tensor:
        """All channels (n_channels,) by the criterion of this subject, best first."""
        return self.order(self.options.ranking.by)

    @cached_property
    def k(self) -> int:
        """How many of them are taken for the transferable forensic features.

        Raises:
            ValueError: `k=auto`, and no k does what is asked of it.
        """
        total = len(self.channels)
        known = top.parsed(self.options.k, total, self.network.tff_fraction)
        if known is not None:
            return known
        found = self.images.discovery

        def drop(ks: list[int]) -> Floats:
            choices = {str(k): self.ranking[:k] for k in ks}
            logits = self.passes.evaluate_dropped(found, choices, None)
            return np.array([average_precision(labels_of(found), logits[str(k)]) for k in ks])

        return top.smallest(drop, self.options.k_below, total)

    @property
    def top(self) -> Tensor:
        """The k channels taken for the transferable forensic features: (k,) flat indices."""
        return self.ranking[: self.k]

    def evaluate(self, cue: Cue | None = None, responses: bool = False) -> Evaluation:
        """One pass over the test images, kept for whoever asks next.

        Args:
            cue: takes a cue away from the images.
            responses: also record spatial maxima: of the top k channels of every image, and of all
                channels for the images of `sample`.
        """
        return self._evaluate("test", cue, self.top if responses else None)

    def cut(self, rule: ThresholdRule, of: NDArray[np.int64], logits: Floats) -> float:
        """Where "generated" begins for images with these labels and logits, by a rule."""
        if rule == "validation":
            of, logits = labels_of(self.images.discovery), self._evaluate("discovery", None).logits
        return (
            0.5 if rule == "half" else best_threshold(of, self.options.scoring.probability(logits))
        )

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
        images = {
            f"images of {n}": found.counts() for n, found in self.images.named.items() if len(found)
        }
        if self.passes is NONE:
            return {**self.protocol, **images}
        rule = self.options.ranking
        return {
            **self.protocol,
            "protocol": f"{self.options.scoring}",
            # `auto` is not searched for a description alone.
            "k": f"{vars(self).get('k', self.options.k)} of {len(self.channels):,} channels",
            "ranking": f"by {rule.by}, duplicates {rule.duplicates}",
            "confidence": self.options.confidence,
            "bootstrap resamples": self.draws,
            **images,
        }
