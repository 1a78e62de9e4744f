"""Passes over the images: logits, responses and relevance, on all processes."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.data.dataset import Images
from tff.data.loaders import EvaluationBatches, loader
from tff.detectors.detector import Detector
from tff.detectors.hooks import Replacement, drop_channels, record_outputs, record_responses
from tff.distributed import fail_together, get_world_size
from tff.progress import track
from tff.relevance.conservation import COLUMNS
from tff.relevance.lrp import LRP, Explanation
from tff.statistics.ffrs import FFRS, ExactMean
from tff.statistics.per_image import PerImage as RowValues
from tff.types import Batch, Floats, Ints

Cue = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Relevance:
    """What a pass of relevance tells of one kind of images.

    Attributes:
        omega: (n_channels,) FF-RS of each channel.
        error: (n_channels,) its standard error.
        images: how many images are behind it.
        ledger: (n_accounts, 5) means over these images, see `relevance.conservation.COLUMNS`.
    """

    omega: Floats
    error: Floats
    images: int
    ledger: Floats


@dataclass(frozen=True)
class Outputs:
    """Detector and channels on each image.

    Attributes:
        logits: (N,).
        responses: (N, k) spatial maxima of the channels that were asked for, or None.
        sample: (n, n_channels) float32, those of all channels for some of the images, or None.
    """

    logits: Floats
    responses: Floats | None = None
    sample: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Activity:
    """Means over images of what a channel does, (n_channels,) each, from raw outputs y.

    Attributes:
        output: mean of y over images of both kinds and places.
        response: mean of the spatial maximum of y over generated images.
        effect: mean over generated images of |sum over places of y dlogit/dy|, the change of the
            logit, to first order, when the channel is dropped (Molchanov et al., ICLR 2017).
        weight: length of the channel's filter; needs no images.
    """

    output: Floats
    response: Floats
    effect: Floats
    weight: Floats


def labels_of(images: Images) -> NDArray[np.int64]:
    """(N,) 0 real, 1 generated."""
    return images.manifest["label"].to_numpy(np.int64)


def sample_evenly(images: Images, limit: int) -> Ints:
    """Ints (n,), at most so many of each generator and label, evenly spread over them."""
    rows = [np.empty(0, np.int64)]
    for _, group in images.manifest.groupby(["generator", "label"]):
        number = min(limit, len(group))
        rows.append(group.index.to_numpy()[np.arange(number) * len(group) // max(1, number)])
    return np.sort(np.concatenate(rows)).astype(np.int64)


def draw_images(images: Images, number: int, seed: int) -> Images:
    """So many images, drawn at random with replacement."""
    rows = np.random.default_rng([seed, 2]).integers(0, len(images), number)
    return replace(images, manifest=images.manifest.iloc[rows].reset_index(drop=True))


T = TypeVar("T")
log = logging.getLogger(__name__)
#: What has no error of its own: memory of the CPU, of cuBLAS and cuDNN, and of CUDA beside torch.
_MEMORY = re.compile(
    r"allocate memory|CU(?:BLAS|DNN)_STATUS_\w*ALLOC(?:ATION)?_FAILED|CUDA error: out of memory"
)


def for_each_batch(
    batches: Iterable[Batch],
    device: torch.device,
    name: str,
    look: Callable[[Batch], T],
    keep: Callable[[Batch, T], None],
) -> None:
    """Look at each batch, and keep what was found.

    Args:
        batches: of this process, uint8.
        name: of the pass, for people.
        look: at a batch on the device, in [0, 1]; it may be asked again for a part of it.
        keep: what was found, once for each image.

    Raises:
        OtherProcessError: another process failed.
    """
    with fail_together() as check:
        fitting = SplitWhenOutOfMemory(look, name)
        for batch in track(batches, name):
            check()
            image = channels_last(batch.image.to(device).float() / 255)
            for part, found in fitting(Batch(image, batch.label.to(device), batch.index)):
                keep(part, found)


def channels_last(image: Tensor) -> Tensor:
    """(B, 3, H, W) in the order of memory in which convolutions are fast."""
    return image.contiguous(memory_format=torch.channels_last)


class SplitWhenOutOfMemory(Generic[T]):
    """Does something with a batch; where memory runs out, with its halves, and so on.

    Later batches are taken in the size that was found. Parts of a batch may differ from the whole
    in the last bits of a result.

    Args:
        work: on a batch; leaves nothing behind when it fails.
        name: of the work, for messages.
    """

    def __init__(self, work: Callable[[Batch], T], name: str) -> None:
        self.work, self.name = work, name
        self.size: int | None = None

    def __call__(self, batch: Batch) -> Iterator[tuple[Batch, T]]:
        """Each part of the batch with what was found in it.

        Raises:
            torch.OutOfMemoryError, MemoryError, RuntimeError: not even one image fits.
        """
        start = 0
        while start < len(batch.label):
            size = min(self.size or len(batch.label), len(batch.label) - start)
            part = Batch(*(column[start : start + size] for column in batch))
            if (found := self._tried(part)) is None:
                self._shrink(size)
                continue
            start += size
            yield part, found[0]

    def _tried(self, part: Batch) -> tuple[T] | None:
        try:
            return (self.work(part),)
        except (RuntimeError, MemoryError) as error:
            if len(part.label) == 1 or not _is_of_memory(error):
                raise
        return None  # here, since the exception would keep alive what fills the memory

    def _shrink(self, size: int) -> None:
        self.size = (size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "%s: %d images do not fit into memory; going on with %d at a time "
            "(subject.batch_size=%d would do so from the start)",
            self.name, size, self.size, self.size,
        )  # fmt: skip


def _is_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or _MEMORY.search(str(error)) is not None


@dataclass(frozen=True)
class Passes:
    """How images are read and where they are computed on."""

    detector: Detector
    lrp: LRP
    device: torch.device
    batch_size: int
    workers: int

    def relevance(self, images: Images, confidence: float) -> dict[str, Relevance]:
        """From `fake` and from `real` images that the detector is sure about."""
        lrp, width = self.lrp, len(self.detector.channels)
        lines, kinds = len(lrp.leaky_operations) * len(COLUMNS), ("fake", "real")
        omega = {kind: FFRS(width).to(self.device) for kind in kinds}
        ledger = {kind: ExactMean(lines).to(self.device) for kind in kinds}

        def explain(batch: Batch) -> Explanation:
            return lrp.explain(batch.image, torch.where(batch.label == 1, 1.0, lrp.real_sign))

        def keep(batch: Batch, found: Explanation) -> None:
            p = found.logit.sigmoid()
            sure = {
                "fake": (batch.label == 1) & (p >= confidence),
                "real": (batch.label == 0) & (p <= 1 - confidence),
            }
            for kind, chosen in sure.items():
                omega[kind].update(found.shares[chosen])
                ledger[kind].update(found.conservation[chosen].flatten(1))

        self._each(images, "relevance", explain, keep)
        result = {}
        for kind in kinds:
            mean, error, count = omega[kind].summary()
            means = ledger[kind].compute().reshape(-1, len(COLUMNS))
            result[kind] = Relevance(
                mean.cpu().numpy(), error.cpu().numpy(), count, means.cpu().numpy()
            )
        return result

    def evaluate(self, images: Images, cue: Cue | None, channels: Tensor, sample: Ints) -> Outputs:
        """Logits and spatial maxima, with a cue taken away.

        Args:
            channels: (k,) those whose maxima are kept of every image.
            sample: (n,) rows, ascending, of the images of which those of all channels are kept.
        """
        rows = RowValues(1 + len(channels)).to(self.device)
        everything = torch.arange(len(self.detector.channels))
        all_of = RowValues(len(everything), torch.float32)  # not on the GPU: it is large
        wanted = torch.zeros(len(images), dtype=torch.bool)
        wanted[torch.from_numpy(sample)] = True
        name = "logits" if cue is None else f"without {getattr(cue, 'cue', 'the cue')}"
        watched = everything if len(sample) else channels
        with torch.inference_mode(), record_responses(self.detector, watched) as responses:

            def look(batch: Batch) -> tuple[Tensor, Tensor | None]:
                image = batch.image if cue is None else channels_last(cue(batch.image))
                logits = self.detector(image)[:, None]
                maxima = [responses.select(channels)] if len(channels) else []
                here = wanted[batch.index]
                of_all = responses.select(everything).cpu()[here] if here.any() else None
                return torch.cat([logits, *maxima], dim=1), of_all

            def keep(batch: Batch, found: tuple[Tensor, Tensor | None]) -> None:
                values, of_all = found
                rows.update(batch.index, values)
                if of_all is not None:
                    all_of.update(batch.index[wanted[batch.index]], of_all)

            self._each(images, name, look, keep)
        if get_world_size() > 1:
            with fail_together():  # one GPU may have no room for it
                all_of.to(self.device)  # since processes on GPUs can exchange only what lies there
        values = rows.compute().cpu().numpy()
        return Outputs(
            values[:, 0],
            values[:, 1:] if len(channels) else None,
            all_of.compute().cpu().numpy() if len(sample) else None,
        )

    def evaluate_dropped(
        self, images: Images, choices: Mapping[str, Tensor], instead: Tensor | Images | None
    ) -> dict[str, Floats]:
        """Logits (N,) with each choice of channels dropped; every image is read once.

        Args:
            instead: what stands in place of a channel: None for 0, values (n_channels,), or images,
                the i-th of which lends its maps to the i-th of `images`.
        """
        rows = RowValues(len(choices)).to(self.device)
        layers = list(self.detector.channels.masks(torch.cat(list(choices.values()))))

        def look(batch: Batch) -> Tensor:
            other: Replacement = instead if isinstance(instead, Tensor) else None
            if isinstance(instead, Images):
                with record_outputs(self.detector, layers) as other:
                    self.detector(self._lenders(instead, batch))
            columns = []
            for channels in choices.values():
                with drop_channels(self.detector, channels, other):
                    columns.append(self.detector(batch.image))
            return torch.stack(columns, dim=1)

        with torch.inference_mode():
            self._each(
                images, "channels dropped", look, lambda batch, z: rows.update(batch.index, z)
            )
        return dict(zip(choices, rows.compute().cpu().numpy().T, strict=True))

    def activity(self, images: Images) -> Activity:
        """What each channel does on the average image."""
        layers, join = self.detector.channels.layers, self.detector.channels.join
        both = ExactMean(len(self.detector.channels)).to(self.device)
        of_fakes = ExactMean(len(self.detector.channels)).to(self.device)
        effects = ExactMean(len(self.detector.channels), 2**40, 2**8).to(self.device)  # are small

        def look(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            with record_outputs(self.detector, layers) as found:
                logits = self.detector(batch.image.clone().requires_grad_())
            slopes = torch.autograd.grad(logits.sum(), [found[name] for name in layers])
            maps = {name: y.detach() for name, y in found.items()}
            pairs = zip(maps.items(), slopes, strict=True)
            effect = join({name: (y * slope).sum((2, 3)).abs() for (name, y), slope in pairs})
            response = join({name: y.amax((2, 3)) for name, y in maps.items()})
            return join({name: y.mean((2, 3)) for name, y in maps.items()}), response, effect

        def keep(batch: Batch, found: tuple[Tensor, Tensor, Tensor]) -> None:
            mean, response, effect = found
            both.update(mean)
            of_fakes.update(response[batch.label == 1])
            effects.update(effect[batch.label == 1])

        with torch.inference_mode(False), torch.enable_grad():
            self._each(images, "activity", look, keep)
        output, largest, moved = (m.compute().cpu().numpy() for m in (both, of_fakes, effects))
        return Activity(output, largest, moved, _norms(self.detector))

    def _lenders(self, images: Images, batch: Batch) -> Tensor:
        """The images that lend their maps to a batch."""
        lent = [images[0, int(row)].image for row in batch.index]
        if odd := [image.shape for image in lent if image.shape != batch.image.shape[1:]]:
            raise ValueError(
                "channels cannot be resampled between images of different sizes "
                f"({tuple(odd[0][1:])} and {tuple(batch.image.shape[2:])}); pass "
                "data.crop=center224 discovery.crop=center224, or another crop that all have"
            )
        return channels_last(torch.stack(lent).to(self.device).float() / 255)

    def _each(
        self,
        images: Images,
        name: str,
        look: Callable[[Batch], T],
        keep: Callable[[Batch, T], None],
    ) -> None:
        batches = loader(images, EvaluationBatches(images, self.batch_size), self.workers)
        for_each_batch(batches, self.device, name, look, keep)


def _norms(detector: Detector) -> Floats:
    """Length of the filter of each channel, (n_channels,)."""
    filters = {
        layer: next(detector.network.get_submodule(layer).parameters()).flatten(1).norm(dim=1)
        for layer in detector.channels.layers
    }
    norms: Floats = detector.channels.join(filters).detach().double().cpu().numpy()
    return norms
