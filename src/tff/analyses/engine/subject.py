"""The subject of analyses: a frozen detector, images, options, and shared passes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.engine.cache import Kept, identity
from tff.analyses.engine.passes import (
    Activity,
    Cue,
    Outputs,
    Passes,
    Relevance,
    draw_images,
    labels_of,
    sample_evenly,
)
from tff.analyses.engine.protocol import Protocol, describe_view
from tff.data.datamodule import Splits
from tff.data.dataset import Images
from tff.detectors.detector import Detector
from tff.detectors.feature_maps import depthwise_twins
from tff.relevance.lrp import LRP
from tff.statistics.detection import ThresholdRule, average_precision, best_threshold
from tff.types import Channels, Floats, Ints


@dataclass(frozen=True)
class DetectorInfo:
    """What is known without images.

    Attributes:
        channels: the numbering of its channels.
        twins: of each channel the earlier one that it continues, or -1.
        tff_fraction: the paper's share of top channels.
        accounts: operation and rule of each line of the relevance ledger.
        max_leak: part of the relevance that may be lost before analyses warn.
    """

    channels: Channels
    twins: Tensor
    tff_fraction: float
    accounts: list[tuple[str, str]]
    max_leak: float

    @classmethod
    def of(cls, detector: Detector, lrp: LRP) -> DetectorInfo:
        """Of a detector and its relevance method."""
        same = depthwise_twins(detector.network)
        return cls(
            detector.channels, same, detector.tff_fraction, lrp.leaky_operations, lrp.max_leak
        )


class _Missing:
    """Stands where passes and a network should be."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError("this analysis needs a detector: pass ckpt=...")


NONE: Any = _Missing()


#: In words, for legends.
CRITERIA = {
    "omega": "omega (FF-RS)",
    "lift": "lift (omega times layer width)",
    "effect": "gradient x activation",
    "response": "mean response",
    "weight": "norm of the filter",
    "random": "random",
}
DUPLICATES = ("mark", "merge")


def score_channels(
    by: str, omega: Callable[[], Floats], activity: Callable[[], Activity], channels: Channels,
    seed: int = 0,
) -> Floats:  # fmt: skip
    """(n_channels,) by one of `CRITERIA`.

    Lift compares a channel's share with the one that it had if its layer shared out evenly: omega
    favours narrow layers, since shares of a layer add up to 1 whatever its width.

    Args:
        omega: gives FF-RS; called only where it is needed, since a pass lies behind it.
        activity: likewise.
        seed: of the random order.

    Raises:
        ValueError: the criterion is unknown.
    """
    if by == "omega":
        return omega()
    if by == "lift":
        widths = [width for width in channels.widths.values() for _ in range(width)]
        return omega() * np.asarray(widths, np.float64)
    if by == "random":
        return np.random.default_rng(seed).random(len(channels))
    if by not in CRITERIA:
        raise ValueError(f"subject.ranking.by={by}: expected one of {', '.join(CRITERIA)}")
    found: Floats = getattr(activity(), by)
    return found


def rank_channels(scores: Floats, twins: Tensor, duplicates: str = "mark") -> Tensor:
    """All channels, best first, (n_channels,) flat indices; equal ones in the order of the network.

    Args:
        twins: flat index of the earlier channel that each one repeats, or -1; see
            `feature_maps.depthwise_twins`.
        duplicates: `mark` leaves both where they are; `merge` lets the earlier one stand for both,
            with the larger score, and puts the later one behind all others.

    Raises:
        ValueError: `duplicates` has another value.
    """
    if duplicates not in DUPLICATES:
        raise ValueError(f"subject.ranking.duplicates={duplicates}: expected mark or merge")
    value, later = scores.astype(np.float64), np.zeros(len(scores), bool)
    if duplicates == "merge":
        before, value = twins.numpy(), value.copy()
        later = before >= 0
        first = np.arange(len(value))
        while (before[first] >= 0).any():  # a channel may continue one that continues another
            first = np.where(before[first] >= 0, before[first], first)
        np.fmax.at(value, first[later], value[later])
    # NaN, of a channel without any value, comes behind all numbers; `lexsort` keeps ties in order.
    return torch.from_numpy(np.lexsort((-value, later)))


#: Accepts several k at once, since images are then read once for all; gives the AP of each.
Drop = Callable[[list[int]], Floats]


