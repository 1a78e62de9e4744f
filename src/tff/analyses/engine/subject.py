"""Subject of the analyses: a frozen detector, images, options, and the passes they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tff.analyses.engine.attribution import Attribution, number_strata
from tff.analyses.engine.cache import Cache, Expected, describe_cue, digest, identify
from tff.analyses.engine.passes import (
    ACTIVITY,
    REMOVED,
    RESAMPLED,
    RESAMPLES_SIZE,
    Activity,
    CueRemoval,
    Instead,
    Outputs,
    Passes,
    Relevance,
    draw_images,
    labels_of,
    resample_column,
    response_columns,
    sample_evenly,
)
from tff.analyses.engine.protocol import Protocol, describe_view
from tff.analyses.engine.top_channels import (
    CHOICES,
    Evidence,
    K,
    Kinds,
    RankingRule,
    Stability,
    TooFewImagesError,
    assess_stability,
    find_smallest_k,
    parse_k,
    parse_k_of_kinds,
    rank_channels,
)
from tff.data.datamodule import Splits
from tff.data.dataset import Images
from tff.detectors.detector import Detector
from tff.detectors.feature_maps import depthwise_twins
from tff.detectors.frozen import freeze
from tff.options import SEED, Allowed, FieldsOf, checked, number, some_of, whole
from tff.relevance.lrp import LRP
from tff.statistics.bootstrap import units_by_label
from tff.statistics.detection import ThresholdRule, average_precision, best_threshold
from tff.types import KINDS, Channels, Floats, Ints


def _is_device(name: str) -> bool:
    try:
        device = torch.device(name)
    except RuntimeError:  # no name of a device
        return name == "auto"
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


#: Allowed values of the option `device`.
DEVICE = Allowed(
    _is_device, "auto, cpu, or a GPU that PyTorch finds on this machine, such as cuda:0"
)


#: Groups of real and of generated images from which on intervals are over groups of images.
FEWEST_GROUPS = 5


@dataclass(frozen=True)
@checked("subject")
class Options:
    """Options that all analyses of a subject share.

    Args:
        k: number of top channels, candidates for transferable forensic features: a number, a share
            (`0.43%`), `auto`, or None for the paper's share. Or a number or share for each of some
            kinds of channels, `{heads: 5, neurons: 50}`.
        k_below: with `auto`, the smallest k is taken for which AP on the seen generator falls below
            this when the top k channels are dropped.
        confidence: FF-RS uses generated images with P(generated) of at least this, and real ones
            with at most one minus this.
        seed: of every random choice in the analyses.
        draws: bootstrap resamples behind each interval.
        sample: number of images of each generator and label for which the responses of all channels
            are recorded.
        ranking: how channels are ranked.
        units: kinds of channels that are ranked and dropped, see `find_channels`. None: channels of
            convolutions, and all kinds in networks with attention.
        scoring: how logits become scores and decisions.
    """

    k: Annotated[int | str | Mapping[str, int | str], K] | None = None
    k_below: Annotated[float, number(above=0, most=1)] = 0.75
    confidence: Annotated[float, number(0, 1)] = 0.9
    seed: Annotated[int, SEED] = 0
    draws: Annotated[int, whole(1)] = 1000
    sample: Annotated[int, whole(1)] = 250
    ranking: RankingRule = field(default_factory=RankingRule)
    units: Annotated[Sequence[str], some_of(KINDS)] | None = None
    scoring: Protocol = field(default_factory=Protocol)


@dataclass(frozen=True)
class DetectorInfo:
    """Facts about a detector that are known even if it is not loaded.

    Attributes:
        channels: numbering of its channels.
        twins: for each channel the earlier channel that it repeats, or -1.
        tff_fraction: the paper's share of top channels.
        leaky_operations: name and rule of each operation that may lose relevance.
        max_leak: share of the relevance that may be lost before analyses warn.
    """

    channels: Channels
    twins: Tensor
    tff_fraction: float
    leaky_operations: list[tuple[str, str]]
    max_leak: float


def refuse_nan(logits: Floats, images: Images, how: str) -> None:
    """Raise ValueError, which names an image, if a logit is NaN: no statistic would mean anything.

    Args:
        how: form in which the detector saw the images, for the message.
    """
    if len(rows := np.flatnonzero(np.isnan(logits))):
        raise ValueError(
            f"the detector gives no number (NaN) for {len(rows)} of {len(logits)} images {how}, "
            f"such as {images.manifest['path'].iloc[rows[0]]}: its training has diverged, or its "
            "activations overflow"
        )


@dataclass(eq=False)
class Subject:
    """A detector and images as analyses see them; made by `Subject.of`.

    Analyses read from it and share its passes over the images. A subject of files only
    (`analysis=audit`) has no detector, and one rebuilt from cached passes has only those passes:
    access to anything else raises a ValueError that names the option to pass.

    Attributes:
        images: channels are ranked on `discovery` and tested on `test`.
        options: shared by all analyses.
        protocol: how everything was measured; added to the rows of all tables.
        cache: results of passes.
    """

    images: Splits
    options: Options
    protocol: dict[str, object]
    cache: Cache = field(default_factory=Cache)
    _info: DetectorInfo | None = None
    _passes: Passes | None = None

    @classmethod
    @checked("subject")
    def of(
        cls,
        detector: Detector | None,
        images: Splits,
        relevance: Callable[[Detector], LRP] = LRP,
        *,
        batch_size: Annotated[int, whole(1)] = 32,
        workers: Annotated[int, whole(0)] = 0,
        device: Annotated[str, DEVICE] = "auto",
        weights: str = "",
        **options: Annotated[Any, FieldsOf(Options)],
    ) -> Subject:
        """Make a subject with private copies, so that no analysis can change the given detector.

        Args:
            detector: None for analyses that need only files.
            relevance: makes the relevance method of a detector.
            batch_size: images per batch and process.
            workers: processes that load images.
            device: such as `cuda:1`; `auto`: a GPU if there is one.
            weights: name of the detector's weights in the tables.
            options: see `Options`.

        Raises:
            ValueError: an option has an impossible value.
        """
        chosen = Options(**options)
        if detector is None:
            return cls(images, chosen, describe_view(images) | {"seed": chosen.seed})
        gpu = device == "auto" and torch.cuda.is_available()
        where = torch.device("cuda" if gpu else "cpu" if device == "auto" else device)
        # In float32, as checkpoints are read, whatever type a training computes in.
        private = freeze(detector).float()
        private = private.to(where).to(memory_format=torch.channels_last)
        if chosen.units:
            private.choose_units(chosen.units)
        lrp = relevance(private)
        protocol = describe_view(images) | {
            "protocol": chosen.scoring.name,
            "weights": weights or type(private.network).__name__,
            "relevance": " ".join(f"{name}={value}" for name, value in lrp.protocol.items()),
            "seed": chosen.seed,
        }
        info = DetectorInfo(
            private.channels,
            depthwise_twins(private.network, private.channels),
            private.tff_fraction,
            lrp.leaky_operations,
            lrp.max_leak,
        )
        passes = Passes(private, lrp, where, batch_size, workers)
        return cls(images, chosen, protocol, _info=info, _passes=passes)

    def __post_init__(self) -> None:
        if self._info is not None:
            self.options.scoring.check(self.images.test.view)
            self._parse_k()
            if self.options.ranking.baseline == "mean" and "heads" in self.channels.kinds.values():
                raise ValueError(
                    "subject.ranking.baseline=mean: the mean of an attention head is a vector, for "
                    "which contrast is not computed; take baseline=zero, or leave heads out with "
                    "subject.units=[neurons]"
                )

    @property
    def info(self) -> DetectorInfo:
        """Facts about the detector."""
        if self._info is None:
            raise ValueError("this analysis needs a detector: pass ckpt=...")
        return self._info

    @property
    def passes(self) -> Passes:
        """Passes of the detector over images."""
        return self._require_passes("the detector")

    def _require_passes(self, what: str) -> Passes:
        if self._passes is None and self.info:
            raise ValueError(
                f"{self.cache.folder}: holds no such pass ({what}); run analyze.py with ckpt=... "
                "and the same passes=... to add it"
            )
        assert self._passes is not None
        return self._passes

    @property
    def channels(self) -> Channels:
        """Numbering of the detector's channels."""
        return self.info.channels

    @property
    def detector(self) -> Detector:
        """Private copy of the detector, in eval mode."""
        return self.passes.detector

    @property
    def lrp(self) -> LRP:
        """Relevance method of that copy."""
        return self.passes.lrp

    @property
    def seed(self) -> int:
        """Seed of every random choice."""
        return self.options.seed

    @property
    def draws(self) -> int:
        """Number of bootstrap resamples behind each interval."""
        return self.options.draws

    @cached_property
    def labels(self) -> Ints:
        """Labels of the test images, (N,): 0 real, 1 generated."""
        return labels_of(self.images.test)

    def resampled_groups(self, rows: Ints) -> Ints | None:
        """Group (n,) of some test images, if intervals draw groups as a whole; None: images.

        They draw images where it is not known which images belong together (`data.group`), and
        where there are too few groups to know how much these differ.

        Args:
            rows: (n,) of the images.
        """
        if (known := self.images.test.groups) is None:
            return None
        fewest = min(units_by_label(self.labels[rows], known[rows]).values())
        return known[rows] if fewest >= FEWEST_GROUPS else None

    @cached_property
    def seen(self) -> set[str]:
        """Generators on which channels are ranked."""
        return set(self.images.discovery.generators)

    def generators(self) -> Iterator[tuple[str, Ints]]:
        """Each generator of the test images with its rows, seen ones first."""
        for name in sorted(self.images.test.generators, key=lambda n: (n not in self.seen, n)):
            yield name, self.images.test.rows_of(name)

    @cached_property
    def sample(self) -> Ints:
        """Rows (n,) of the test images for which responses of all channels are recorded."""
        return sample_evenly(self.images.test, self.options.sample)

    def draw_replacements(self) -> Images:
        """For each test image a random discovery image, whose feature maps may replace its own."""
        return draw_images(self.images.discovery, len(self.images.test), self.seed)

    @cached_property
    def _identities(self) -> dict[str, dict[str, object]]:
        """Cache key of each set of images."""
        return {name: identify(getattr(self.images, name)) for name in ("discovery", "test")}

    @property
    def relevance(self) -> dict[str, Relevance]:
        """Relevance over `fake` and over `real` discovery images.

        Raises:
            TooFewImagesError: the detector recognizes no generated image with enough confidence.
        """
        images, confidence = self.images.discovery, self.options.confidence
        table = self.cache.get(
            "relevance",
            {"pass": "relevance", **self._identities["discovery"], "confidence": confidence},
            lambda: self._require_passes("relevance").compute_relevance(images, confidence),
            Expected(
                len(self.channels),
                Relevance.columns(),
                sizes={resample_column(name): RESAMPLES_SIZE for name in Relevance.resampled()},
                fits=partial(Relevance.can_use, operations=len(self.info.leaky_operations)),
            ),
        )
        relevance = {kind: Relevance.from_table(table, kind) for kind in ("fake", "real")}
        if not relevance["fake"].images:
            raise TooFewImagesError(
                f"FF-RS: none of the generated images is detected with P >= {confidence}; "
                "train the detector longer, or lower subject.confidence"
            )
        return relevance

    @property
    def activity(self) -> Activity:
        """Activity of each channel on the average discovery image."""
        table = self.cache.get(
            "activity",
            {"pass": "activity", **self._identities["discovery"]},
            lambda: self._require_passes("activity").compute_activity(self.images.discovery),
            Expected(
                len(self.channels),
                ACTIVITY,
                sizes={resample_column(name): RESAMPLES_SIZE for name in RESAMPLED},
                fits=partial(Activity.can_use, channels=self.channels),
            ),
        )
        return Activity.from_table(table)

    @property
    def removal_order(self) -> Floats:
        """Place of each channel by `greedy`, (n_channels,); see `Passes.compute_removal_order`."""
        images = self.images.discovery
        table = self.cache.get(
            "removal",
            {"pass": "removal", **self._identities["discovery"], "share": REMOVED},
            lambda: self._require_passes("removal order").compute_removal_order(images),
            Expected(len(self.channels), ["greedy"]),
        )
        return table.column("greedy")

    def evaluate(
        self, ablation: CueRemoval | None = None, responses: bool = False, split: str = "test"
    ) -> Outputs:
        """Outputs of the detector for each image.

        Args:
            ablation: removes a cue from the images; None: images as they are.
            responses: also give spatial maxima: of the top k channels for all images, and of all
                channels for those in `sample`.
            split: `test` or `discovery`.

        Raises:
            ValueError: the detector gives NaN for some images.
        """
        images: Images = getattr(self.images, split)
        channels = self.top if responses else torch.empty(0, dtype=torch.int64)
        sample = self.sample if responses else np.empty(0, np.int64)
        how = "as they are" if ablation is None else f"without {ablation.cue}"
        key = {
            "pass": "evaluate",
            **self._identities[split],
            "cue": ablation,
            "channels": channels.tolist(),
            "sample": sample.tolist(),
        }
        kind = "plain" if ablation is None else type(ablation).__name__.lower()
        table = self.cache.get(
            f"evaluate-{kind}",
            key,
            lambda: self._require_passes(f"images {how}").compute_outputs(
                images, ablation, channels, sample
            ),
            Expected(len(images), ["logit", *response_columns(channels)], len(self.channels)),
        )
        outputs = Outputs.from_table(table, channels, sample)
        refuse_nan(outputs.logits, images, how)
        return outputs

    def evaluate_without_channels(
        self,
        choices: Mapping[str, Tensor],
        instead: Instead = None,
        split: str = "test",
    ) -> dict[str, Floats]:
        """Logits (N,) with each choice of channels dropped; images are read once for all choices.

        Args:
            choices: name -> (k,) flat indices of the channels to drop.
            instead: replaces the channels' output, see `Passes.compute_outputs_without_channels`.
            split: `test` or `discovery`.

        Raises:
            ValueError: the detector gives NaN for some images.
        """
        images: Images = getattr(self.images, split)
        replacement: object = None
        if isinstance(instead, Mapping):
            replacement = digest(torch.cat([v.flatten() for v in instead.values()]).tolist())
        elif isinstance(instead, Images):
            replacement = digest(identify(instead))
        elif instead is not None:
            replacement = describe_cue(instead)
        key = {
            "pass": "dropped",
            **self._identities[split],
            "choices": {name: digest(sorted(flat.tolist())) for name, flat in choices.items()},
            "instead": replacement,
        }
        table = self.cache.get(
            "dropped",
            key,
            lambda: self._require_passes("dropped channels").compute_outputs_without_channels(
                images, choices, instead
            ),
            Expected(len(images), list(choices)),
        )
        logits: dict[str, Floats] = {name: table.column(name) for name in choices}
        for name, column in logits.items():
            refuse_nan(column, images, f"with channels dropped ({name})")
        return logits

    def attribute(self, ablation: CueRemoval, split: str = "test") -> Attribution:
        """First-order effects of a cue through each channel.

        Args:
            ablation: removes the cue.
            split: `test` or `discovery`.

        Raises:
            ValueError: the detector gives NaN for some images.
        """
        images: Images = getattr(self.images, split)
        strata = range(number_strata(images).max(initial=-1) + 1)
        names = ("effect", "error")
        table = self.cache.get(
            f"attribution-{type(ablation).__name__.lower()}",
            {"pass": "attribution", **self._identities[split], "cue": ablation},
            lambda: self._require_passes(f"effects of {ablation.cue}").compute_attribution(
                images, ablation
            ),
            Expected(len(self.channels), [f"{name} {i}" for i in strata for name in names]),
        )
        effects, errors = (
            np.array([table.column(f"{name} {i}") for i in strata]) for name in names
        )
        return Attribution(images, effects, errors)

    def _evidence(self, seed: int | None = None) -> Evidence:
        rule, layers = self.options.ranking, self.channels.widths.values()
        return Evidence(
            cache(lambda: self.relevance),
            cache(lambda: self.activity),
            np.repeat(list(layers), list(layers)),
            rule.baseline,
            self.seed if seed is None else seed,
            lambda: self.removal_order,
        )

    def score_channels(self, by: str, seed: int | None = None) -> Floats:
        """Score of each channel by one of `top_channels.CRITERIA`, (n_channels,)."""
        return self._evidence(seed).score(by)

    def usable_criteria(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Those of some criteria that the discovery images allow; why not, for each of the others.

        Raises:
            TooFewImagesError: they allow none.
        """
        usable: list[str] = []
        missing: list[TooFewImagesError] = []
        for by in names:
            try:
                self.score_channels(by)
                usable.append(by)
            except TooFewImagesError as error:
                missing.append(error)
        if missing and not usable:
            raise missing[0]
        return usable, [f"A ranking is missing. {error}." for error in missing]

    def rank(self, by: str, seed: int | None = None) -> Tensor:
        """Flat indices of all channels, (n_channels,), best first by a criterion."""
        duplicates = self.options.ranking.duplicates
        scores = self.score_channels(by, seed)
        return rank_channels(scores, self.info.twins, duplicates, self.kinds)

    @cached_property
    def kinds(self) -> Kinds | None:
        """How the rankings of several kinds of channels are merged; None if there is one kind."""
        numbers, k = self.channels.kind_numbers, self.options.k
        if isinstance(k, Mapping):
            return Kinds(numbers, parse_k_of_kinds(k, self.channels))
        return Kinds(numbers) if len(np.unique(numbers)) > 1 else None

    @cached_property
    def criterion(self) -> str:
        """Criterion by which channels are ranked; with `auto`, the best on the discovery images."""
        by = self.options.ranking.by
        return str(self.candidates["ap"].idxmin()) if by == "auto" else by

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """AP on the discovery images without the top k channels of each criterion (column `ap`).

        One row per criterion that can be computed, in the order of `top_channels.CHOICES`. The
        number of channels is k; with `k=auto`, which needs a ranking, the paper's share.
        """
        k = self._parse_k() or parse_k(None, len(self.channels), self.info.tff_fraction)
        orders = {by: self.rank(by)[:k] for by in self.usable_criteria(CHOICES)[0]}
        logits = self.evaluate_without_channels(orders, split="discovery")
        labels = labels_of(self.images.discovery)
        aps = {by: float(average_precision(labels, values)) for by, values in logits.items()}
        return pd.DataFrame({"ap": aps, "k": k})

    @property
    def among(self) -> int:
        """Number of rankings that the one of this subject was chosen from; 1 without `auto`."""
        return len(self.candidates) if self.options.ranking.by == "auto" else 1

    @cached_property
    def ranking(self) -> Tensor:
        """Flat indices of all channels, (n_channels,), best first by this subject's criterion."""
        return self.rank(self.criterion)

    def stability(self, by: str) -> Stability:
        """How the ranking by a criterion changes with the discovery images."""
        rule = self.options.ranking
        return assess_stability(self._evidence(), by, self.info.twins, rule, self.k, self.kinds)

    def _parse_k(self) -> int | None:
        """Number of top channels; None for `auto`."""
        if isinstance(k := self.options.k, Mapping):
            return sum(parse_k_of_kinds(k, self.channels).values())
        return parse_k(k, len(self.channels), self.info.tff_fraction)

    @cached_property
    def k(self) -> int:
        """Number of top channels, the candidates for transferable forensic features.

        Raises:
            ValueError: `k=auto`, and no k meets its condition.
        """
        if (k := self._parse_k()) is not None:
            return k
        labels = labels_of(self.images.discovery)

        def measure_ap(ks: list[int]) -> Floats:
            choices = {str(k): self.ranking[:k] for k in ks}
            logits = self.evaluate_without_channels(choices, split="discovery")
            return np.array([average_precision(labels, logits[str(k)]) for k in ks])

        return find_smallest_k(measure_ap, self.options.k_below, len(self.channels))

    @property
    def top(self) -> Tensor:
        """Flat indices (k,) of the top channels."""
        return self.ranking[: self.k]

    def threshold(self, rule: ThresholdRule, labels: Ints, logits: Floats) -> float:
        """Probability above which an image is called generated, under the given rule.

        Args:
            rule: `half`: 0.5; `validation`: best on the discovery images; `oracle`: best on the
                given images.
            labels: (n,).
            logits: (n,).
        """
        if rule == "half":
            return 0.5
        if rule == "validation":
            labels = labels_of(self.images.discovery)
            logits = self.evaluate(split="discovery").logits
        return best_threshold(labels, self.options.scoring.probability(logits))

    def _describe_kinds(self) -> str:
        """How many top channels there are of each kind, in brackets, if there are several kinds."""
        if "ranking" not in vars(self) or self.kinds is None:
            return ""
        numbers = self.channels.count_kinds(self.top.numpy())
        return f" ({', '.join(f'{n} {kind}' for kind, (n, _) in numbers.items())})"

    def describe(self) -> dict[str, object]:
        """The full protocol, for a report."""
        sets = self.images.by_name.items()
        images = {f"images of {name}": found.counts() for name, found in sets if len(found)}
        if self._info is None:
            return {**self.protocol, **images}
        rule = self.options.ranking
        return {
            **self.protocol,
            "protocol": f"{self.options.scoring}",
            # A description must not start the search for `auto`.
            "k": f"{vars(self).get('k', self.options.k)} of {len(self.channels):,} channels"
            + self._describe_kinds(),
            "ranking": f"by {vars(self).get('criterion', rule.by)}, duplicates {rule.duplicates}",
            "confidence": self.options.confidence,
            "bootstrap resamples": self.draws,
            **images,
        }
