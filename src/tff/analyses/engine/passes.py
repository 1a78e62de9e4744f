"""Passes over the images, on all processes; each gives one table."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from tff.analyses.engine.attribution import number_strata
from tff.analyses.engine.parts import Parts
from tff.data.dataset import Images
from tff.data.loaders import EvaluationBatches, loader
from tff.detectors.detector import Detector
from tff.detectors.hooks import Replacement, drop_channels, record_outputs, record_responses
from tff.detectors.input_sizes import InputSizes
from tff.distributed import fail_together, get_world_size
from tff.progress import track
from tff.relevance.conservation import COLUMNS
from tff.relevance.lrp import LRP, Explanation
from tff.statistics.ffrs import FFRS, ExactMean
from tff.statistics.per_image import PerImage
from tff.statistics.resampled_means import RESAMPLES, ResampledMeans
from tff.types import Batch, Channels, Floats, Ints


class CueRemoval(Protocol):
    """Removes a cue, such as color, from images."""

    @property
    def cue(self) -> str:
        """Name of the cue."""

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same images without the cue."""


#: What replaces dropped channels, see `Passes.compute_outputs_without_channels`.
Instead = Mapping[str, Tensor] | Images | CueRemoval | None


@dataclass(frozen=True)
class Table:
    """Result of one pass.

    Attributes:
        rows: one row per image or per channel.
        facts: further results, as plain containers.
        sampled: (n,) rows of the images for which responses of all channels were recorded.
        sample: (n, n_channels) float32, these responses.
    """

    rows: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)
    sampled: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    sample: NDArray[np.float32] | None = None

    def column(self, name: str) -> Floats:
        """Copy of a column, so that nobody changes a cached table."""
        return self.rows[name].to_numpy(float, copy=True)

    def resamples(self, name: str) -> Floats:
        """A column on resamples of the images, (RESAMPLES, rows)."""
        values = np.frombuffer(b"".join(self.rows[resample_column(name)]), np.float32)
        return values.reshape(-1, RESAMPLES).T.astype(np.float64)


@dataclass(frozen=True)
class Relevance:
    """Relevance of all channels over images of one kind, real or generated.

    Attributes:
        omega: (n_channels,) FF-RS of each channel.
        error: (n_channels,) its standard error.
        images: number of images.
        conservation: (n_operations, 5) means over these images of what leaky operations receive,
            pass on and lose, see `relevance.conservation.COLUMNS`.
        resamples: (RESAMPLES, n_channels) omega on resamples of the images, see `ResampledMeans`.
    """

    omega: Floats
    error: Floats
    images: int
    conservation: Floats
    resamples: Floats

    @staticmethod
    def columns() -> list[str]:
        """Columns of the table that `from_table` reads."""
        return [f"{name}_{kind}" for name in ("omega", "error") for kind in ("fake", "real")]

    @staticmethod
    def resampled() -> list[str]:
        """Names of the columns that it reads on resamples of the images."""
        return ["omega_fake", "omega_real"]

    @classmethod
    def from_table(cls, table: Table, kind: str) -> Relevance:
        """From the result of `Passes.compute_relevance`, for `fake` or `real` images."""
        return cls(
            table.column(f"omega_{kind}"),
            table.column(f"error_{kind}"),
            table.facts[kind]["images"],
            np.asarray(table.facts[kind]["ledger"], np.float64).reshape(-1, len(COLUMNS)),
            table.resamples(f"omega_{kind}"),
        )

    def resample(self, i: int) -> Relevance:
        """Relevance with the omega of a resample of the images."""
        return replace(self, omega=self.resamples[i])

    @staticmethod
    def can_use(facts: Mapping[str, Any], operations: int) -> bool:
        """Whether facts from a file are those of a table for `from_table`.

        Args:
            operations: number of leaky operations of the detector.
        """
        for kind in ("fake", "real"):
            found = facts.get(kind)
            found = found if isinstance(found, dict) else {}
            images, ledger = found.get("images"), found.get("ledger")
            if type(images) is not int or images < 0 or not isinstance(ledger, list):
                return False
            lines = [line for line in ledger if isinstance(line, list)]
            if not operations == len(lines) == len(ledger):
                return False
            for line in lines:
                numbers = [value for value in line if isinstance(value, float | None)]
                if not len(COLUMNS) == len(numbers) == len(line):
                    return False
        return True