def parse_k(k: int | str | None, total: int, fraction: float) -> int | None:
    """`114`, `0.43%`, `auto` (None), or None for the share that the paper takes.

    A share, however small, is at least one channel.

    Raises:
        ValueError: k is nothing of this, or not between 1 and the number of channels, or 0 %.
    """
    if k == "auto":
        return None
    text = str(k).replace(" ", "")
    if k is None:
        return max(1, round(fraction * total))
    if re.fullmatch(r"\d+", text):
        number = int(text)
    elif re.fullmatch(r"\d+(\.\d+)?%", text):
        share = float(text[:-1]) / 100
        number = max(1, round(share * total)) if share else 0
    else:
        raise ValueError(f"subject.k={k}: expected a number, a share such as 0.43%, or auto")
    if not 0 < number <= total:
        raise ValueError(f"subject.k={k}: must lie between 1 and the number of channels, {total}")
    return number


def find_smallest_k(drop: Drop, below: float, total: int) -> int:
    """The smallest k whose top k, dropped, take AP below a value.

    Nothing, powers of two and half of all channels first, in one reading of the images; then the
    gap is halved. As AP need not fall evenly, a smaller k that an even fall would not suggest may
    have been passed over.

    Raises:
        ValueError: not even half of all channels do, or AP is below the value as it is.
    """
    half = max(1, total // 2)
    tried = sorted({0, half} | {2**i for i in range(half.bit_length())})
    found = drop(tried)
    if found[0] < below:
        raise ValueError(
            f"subject.k=auto: AP on the seen generator is {found[0]:.3f} with nothing dropped, "
            f"below subject.k_below={below:g} already; lower that, or give k as a number"
        )
    reached = np.flatnonzero(found < below)
    if not len(reached):
        raise ValueError(
            f"subject.k=auto: AP on the seen generator stays at {np.nanmin(found):.3f} or more "
            f"with up to {half} channels dropped, not below subject.k_below={below:g}; raise that, "
            "or give k as a number"
        )
    first = int(reached[0])
    low, high = tried[first - 1], tried[first]
    while high - low > 1:
        middle = (low + high) // 2
        if float(drop([middle])[0]) < below:
            high = middle
        else:
            low = middle
    return high


def channel_counts(shares: Iterable[float], total: int) -> list[int]:
    """Numbers of channels for shares in percent, each once, rising."""
    return sorted({max(1, round(share / 100 * total)) for share in shares if share > 0})


@dataclass(frozen=True)
class RankingRule:
    """By what channels are ranked; see `analyses.criteria`."""

    by: str = "omega"
    duplicates: str = "mark"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("by", self.by, CRITERIA),
            ("duplicates", self.duplicates, DUPLICATES),
        ):
            if value not in known:
                raise ValueError(
                    f"subject.ranking.{option}={value}: expected one of {', '.join(known)}"
                )


