"""Passes over images: each reads every image once and keeps a few numbers of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from tff.analyses.fitting import each, laid_out
from tff.analyses.records import Activity, Cue, Evaluation, Floats, Relevance, Rows
from tff.data.dataset import Images
from tff.data.loaders import EvaluationBatches, loader
from tff.detectors.detector import Detector
from tff.detectors.hooks import Instead, dropped, outputs, recorded
from tff.distributed import place, together
from tff.relevance.conservation import COLUMNS
from tff.relevance.lrp import LRP, Explanation
from tff.statistics.ffrs import FFRS, ExactMean
from tff.statistics.per_image import PerImage as RowValues
from tff.types import Batch

T = TypeVar("T")


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
                ledger[kind].update(found.ledger[chosen].flatten(1))

        self._each(images, "relevance", explain, keep)
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

            def look(batch: Batch) -> tuple[Tensor, Tensor | None]:
                image = batch.image if cue is None else laid_out(cue(batch.image))
                logits = self.detector(image)[:, None]
                maxima = [responses.of(channels)] if len(channels) else []
                here = wanted[batch.index]
                of_all = responses.of(everything).cpu()[here] if here.any() else None
                return torch.cat([logits, *maxima], dim=1), of_all

            def keep(batch: Batch, found: tuple[Tensor, Tensor | None]) -> None:
                values, of_all = found
                rows.update(batch.index, values)
                if of_all is not None:
                    all_of.update(batch.index[wanted[batch.index]], of_all)

            self._each(images, name, look, keep)
        if place()[1] > 1:
            with together():  # one GPU may have no room for it
                all_of.to(self.device)  # since processes on GPUs can exchange only what lies there
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

        def look(batch: Batch) -> Tensor:
            other: Instead = instead if isinstance(instead, Tensor) else None
            if isinstance(instead, Images):
                with outputs(self.detector, layers) as other:
                    self.detector(self._lenders(instead, batch))
            columns = []
            for channels in choices.values():
                with dropped(self.detector, channels, other):
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
            with outputs(self.detector, layers) as found:
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
        return laid_out(torch.stack(lent).to(self.device).float() / 255)

    def _each(
        self,
        images: Images,
        name: str,
        look: Callable[[Batch], T],
        keep: Callable[[Batch, T], None],
    ) -> None:
        batches = loader(images, EvaluationBatches(images, self.batch_size), self.workers)
        each(batches, self.device, name, look, keep)


def _norms(detector: Detector) -> Floats:
    """Length of the filter of each channel, (n_channels,)."""
    filters = {
        layer: next(detector.network.get_submodule(layer).parameters()).flatten(1).norm(dim=1)
        for layer in detector.channels.layers
    }
    norms: Floats = detector.channels.join(filters).detach().double().cpu().numpy()
    return norms