@dataclass(frozen=True)
class Outputs:
    """Outputs of a detector for each image.

    Attributes:
        logits: (N,).
        responses: (N, k) spatial maxima of the requested channels, or None.
        sample: (n, n_channels) float32 spatial maxima of all channels for a sample of the images,
            or None.
    """

    logits: Floats
    responses: Floats | None = None
    sample: NDArray[np.float32] | None = None

    @classmethod
    def from_table(cls, table: Table, channels: Tensor, sample: Ints) -> Outputs:
        """From the result of `Passes.compute_outputs`, which may hold more than is requested."""
        names, responses, sampled = response_columns(channels), None, None
        if names:
            responses = table.rows[names].to_numpy(float)
        if len(sample):
            assert table.sample is not None
            same = np.array_equal(table.sampled, sample)
            sampled = table.sample if same else table.sample[np.isin(table.sampled, sample)]
        return cls(table.column("logit"), responses, sampled)


@dataclass(frozen=True)
class Activity:
    """Activity of each channel over the images, (n_channels,) each, from raw outputs y.

    Let g = sum over positions of y dlogit/dy for one image: the first-order change of the logit if
    the channel is dropped, with the opposite sign (Molchanov et al., ICLR 2017).

    Attributes:
        output: mean of y over images of both kinds and positions, for a head over its dimensions
            too.
        response: mean over generated images of the spatial maximum of y.
        effect: mean over generated images of |g|.
        effect_all: the same over images of both kinds.
        contrast: mean of g over generated images minus that over real ones, each image counting
            once: the part of the gap between the mean logits of both kinds that, to first order,
            goes through the channel.
        slope_contrast: the same of the sum over positions of dlogit/dy. `contrast` minus `output`
            times this is the contrast for channels that are replaced by their mean, not by 0;
            not for heads, whose mean is a vector.
        weight: norm of the channel's filter; needs no images.
        resamples: attribute -> (RESAMPLES, n_channels) on resamples of the images, for those in
            `RESAMPLED`.
        heads: layer -> mean output of its heads over images and positions, (heads * width,).
    """

    output: Floats
    response: Floats
    effect: Floats
    effect_all: Floats
    contrast: Floats
    slope_contrast: Floats
    weight: Floats
    resamples: Mapping[str, Floats]
    heads: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: Table) -> Activity:
        """From the result of `Passes.compute_activity`."""
        resamples = {name: table.resamples(name) for name in RESAMPLED}
        heads = {layer: np.array(mean) for layer, mean in table.facts.get("heads", {}).items()}
        columns = {name: table.column(name) for name in ACTIVITY}
        return cls(**columns, resamples=resamples, heads=heads)

    @staticmethod
    def can_use(facts: Mapping[str, Any], channels: Channels) -> bool:
        """Whether facts from a file are those of a table for `from_table`."""
        found = facts.get("heads", {})
        layers = [layer for layer in channels.layers if channels.kind(layer) == "heads"]
        return (
            isinstance(found, dict)
            and sorted(found) == sorted(layers)
            and all(
                isinstance(mean, list)
                and len(mean) >= channels.widths[layer]
                and len(mean) % channels.widths[layer] == 0
                and all(isinstance(value, float) for value in mean)
                for layer, mean in found.items()
            )
        )

    def means(self, channels: Channels) -> dict[str, Tensor]:
        """Mean outputs by layer, to replace dropped channels."""
        of_layer = channels.split(torch.from_numpy(self.output))
        of_layer |= {layer: torch.from_numpy(mean) for layer, mean in self.heads.items()}
        return {layer: channels.broadcast(layer, mean) for layer, mean in of_layer.items()}

    def resample(self, i: int) -> Activity:
        """Activity on a resample of the images; the means of `output` stay."""
        return replace(self, **{name: values[i] for name, values in self.resamples.items()})


