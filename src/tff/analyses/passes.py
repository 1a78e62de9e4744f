"""Passes over images: each reads every image once and keeps a few numbers of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.data.images import Images
from tff.data.shard import EvaluationBatches, loader
from tff.detectors.base import Detector
from tff.detectors.interventions import dropped, recorded
from tff.progress import track
from tff.relevance.ledger import COLUMNS
from tff.relevance.lrp import LRP
from tff.statistics.exact_mean import ExactMean
from tff.statistics.ffrs import FFRS
from tff.statistics.rows import Rows
from tff.types import Batch

Cue = Callable[[Tensor], Tensor]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Relevance:
    """What a pass of relevance tells of one kind of images.

    Attributes:
        omega: (n_channels,) FF-RS of each channel.
        error: (n_channels,) its standard error.
        images: how many images are behind it.
        ledger: (n_accounts, 5) means over these images, see `relevance.ledger.COLUMNS`.
    """

    omega: Floats
    error: Floats
    images: int
    ledger: Floats


@dataclass(frozen=True)
class Evaluation:
    """(N,) logits of images, and the (N, k) responses of channels if they were recorded."""

    logits: Floats
    responses: Floats | None


@dataclass(frozen=True)
class Passes:
    """How images are read and where they are computed on."""

    detector: Detector
    device: torch.device
    batch_size: int
    workers: int

    def relevance(self, images: Images, lrp: LRP, confidence: float) -> dict[str, Relevance]:
        """From `fake` and from `real` images that the detector is sure about."""
        width, lines = len(self.detector.channels), len(lrp.accounts) * len(COLUMNS)
        kinds = ("fake", "real")
        omega = {kind: FFRS(width).to(self.device) for kind in kinds}
        ledger = {kind: ExactMean(lines).to(self.device) for kind in kinds}
        for batch in self._batches(images, "relevance"):
            sign = torch.where(batch.label == 1, 1.0, lrp.real_sign)
            found = lrp.explain(batch.image, sign)
            p = found.logit.sigmoid()
            sure = {
                "fake": (batch.label == 1) & (p >= confidence),
                "real": (batch.label == 0) & (p <= 1 - confidence),
            }
            for kind, chosen in sure.items():
                omega[kind].update(found.shares[chosen])
                ledger[kind].update(found.ledger[chosen].flatten(1))
        result = {}
        for kind in kinds:
            mean, error, count = omega[kind].report()
            means = ledger[kind].compute().reshape(-1, len(COLUMNS))
            result[kind] = Relevance(
                mean.cpu().numpy(), error.cpu().numpy(), count, means.cpu().numpy()
            )
        return result

    def evaluate(self, images: Images, cue: Cue | None, channels: Tensor) -> Evaluation:
        """Logits, and spatial maxima of the given channels (k,), with a cue taken away."""
        rows = Rows(1 + len(channels)).to(self.device)
        name = "logits" if cue is None else f"without {getattr(cue, 'cue', 'the cue')}"
        with torch.inference_mode(), recorded(self.detector, channels) as recorder:
            for batch in self._batches(images, name):
                image = batch.image if cue is None else _laid_out(cue(batch.image))
                rows.update(batch.index, recorder.beside(self.detector(image)))
        values = rows.compute().cpu().numpy()
        return Evaluation(values[:, 0], values[:, 1:] if len(channels) else None)

    def evaluate_dropped(self, images: Images, choices: Mapping[str, Tensor]) -> dict[str, Floats]:
        """Logits (N,) with each choice of channels dropped; every image is read once."""
        rows = Rows(len(choices)).to(self.device)
        with torch.inference_mode():
            for batch in self._batches(images, "channels dropped"):
                columns = []
                for channels in choices.values():
                    with dropped(self.detector, channels):
                        columns.append(self.detector(batch.image))
                rows.update(batch.index, torch.stack(columns, dim=1))
        return dict(zip(choices, rows.compute().cpu().numpy().T, strict=True))

    def _batches(self, images: Images, description: str) -> Iterator[Batch]:
        batches = loader(images, EvaluationBatches(images, self.batch_size), self.workers)
        for batch in track(batches, description):
            image = _laid_out(batch.image.to(self.device).float() / 255)
            yield Batch(image, batch.label.to(self.device), batch.index)


def _laid_out(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)
