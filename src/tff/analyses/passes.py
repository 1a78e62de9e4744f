"""Passes over images: each reads every image once and keeps a few numbers of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tff.analyses.records import Activity, Cue, Evaluation, Floats, Relevance, Rows
from tff.data.images import Images
from tff.data.shard import EvaluationBatches, loader
from tff.detectors.base import Detector
from tff.detectors.interventions import Instead, dropped, outputs, recorded
from tff.process import place
from tff.progress import track
from tff.relevance.ledger import COLUMNS
from tff.relevance.lrp import LRP
from tff.statistics.exact_mean import ExactMean
from tff.statistics.ffrs import FFRS
from tff.statistics.rows import Rows as RowValues
from tff.types import Batch


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
        lines, kinds = len(lrp.accounts) * len(COLUMNS), ("fake", "real")
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

    def evaluate(
        self, images: Images, cue: Cue | None, channels: Tensor, sample: Rows
    ) -> Evaluation:
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
        with torch.inference_mode(), recorded(self.detector, watched) as responses:
            for batch in self._batches(images, name):
                image = batch.image if cue is None else _laid_out(cue(batch.image))
                logits = self.detector(image)[:, None]
                maxima = [responses.of(channels)] if len(channels) else []
                rows.update(batch.index, torch.cat([logits, *maxima], dim=1))
                here = wanted[batch.index]
                if here.any():
                    all_of.update(batch.index[here], responses.of(everything).cpu()[here])
        if place()[1] > 1:  # processes on GPUs can exchange only what lies there
            all_of.to(self.device)
        values = rows.compute().cpu().numpy()
        return Evaluation(
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
        with torch.inference_mode():
            for batch in self._batches(images, "channels dropped"):
                other: Instead = instead if isinstance(instead, Tensor) else None
                if isinstance(instead, Images):
                    with outputs(self.detector, layers) as other:
                        self.detector(self._lenders(instead, batch))
                columns = []
                for channels in choices.values():
                    with dropped(self.detector, channels, other):
                        columns.append(self.detector(batch.image))
                rows.update(batch.index, torch.stack(columns, dim=1))
        return dict(zip(choices, rows.compute().cpu().numpy().T, strict=True))

    def activity(self, images: Images) -> Activity:
        """What each channel does on the average image."""
        layers, join = self.detector.channels.layers, self.detector.channels.join
        both = ExactMean(len(self.detector.channels)).to(self.device)
        of_fakes = ExactMean(len(self.detector.channels)).to(self.device)
        effects = ExactMean(len(self.detector.channels), 2**40, 2**8).to(self.device)  # are small
        with torch.inference_mode(False), torch.enable_grad():
            for batch in self._batches(images, "activity"):
                with outputs(self.detector, layers) as found:
                    logits = self.detector(batch.image.clone().requires_grad_())
                slopes = torch.autograd.grad(logits.sum(), [found[name] for name in layers])
                maps = {name: y.detach() for name, y in found.items()}
                pairs = zip(maps.items(), slopes, strict=True)
                effect = join({name: (y * slope).sum((2, 3)).abs() for (name, y), slope in pairs})
                response = join({name: y.amax((2, 3)) for name, y in maps.items()})
                both.update(join({name: y.mean((2, 3)) for name, y in maps.items()}))
                of_fakes.update(response[batch.label == 1])
                effects.update(effect[batch.label == 1])
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
        return _laid_out(torch.stack(lent).to(self.device).float() / 255)

    def _batches(self, images: Images, description: str) -> Iterator[Batch]:
        batches = loader(images, EvaluationBatches(images, self.batch_size), self.workers)
        for batch in track(batches, description):
            image = _laid_out(batch.image.to(self.device).float() / 255)
            yield Batch(image, batch.label.to(self.device), batch.index)


def _laid_out(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def _norms(detector: Detector) -> Floats:
    """Length of the filter of each channel, (n_channels,)."""
    filters = {
        layer: next(detector.network.get_submodule(layer).parameters()).flatten(1).norm(dim=1)
        for layer in detector.channels.layers
    }
    norms: Floats = detector.channels.join(filters).detach().double().cpu().numpy()
    return norms