@dataclass(frozen=True)
class Options:
    """How a subject is looked at.

    Attributes:
        k: how many top channels are taken for the transferable forensic features: a number, a share
            (`0.43%`), `auto`, or None for the paper's share.
        k_below: with `auto`, the AP on the seen generator below which the top k must take it.
        confidence: FF-RS uses generated images with P(generated) of at least this, and real ones
            with at most one minus this.
        seed: of every random choice in the analyses.
        draws: resamples behind each interval.
        sample: of so many images of each generator and label the responses of all channels are
            kept.

    Raises:
        ValueError: a number has an impossible value.
    """

    k: int | str | None = None
    k_below: float = 0.75
    confidence: float = 0.9
    seed: int = 0
    draws: int = 1000
    sample: int = 250
    ranking: RankingRule = field(default_factory=RankingRule)
    scoring: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        for option, value, possible, expected in (
            ("k_below", self.k_below, 0 < self.k_below <= 1, "an AP above 0, at most 1"),
            ("confidence", self.confidence, 0 <= self.confidence <= 1, "a probability"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("draws", self.draws, self.draws >= 1, "1 or more"),
            ("sample", self.sample, self.sample >= 1, "1 or more"),
        ):
            if not possible:
                raise ValueError(f"subject.{option}={value}: expected {expected}")


class TooFewImagesError(ValueError):
    """A statistic has no images to be computed from."""


def refuse_nan(logits: Floats, images: Images, how: str) -> None:
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
        info: what there is to know of the detector without images.
        options: how it is looked at.
        protocol: how all this was measured, for the tables.
    """

    images: Splits
    passes: Passes | Kept
    info: DetectorInfo
    options: Options
    protocol: dict[str, object]
    _done: dict[tuple[str, Cue | None], Outputs] = field(default_factory=dict)
    _dropped: dict[object, dict[str, Floats]] = field(default_factory=dict)

    @property
    def channels(self) -> Channels:
        """The numbering of the detector's channels."""
        return self.info.channels

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

    def _evaluate(self, which: str, cue: Cue | None, channels: Tensor | None = None) -> Outputs:
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
            refuse_nan(done.logits, images, how)
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
            refuse_nan(logits, self.images.test, f"with channels dropped ({name})")
        if instead is None:
            self._dropped[key] = found
        return dict(found)

    @cached_property
    def sample(self) -> Ints:
        """(n,) test images of which the responses of all channels are kept."""
        return sample_evenly(self.images.test, self.options.sample)

    def replacement_images(self) -> Images:
        """For each test image a discovery image that may lend its maps."""
        return draw_images(self.images.discovery, len(self.images.test), self.seed)


@dataclass(eq=False)
class Subject(Observed):
    """Made by `Subject.of`; analyses read from it, and share its passes over the images."""

    @classmethod
    def of(
        cls,
        detector: Detector | None,
        images: Splits,
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
            device: `auto` takes a GPU where there is one.
            weights: names the detector's weights in the tables.
            options: see `Options`.

        Raises:
            ValueError: an option has an impossible value.
        """
        chosen = Options(scoring=scoring or Protocol(), ranking=ranking or RankingRule(), **options)
        if detector is None:
            return cls(images, NONE, NONE, chosen, describe_view(images) | {"seed": chosen.seed})
        gpu = device == "auto" and torch.cuda.is_available()
        place = torch.device("cuda" if gpu else "cpu" if device == "auto" else device)
        private = copy.deepcopy(detector).eval().requires_grad_(False)
        private = private.to(place).to(memory_format=torch.channels_last)
        lrp = relevance(private)
        info = DetectorInfo.of(private, lrp)
        protocol = describe_view(images) | {
            "protocol": chosen.scoring.name,
            "weights": weights or type(private.network).__name__,
            "relevance": " ".join(f"{name}={value}" for name, value in lrp.protocol.items()),
            "seed": chosen.seed,
        }
        passes = Passes(private, lrp, place, batch_size, workers)
        return cls(images, passes, info, chosen, protocol)

    def __post_init__(self) -> None:
        if self.passes is not NONE:
            self.options.scoring.check(self.images.test.view)
            parse_k(self.options.k, len(self.channels), self.info.tff_fraction)

    def channel_scores(self, by: str, seed: int | None = None) -> Floats:
        """(n_channels,) by one of `criteria.CRITERIA`."""
        of_seed = self.seed if seed is None else seed
        return score_channels(
            by, lambda: self.relevance["fake"].omega, lambda: self.activity, self.channels, of_seed
        )

    def rank(self, by: str, seed: int | None = None) -> Tensor:
        """All channels (n_channels,) by a criterion, best first; ties in order."""
        rule = self.options.ranking.duplicates
        return rank_channels(self.channel_scores(by, seed), self.info.twins, rule)

    @cached_property
    def ranking(self) -> Tensor:
        """All channels (n_channels,) by the criterion of this subject, best first."""
        return self.rank(self.options.ranking.by)

    @cached_property
    def k(self) -> int:
        """How many of them are taken for the transferable forensic features.

        Raises:
            ValueError: `k=auto`, and no k does what is asked of it.
        """
        total = len(self.channels)
        known = parse_k(self.options.k, total, self.info.tff_fraction)
        if known is not None:
            return known
        found = self.images.discovery

        def drop(ks: list[int]) -> Floats:
            choices = {str(k): self.ranking[:k] for k in ks}
            logits = self.passes.evaluate_dropped(found, choices, None)
            return np.array([average_precision(labels_of(found), logits[str(k)]) for k in ks])

        return find_smallest_k(drop, self.options.k_below, total)

    @property
    def top(self) -> Tensor:
        """The k channels taken for the transferable forensic features: (k,) flat indices."""
        return self.ranking[: self.k]

    def evaluate(self, cue: Cue | None = None, responses: bool = False) -> Outputs:
        """One pass over the test images, kept for whoever asks next.

        Args:
            cue: takes a cue away from the images.
            responses: also record spatial maxima: of the top k channels of every image, and of all
                channels for the images of `sample`.
        """
        return self._evaluate("test", cue, self.top if responses else None)

    def threshold(self, rule: ThresholdRule, of: NDArray[np.int64], logits: Floats) -> float:
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
            f"images of {n}": found.counts()
            for n, found in self.images.by_name.items()
            if len(found)
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