#: Share of the channels that are removed step by step, see `Passes.compute_removal_order`.
REMOVED = 0.02
#: Attributes of `Activity` that are columns of its table.
ACTIVITY = (
    "output", "response", "effect", "effect_all", "contrast", "slope_contrast", "weight",
)  # fmt: skip
#: Attributes of `Activity` that are known on resamples of the images.
RESAMPLED = ("response", "effect", "effect_all", "contrast", "slope_contrast")


#: Bytes of a value on all resamples of the images, float32.
RESAMPLES_SIZE = 4 * RESAMPLES


def resample_column(name: str) -> str:
    """Column of the bytes of a value on all resamples of the images and on their halves."""
    return f"{name} resampled"


def response_columns(channels: Tensor) -> list[str]:
    """Columns of the responses of channels (k,)."""
    return [f"response {channel}" for channel in channels.tolist()]


def labels_of(images: Images) -> Ints:
    """Labels (N,): 0 real, 1 generated."""
    return images.manifest["label"].to_numpy(np.int64)


def sample_evenly(images: Images, limit: int) -> Ints:
    """Rows (n,), evenly spaced: at most `limit` of each generator and label."""
    rows = [np.empty(0, np.int64)]
    for _, group in images.manifest.groupby(["generator", "label"]):
        number = min(limit, len(group))
        rows.append(group.index.to_numpy()[np.arange(number) * len(group) // max(1, number)])
    return np.sort(np.concatenate(rows)).astype(np.int64)


def draw_images(images: Images, number: int, seed: int) -> Images:
    """Images drawn at random with replacement."""
    rows = np.random.default_rng([seed, 2]).integers(0, len(images), number)
    return replace(images, manifest=images.manifest.iloc[rows].reset_index(drop=True))


T = TypeVar("T")
log = logging.getLogger(__name__)
#: Messages of out-of-memory errors without a class of their own: CPU, cuBLAS, cuDNN, and CUDA
#: outside torch's allocator.
_MEMORY = re.compile(
    r"allocate memory|CU(?:BLAS|DNN)_STATUS_\w*ALLOC(?:ATION)?_FAILED|CUDA error: out of memory"
)


def channels_last(image: Tensor) -> Tensor:
    """Images (B, 3, H, W) in the memory format in which convolutions are fast."""
    return image.contiguous(memory_format=torch.channels_last)


class SplitWhenOutOfMemory(Generic[T]):
    """Runs a function on batches, and on halves of them where memory runs out.

    Later batches use the size that was found to fit. Results of a split batch may differ from those
    of the entire batch in the last bits.

    Args:
        work: takes a batch; has no effect if it fails.
        name: of the pass, for messages.
    """

    def __init__(self, work: Callable[[Batch], T], name: str) -> None:
        self.work, self.name = work, name
        self.size: int | None = None

    def __call__(self, batch: Batch) -> Iterator[tuple[Batch, T]]:
        """Each part of the batch with its result.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: not even one image fits.
        """
        start = 0
        while start < len(batch.label):
            size = min(self.size or len(batch.label), len(batch.label) - start)
            part = Batch(*(column[start : start + size] for column in batch))
            try:
                result = self.work(part)
            except (RuntimeError, MemoryError) as error:
                known = isinstance(error, torch.OutOfMemoryError | MemoryError)
                if size == 1 or not (known or _MEMORY.search(str(error))):
                    raise
            else:
                start += size
                yield part, result
                continue
            # Not in the handler: the exception keeps the tensors alive that fill the memory.
            self.size = (size + 1) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning(
                "%s: %d images do not fit into memory; continuing with %d at a time "
                "(set subject.batch_size=%d to start with that)",
                self.name, size, self.size, self.size,
            )  # fmt: skip


@dataclass(frozen=True)
class Passes:
    """Passes of a detector over images.

    Args:
        detector: in eval mode, without gradients for its weights.
        lrp: its relevance method.
        device: where it runs.
        batch_size: images per batch and process.
        workers: processes that load images.
    """

    detector: Detector
    lrp: LRP
    device: torch.device
    batch_size: int
    workers: int

    @cached_property
    def _input_sizes(self) -> InputSizes:
        return InputSizes(self.detector)

    def compute_relevance(self, images: Images, confidence: float) -> Table:
        """FF-RS over generated (`fake`) and `real` images, a row per channel, and conservation.

        Args:
            confidence: generated images count with P(generated) of at least this, real ones with
                at most one minus this.
        """
        lrp, width = self.lrp, len(self.detector.channels)
        n_lines, kinds = len(lrp.leaky_operations) * len(COLUMNS), ("fake", "real")
        omega = {kind: FFRS(width).to(self.device) for kind in kinds}
        conservation = {kind: ExactMean(n_lines).to(self.device) for kind in kinds}
        resampled = {kind: ResampledMeans(width).to(self.device) for kind in kinds}

        def explain(batch: Batch) -> Explanation:
            return lrp.explain(batch.image, torch.where(batch.label == 1, 1.0, lrp.real_sign))

        def collect(batch: Batch, explanation: Explanation) -> None:
            p = explanation.logit.sigmoid()
            confident = {
                "fake": (batch.label == 1) & (p >= confidence),
                "real": (batch.label == 0) & (p <= 1 - confidence),
            }
            for kind, mask in confident.items():
                omega[kind].update(explanation.shares[mask])
                resampled[kind].update(batch.index[mask.cpu()], explanation.shares[mask])
                conservation[kind].update(explanation.conservation[mask].flatten(1))

        statistics: dict[str, Metric] = {f"omega {kind}": omega[kind] for kind in kinds}
        statistics |= {f"conservation {kind}": conservation[kind] for kind in kinds}
        statistics |= {f"resampled {kind}": resampled[kind] for kind in kinds}
        self._run(images, "relevance", explain, collect, statistics)
        rows, facts = self.detector.channels.table(), {}
        for kind in kinds:
            mean, error, count = omega[kind].summary()
            rows[f"omega_{kind}"], rows[f"error_{kind}"] = mean.cpu().numpy(), error.cpu().numpy()
            rows = _add_resamples(rows, f"omega_{kind}", resampled[kind].compute())
            means = conservation[kind].compute().reshape(-1, len(COLUMNS))
            facts[kind] = {"images": count, "ledger": means.cpu().tolist()}
        return Table(rows, facts)

    def compute_outputs(
        self, images: Images, ablation: CueRemoval | None, channels: Tensor, sample: Ints
    ) -> Table:
        """Logits and spatial maxima of channels, a row per image.

        Args:
            ablation: removes a cue from the images; None: images as they are.
            channels: (k,) flat indices of those recorded for every image.
            sample: (n,) rows, ascending, of the images for which all channels are recorded.
        """
        per_image = PerImage(1 + len(channels)).to(self.device)
        everything = torch.arange(len(self.detector.channels))
        per_sampled = PerImage(len(everything), torch.float32)  # not on the GPU: it is large
        is_sampled = torch.zeros(len(images), dtype=torch.bool)
        is_sampled[torch.from_numpy(sample)] = True
        name = "logits" if ablation is None else f"without {ablation.cue}"
        recorded = everything if len(sample) else channels
        with torch.inference_mode(), record_responses(self.detector, recorded) as responses:

            def compute(batch: Batch) -> tuple[Tensor, Tensor | None]:
                image = batch.image if ablation is None else channels_last(ablation(batch.image))
                logits = self.detector(image)[:, None]
                maxima = [responses.select(channels)] if len(channels) else []
                here = is_sampled[batch.index]
                sampled = responses.select(everything).cpu()[here] if here.any() else None
                return torch.cat([logits, *maxima], dim=1), sampled

            def collect(batch: Batch, result: tuple[Tensor, Tensor | None]) -> None:
                values, sampled = result
                per_image.update(batch.index, values)
                if sampled is not None:
                    per_sampled.update(batch.index[is_sampled[batch.index]], sampled)

            statistics = {"per image": per_image, "per sampled": per_sampled}
            self._run(images, name, compute, collect, statistics)
        if get_world_size() > 1:
            with fail_together():  # a GPU may have no room for it
                per_sampled.to(self.device)  # GPUs exchange only data in their memory
        values = per_image.compute().cpu().numpy()
        columns = ["logit", *response_columns(channels)]
        names = self.detector.channels.names()
        return Table(
            _name_rows(images, pd.DataFrame(values, columns=columns)),
            {column: names[i] for column, i in zip(columns[1:], channels.tolist(), strict=True)},
            sample,
            per_sampled.compute().cpu().numpy() if len(sample) else None,
        )

    def compute_outputs_without_channels(
        self, images: Images, choices: Mapping[str, Tensor], instead: Instead
    ) -> Table:
        """Logits with each choice of channels dropped, a row per image, a column per choice.

        Args:
            choices: name -> (k,) flat indices of the channels to drop.
            instead: replaces the raw output of a dropped channel: None: 0; values by layer, see
                `Channels.broadcast`; images, the i-th of which gives its feature maps to the i-th
                of `images`; or an ablation: the maps of the same image without that cue (activation
                patching).
        """
        per_image = PerImage(len(choices)).to(self.device)
        layers = list(self.detector.channels.masks(torch.cat(list(choices.values()))))

        def compute(batch: Batch) -> Tensor:
            replacement: Replacement = instead if isinstance(instead, Mapping) else None
            if not isinstance(instead, Mapping | None):
                other = (
                    self._load_replacements(instead, batch)
                    if isinstance(instead, Images)
                    else channels_last(instead(batch.image))
                )
                with record_outputs(self.detector, layers) as replacement:
                    self.detector(other)
            columns = []
            for channels in choices.values():
                with drop_channels(self.detector, channels, replacement):
                    columns.append(self.detector(batch.image))
            return torch.stack(columns, dim=1)

        def collect(batch: Batch, logits: Tensor) -> None:
            per_image.update(batch.index, logits)

        with torch.inference_mode():
            self._run(images, "channels dropped", compute, collect, {"per image": per_image})
        logits = pd.DataFrame(per_image.compute().cpu().numpy(), columns=list(choices))
        dropped = {name: sorted(channels.tolist()) for name, channels in choices.items()}
        return Table(_name_rows(images, logits), dropped)

    def compute_activity(self, images: Images) -> Table:
        """`Activity`, a row per channel."""
        channels = self.detector.channels
        layers, join = channels.layers, channels.join
        width = len(channels)
        output, response = (ExactMean(width).to(self.device) for _ in range(2))
        vectors = {
            layer: ExactMean(self._weight(layer).shape[1]).to(self.device)
            for layer in layers
            if channels.kind(layer) == "heads"
        }
        # Effects are small.
        effect, effect_all = (ExactMean(width, 2**40, 2**8).to(self.device) for _ in range(2))
        # Of g and of the sum of slopes, over real (0) and generated (1) images.
        signed = [ExactMean(2 * width, 2**36, 2**14).to(self.device) for _ in range(2)]
        again = {
            name: ResampledMeans(columns * width, scale, 2**14).to(self.device)
            for name, columns, scale in (
                ("response", 1, 2**24), ("effect", 1, 2**28), ("effect_all", 1, 2**28),
                ("real", 2, 2**28), ("fake", 2, 2**28),
            )
        }  # fmt: skip

        def compute(batch: Batch) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
            pairs = self._values_and_slopes(batch)
            g = join({name: _sum(y * slope) for name, (y, slope) in pairs.items()})
            slope = join({name: _sum(slope) for name, (_, slope) in pairs.items()})
            maxima = join({name: channels.peak(name, y) for name, (y, _) in pairs.items()})
            means = join({name: y.mean(_places(y)) for name, (y, _) in pairs.items()})
            # (B, heads, tokens, width) -> (B, heads * width)
            of_heads = {name: pairs[name][0].mean(2).flatten(1) for name in vectors}
            return means, maxima, torch.cat([g, slope], dim=1), of_heads

        def collect(batch: Batch, result: tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]) -> None:
            means, maxima, both, of_heads = result
            output.update(means)
            for layer, values in of_heads.items():
                vectors[layer].update(values)
            sizes = both[:, :width].abs()
            effect_all.update(sizes)
            again["effect_all"].update(batch.index, sizes)
            for label, kind in enumerate(("real", "fake")):
                mask = batch.label == label
                rows = batch.index[mask.cpu()]
                signed[label].update(both[mask])
                again[kind].update(rows, both[mask])
            response.update(maxima[mask])
            effect.update(sizes[mask])
            again["response"].update(rows, maxima[mask])
            again["effect"].update(rows, sizes[mask])

        with torch.inference_mode(False), torch.enable_grad():
            statistics: dict[str, Metric] = {
                "output": output, "response": response, "effect": effect,
                "effect_all": effect_all, "signed real": signed[0],
                "signed fake": signed[1],
            }  # fmt: skip
            statistics |= {f"resampled {name}": metric for name, metric in again.items()}
            statistics |= {f"mean of {layer}": metric for layer, metric in vectors.items()}
            self._run(images, "activity", compute, collect, statistics)
        rows = channels.table()
        gap = signed[1].compute() - signed[0].compute()
        gaps = again["fake"].compute() - again["real"].compute()
        for name, mean in (
            ("output", output.compute()), ("response", response.compute()),
            ("effect", effect.compute()), ("effect_all", effect_all.compute()),
            ("contrast", gap[:width]), ("slope_contrast", gap[width:]),
        ):  # fmt: skip
            rows[name] = mean.cpu().numpy()
        norms = join({layer: self._weight_norms(layer) for layer in layers})
        rows["weight"] = norms.detach().double().cpu().numpy()
        resamples = {name: again[name].compute() for name in ("response", "effect", "effect_all")}
        resamples |= {"contrast": gaps[:, :width], "slope_contrast": gaps[:, width:]}
        for name, values in resamples.items():
            rows = _add_resamples(rows, name, values)
        heads = {layer: metric.compute().cpu().tolist() for layer, metric in vectors.items()}
        return Table(rows, {"heads": heads} if heads else {})

    def compute_attribution(self, images: Images, ablation: CueRemoval) -> Table:
        """Effects of a cue through each channel, estimated; a row per channel.

        See `attribution.Attribution`. For each stratum of the images, by its number, the columns
        `effect 0` and `error 0`.
        """
        channels, strata = self.detector.channels, number_strata(images)
        layers, number = channels.layers, strata.max(initial=-1) + 1
        # Effects, which are small, and their squares.
        means = [ExactMean(2 * len(channels), 2**40).to(self.device) for _ in range(number)]

        def run(image: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
            with record_outputs(self.detector, layers) as outputs:
                logits = self.detector(image.clone().requires_grad_())
            maps = [outputs[name] for name in layers]
            return [y.detach() for y in maps], torch.autograd.grad(logits.sum(), maps)

        def compute(batch: Batch) -> Tensor:
            with_cue, without = run(batch.image), run(channels_last(ablation(batch.image)))
            effects = {
                layer: (y - other) * (slope + other_slope) / 2
                for layer, y, slope, other, other_slope in zip(
                    layers, *with_cue, *without, strict=True
                )
            }
            by_image = partial(channels.by_image, images=len(batch.image))
            return channels.join({n: _sum(by_image(n, effect)) for n, effect in effects.items()})

        def collect(batch: Batch, effects: Tensor) -> None:
            if len(rows := batch.index[effects.isnan().any(dim=1).cpu()]):
                raise ValueError(
                    f"the effects of {ablation.cue} are no numbers (NaN) for some images, such as "
                    f"{images.manifest['path'].iloc[int(rows[0])]}: the detector's training has "
                    "diverged, or its activations overflow"
                )
            values = torch.cat([effects, effects.double().square()], dim=1)
            of_batch = strata[batch.index.numpy()]
            for stratum in np.unique(of_batch):
                means[stratum].update(values[torch.from_numpy(of_batch == stratum)])

        with torch.inference_mode(False), torch.enable_grad():
            statistics = {f"stratum {i}": mean for i, mean in enumerate(means)}
            self._run(images, f"effects of {ablation.cue}", compute, collect, statistics)
        rows = channels.table()
        for i, metric in enumerate(means):
            with metric.sync_context():
                mean, square = ExactMean.compute(metric).cpu().numpy().reshape(2, -1)
                count = int(metric.counts[0])
            error = np.sqrt(np.maximum(square - mean**2, 0) / max(count - 1, 1))
            rows[f"effect {i}"], rows[f"error {i}"] = mean, error if count > 1 else np.nan
        return Table(rows)

    def compute_removal_order(self, images: Images) -> Table:
        """Place of each channel when those with the largest contrast are removed one after another.

        Contrast says to first order what the removal of one channel does. When several are gone, it
        is another, so it is computed anew for the detector without them: after 1, 2, 4, 7, 12, ...
        channels (steps of Fibonacci numbers: the first are removed one by one), until `REMOVED` of
        all are. The rest is ordered by the last contrast.

        Returns:
            A row per channel; column `greedy`: 1 for the last, up to the number of channels for the
            first. NaN without images of both kinds.
        """
        channels, order = self.detector.channels, torch.empty(0, dtype=torch.int64)
        step, later, last = 1, 1, math.ceil(REMOVED * len(channels))
        rows = channels.table()
        while len(order) < len(channels):
            contrast = self._compute_contrast(images, order)
            if contrast.isnan().any():
                return Table(rows.assign(greedy=np.nan))
            contrast[order] = -torch.inf
            best = contrast.sort(descending=True, stable=True).indices
            number = step if len(order) < last else len(channels)
            order = torch.cat([order, best[: min(number, len(channels) - len(order))]])
            step, later = later, step + later
        place = np.empty(len(channels))
        place[order.numpy()] = np.arange(len(channels), 0, -1)
        return Table(rows.assign(greedy=place))

    def _compute_contrast(self, images: Images, dropped: Tensor) -> Tensor:
        """Contrast of each channel of the detector without some, (n_channels,), see `Activity`."""
        join, width = self.detector.channels.join, len(self.detector.channels)
        of_kind = [ExactMean(width, 2**36, 2**14).to(self.device) for _ in range(2)]

        def compute(batch: Batch) -> Tensor:
            with drop_channels(self.detector, dropped):
                pairs = self._values_and_slopes(batch)
            return join({name: _sum(y * slope) for name, (y, slope) in pairs.items()})

        def collect(batch: Batch, g: Tensor) -> None:
            for label, metric in enumerate(of_kind):
                metric.update(g[batch.label == label])

        name = f"contrast without {len(dropped)} channels" if len(dropped) else "contrast"
        with torch.inference_mode(False), torch.enable_grad():
            statistics = {f"{kind}": metric for kind, metric in enumerate(of_kind)}
            self._run(images, name, compute, collect, statistics)
        real, fake = (metric.compute().cpu() for metric in of_kind)
        return fake - real

    def _values_and_slopes(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """What each layer computes, (B, C, ...), and the derivative of the logit by it."""
        channels = self.detector.channels
        with record_outputs(self.detector, channels.layers) as outputs:
            logits = self.detector(batch.image.clone().requires_grad_())
        slopes = torch.autograd.grad(logits.sum(), [outputs[name] for name in channels.layers])
        apart = partial(channels.by_image, images=len(batch.image))
        return {
            name: (apart(name, outputs[name].detach()), apart(name, slope))
            for name, slope in zip(channels.layers, slopes, strict=True)
        }

    def _weight_norms(self, layer: str) -> Tensor:
        """Norm of the weights that make each channel of a layer, or read it if it is a head."""
        weight = self._weight(layer)
        if self.detector.channels.kind(layer) == "heads":
            weight = weight.T.reshape(self.detector.channels.widths[layer], -1)
        else:
            weight = weight[self.detector.channels.rows(layer)]
        norms: Tensor = weight.flatten(1).norm(dim=1)
        return norms

    def _weight(self, layer: str) -> Tensor:
        weight: Tensor = next(self.detector.network.get_submodule(layer).parameters())
        return weight

    def _load_replacements(self, images: Images, batch: Batch) -> Tensor:
        """The images whose feature maps replace those of a batch."""
        loaded = [images[0, int(row)].image for row in batch.index]
        if odd := [image.shape for image in loaded if image.shape != batch.image.shape[1:]]:
            raise ValueError(
                "channels cannot be resampled between images of different sizes "
                f"({tuple(odd[0][1:])} and {tuple(batch.image.shape[2:])}); pass "
                "data.crop=center224 discovery.crop=center224, or another crop that all have"
            )
        return channels_last(torch.stack(loaded).to(self.device).float() / 255)

    def _run(
        self,
        images: Images,
        name: str,
        compute: Callable[[Batch], T],
        collect: Callable[[Batch, T], None],
        statistics: Mapping[str, Metric],
    ) -> None:
        """Compute something for each batch of this process, and collect the results.

        Collective: if one rank raises, all raise.

        Args:
            name: of the pass, for the progress bar and messages.
            compute: takes a batch on the device, in [0, 1]; called again with smaller batches if
                memory runs out.
            collect: takes a batch, or a part of one, and its result; called once for each image.
            statistics: to which `collect` adds the results.
        """
        order = EvaluationBatches(images, self.batch_size)
        self._input_sizes.require(images.sizes(), images.manifest["path"].tolist())
        with (
            fail_together() as check,
            Parts(statistics, name, len(order), self.batch_size) as parts,
        ):
            order.first = parts.done
            run = SplitWhenOutOfMemory(compute, name)
            for batch in track(loader(images, order, self.workers), name):
                check()
                image = channels_last(batch.image.to(self.device).float() / 255)
                for part, result in run(Batch(image, batch.label.to(self.device), batch.index)):
                    parts.begin_batch()
                    collect(part, result)
                parts.end_batch()


def _places(values: Tensor) -> tuple[int, ...]:
    """All axes but those of images and channels."""
    return tuple(range(2, values.ndim))


def _sum(values: Tensor) -> Tensor:
    """(B, C, ...) -> (B, C)."""
    return values.sum(_places(values))


def _name_rows(images: Images, values: pd.DataFrame) -> pd.DataFrame:
    """The values beside path, generator and label of each image."""
    names = images.manifest[["path", "generator", "label"]].reset_index(drop=True)
    return pd.concat([names, values], axis=1)


def _add_resamples(rows: pd.DataFrame, name: str, values: Tensor) -> pd.DataFrame:
    """Rows with the bytes of a value on all resamples of the images, (RESAMPLES, n_rows)."""
    # One column: a file with one for each resample would be mostly names.
    of_row = values.cpu().float().numpy().T
    return rows.assign(**{resample_column(name): [one.tobytes() for one in of_row]})
