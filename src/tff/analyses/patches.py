"""Patches: the pieces of images that activate the top channels most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.image_selection import to_picture
from tff.analyses.engine.passes import SplitWhenOutOfMemory
from tff.analyses.engine.subject import Subject
from tff.options import checked, one_of, whole
from tff.plots.image_grids import Cutout, Picture, collage, image_grid
from tff.relevance.lrp import MaximumExplanation
from tff.relevance.patch import ENDS, Patch, locate_patch, positive_heat
from tff.types import Batch, Floats, Pixels, Result

ABOUT = """
For each of the top channels, the {kind} test images to which its response (the maximum of its raw
output over the image) is largest. Relevance that starts at the channel's most active position
and is propagated back to the image (LRP-max) shows which pixels make it so active. Each patch is
the box around the pixels above the 75th percentile of this relevance, enlarged; the small image
beside it shows where it was cut from.
{more}
A channel of a convolution that reads the image itself is a linear filter, so its weights can be
looked at: gray is 0, a color is the color to which the filter responds at that place. Its spectrum
shows which frequencies pass, from 0 in the center to 0.5 cycles per pixel at the edges, in the
color that passes.
"""
ABOUT_BATCH_NORM = """
As in the paper, images are ordered by the output before BatchNorm, while LRP-max explains the
largest positive output after it. The two differ where BatchNorm flips the sign; an image whose
largest output after BatchNorm is not positive has no patch.
"""
ABOUT_TOKENS = """
In a transformer, a neuron is active at a token. So is an attention head, whose output there is a
vector: it is most active where this vector is longest, and relevance starts at the numbers in it,
in proportion to their squares. Class tokens and registers belong to no place in the image, so peaks
at them have no row and column. A token can have seen the entire image, hence large patches.
"""

#: Option `label` -> labels of the images among which patches are searched.
LABELS = {"generated": [1], "real": [0], "all": [0, 1]}
#: Option `label` that takes the images by which the channels were ranked.
RANKED = "ranked"


@dataclass(frozen=True)
@checked("analysis.patches")
class Patches(Analysis):
    """LRP-max patches of the top channels (Chandrasegaran et al., ECCV 2022) and their collage.

    The images come from the responses to all test images, which other analyses share.

    Args:
        channels: how many of the top channels; at most the subject's k.
        images: number of images per channel.
        label: of the images: `generated`, `real`, `all`, or `ranked`: real ones if channels are
            ranked by omega of real images, else generated ones.
        box: `inclusive`, or `paper`: without the last row and column, as in the released code.
    """

    needs_responses: ClassVar[bool] = True
    channels: Annotated[int, whole(least=1)] = 12
    images: Annotated[int, whole(least=1)] = 5
    label: Annotated[str, one_of([RANKED, *LABELS])] = RANKED
    box: Annotated[str, one_of(ENDS)] = "inclusive"

    def answer(self, subject: Subject) -> Result:
        """Tables `patches`, one row per channel and image, and `filters`; figures likewise."""
        if self.label == RANKED:
            label = "real" if subject.criterion == "omega_real" else "generated"
            return replace(self, label=label).answer(subject)
        responses = subject.evaluate(None, responses=True).responses
        assert responses is not None
        best: dict[tuple[int, int], Peak] = {}
        for peak in explain_peaks(subject, self._choose(subject, responses), self.box):
            key = peak.pair.rank, peak.pair.place
            if key not in best or peak.maximum > best[key].maximum:  # of several views
                best[key] = peak
        found = [best[key] for key in sorted(best)]
        table = _table(subject, found, responses)
        kind = "real and generated" if self.label == "all" else self.label
        more = ABOUT_TOKENS if subject.channels.kinds else ABOUT_BATCH_NORM
        about = ABOUT.format(kind=kind, more=more)
        result = Result("What the top channels respond to", about)
        filters = select_filters(subject, self.channels)
        result.tables = {"patches": table, "filters": _describe_filters(subject, filters)}
        result.figures = {"patches": collage(_rows(table, found, subject.criterion))}
        result.captions = {
            "patches": f"Patches of the {kind} test images at which each channel responds most, "
            "strongest first; channels by rank. Frames show where patches were cut from."
        }
        if filters:
            result.figures = {"filters": image_grid(_filter_rows(filters))} | result.figures
            result.captions["filters"] = (
                f"Filters of the {len(filters)} among the top {self.channels} channels that read "
                "the image itself, and their spectra."
            )
        result.opening = [*result.figures]
        missing = int(table["top"].isna().sum())
        result.scalars = {"patches_missing": missing}
        if missing:
            after = "" if subject.channels.kinds else " after BatchNorm"
            result.warnings.append(
                f"{missing} of {len(table)} patches are missing: the channel's output{after} is "
                "nowhere positive, or none of its relevance reaches the image."
            )
        return result

    def _choose(self, subject: Subject, responses: Floats) -> Iterator[Pair]:
        """The images with the largest responses of each channel; ties in the order of the rows."""
        rows = np.flatnonzero(np.isin(subject.labels, LABELS[self.label]))
        if not len(rows):
            raise ValueError(f"analysis.patches.label={self.label}: no such test image")
        names = subject.channels.table()
        for rank, flat in enumerate(subject.top[: self.channels].tolist(), 1):
            layer, channel = names.loc[flat, ["layer", "channel"]]
            order = np.argsort(-responses[rows, rank - 1], kind="stable")[: self.images]
            for place, row in enumerate(rows[order].tolist(), 1):
                for view in range(subject.images.test.view.count):
                    yield Pair(rank, str(layer), int(channel), place, row, view)


def _table(subject: Subject, found: list[Peak], responses: Floats) -> pd.DataFrame:
    """One row per patch; box and peak are missing where there is no patch."""
    pairs = [peak.pair for peak in found]
    images = subject.images.test.manifest.loc[[pair.row for pair in pairs]].reset_index(drop=True)
    flat = subject.top.numpy()[[pair.rank - 1 for pair in pairs]]
    columns = ["peak_row", "peak_column", *Patch._fields]
    by, none = subject.criterion, (None,) * len(columns)
    boxes = [
        none if peak.box is None else (*(peak.position or none[:2]), *peak.box) for peak in found
    ]
    names = subject.channels.table().drop(columns=["layer", "channel"]).iloc[flat]
    return pd.DataFrame(
        {
            "rank": [pair.rank for pair in pairs],
            "layer": [pair.layer for pair in pairs],
            "channel": [pair.channel for pair in pairs],
            **{str(name): column.to_numpy() for name, column in names.items()},
            by: subject.score_channels(by)[flat],
            "place": [pair.place for pair in pairs],
            **{name: images[name] for name in ("path", "generator", "label")},
            "view": [pair.view for pair in pairs],
            "response": [responses[pair.row, pair.rank - 1] for pair in pairs],
            "maximum": [peak.maximum for peak in found],
        }
    ).join(pd.DataFrame(boxes, columns=columns, dtype="Int64"))


def _rows(table: pd.DataFrame, found: list[Peak], by: str) -> list[tuple[str, list[Cutout]]]:
    """Rows of the collage: title and cutouts of each channel, by rank."""
    pieces = [
        Cutout.cut(peak.image, peak.box, str(generator))
        for peak, generator in zip(found, table["generator"], strict=True)
    ]
    rows = []
    for rank, same in table.groupby("rank"):
        first = same.iloc[0]
        title = f"{rank}. {first['layer']} #{first['channel']}"
        if by != "greedy":  # whose scores are places in the order
            title += f", {by} {first[by]:.2g}"
        rows.append((title, [pieces[i] for i in same.index]))
    return rows


class Filter(NamedTuple):
    """A channel that reads the image itself.

    Attributes:
        rank: of the channel, from 1.
        weights: (3, h, w) of its convolution.
    """

    rank: int
    layer: str
    channel: int
    weights: Floats

    @property
    def spectrum(self) -> Floats:
        """(3, n, n) gain at each frequency; frequency 0 in the center."""
        padded = np.fft.fft2(self.weights, (_SPECTRUM, _SPECTRUM))
        return np.abs(np.fft.fftshift(padded, (1, 2)))

    @property
    def color_share(self) -> float:
        """Share of the squared weights by which the three colors differ: 0 for a gray filter."""
        total = float((self.weights**2).sum())
        gray = float((self.weights.mean(0) ** 2).sum()) * len(self.weights)
        return 1 - gray / total if total else np.nan

    @property
    def peak_frequency(self) -> float:
        """Frequency with the largest gain, in cycles per pixel."""
        gain = (self.spectrum**2).sum(0)
        rows, columns = np.unravel_index(int(gain.argmax()), gain.shape)
        return float(np.hypot(rows - _SPECTRUM // 2, columns - _SPECTRUM // 2) / _SPECTRUM)


_SPECTRUM = 64  # frequencies along a side
_ACROSS = 6  # filters side by side


def select_filters(subject: Subject, channels: int) -> list[Filter]:
    """Those of the top channels whose convolution reads the image itself."""
    first = {step.name for step in subject.lrp.steps if step.carriers == [-1]}
    names, found = subject.channels.table(), []
    for rank, flat in enumerate(subject.top[:channels].tolist(), 1):
        layer, channel = names.loc[flat, ["layer", "channel"]]
        if layer in first:
            every = next(subject.detector.network.get_submodule(str(layer)).parameters())
            weights = every[int(channel)].detach().double().cpu().numpy()
            if len(weights) == 3:
                found.append(Filter(rank, str(layer), int(channel), weights))
    return found


def _describe_filters(subject: Subject, filters: list[Filter]) -> pd.DataFrame:
    places = [f.rank - 1 for f in filters]
    table = subject.channels.table().iloc[subject.top.numpy()[places]].reset_index(drop=True)
    table.insert(0, "rank", [f.rank for f in filters])
    return table.assign(
        peak_frequency=[f.peak_frequency for f in filters],
        color_share=[f.color_share for f in filters],
    )


def _filter_rows(filters: list[Filter]) -> dict[str, list[Picture]]:
    """Rows of pictures: weights, and below them their spectra."""
    rows: dict[str, list[Picture]] = {}
    for start in range(0, len(filters), _ACROSS):
        part = filters[start : start + _ACROSS]
        ranks = f"{part[0].rank} to {part[-1].rank}" if len(part) > 1 else f"{part[0].rank}"
        weights = [to_rgb(0.5 + f.weights / (2 * np.abs(f.weights).max() or 1)) for f in part]
        spectra = [to_rgb(f.spectrum / (f.spectrum.max() or 1)) for f in part]
        names = [f"{f.layer} #{f.channel}" for f in part]
        peaks = [f"peak {f.peak_frequency:.2f}" for f in part]
        rows[f"weights, rank {ranks}"] = list(zip(weights, names, strict=True))
        rows[f"spectra, rank {ranks}"] = list(zip(spectra, peaks, strict=True))
    return rows


def to_rgb(values: Floats) -> Pixels:
    """(3, H, W) in [0, 1] -> picture (H, W, 3)."""
    return np.asarray((values.transpose(1, 2, 0) * 255).round().clip(0, 255), np.uint8)


class Pair(NamedTuple):
    """One channel in one view of an image.

    Attributes:
        rank: of the channel, from 1.
        place: rank of the image among those of the channel, from 1.
        row: index of the image among the test images.
        view: index of the view; 0 unless images are seen in several.
    """

    rank: int
    layer: str
    channel: int
    place: int
    row: int
    view: int


class Peak(NamedTuple):
    """Where the channel of a pair is most active.

    Attributes:
        image: (H, W, 3), as seen by the detector.
        maximum: largest positive output after BatchNorm, or 0.
        position: its row and column in the feature map; None for a token without a place.
        box: the patch, None if no pixel has positive relevance.
    """

    pair: Pair
    image: Pixels
    maximum: float
    position: tuple[int, int] | None
    box: Patch | None


def explain_peaks(subject: Subject, pairs: Iterable[Pair], end: str) -> Iterator[Peak]:
    """Explain each pair, in batches of one layer and image size; halved where memory runs out.

    Args:
        end: of patches, see `relevance.patch.locate_patch`.
    """
    test = subject.images.test
    size = test.sizes()

    def key(pair: Pair) -> tuple[str, int, int]:
        return pair.layer, int(size[pair.row, 0]), int(size[pair.row, 1])

    def explain(part: Batch) -> MaximumExplanation:  # a part of the current `batch`
        pixels = part.image.to(subject.passes.device).float() / 255
        channels = torch.tensor([batch[i].channel for i in part.index.tolist()])
        return subject.lrp.explain_maximum(pixels, batch[0].layer, channels)

    split = SplitWhenOutOfMemory(explain, "patches")
    for _, group in groupby(sorted(pairs, key=key), key):
        waiting = list(group)
        for start in range(0, len(waiting), subject.passes.batch_size):
            batch = waiting[start : start + subject.passes.batch_size]
            images = [test[0, pair.row, pair.view] for pair in batch]
            stacked = Batch(*(torch.stack(column) for column in zip(*images, strict=True)))
            # An image may occur more than once, so the index counts within the batch.
            for part, found in split(stacked._replace(index=torch.arange(len(batch)))):
                for i, place in enumerate(part.index.tolist()):
                    heat = positive_heat(found.pixels[i])
                    row, column = found.position[i].tolist()
                    yield Peak(
                        batch[place],
                        to_picture(part.image[i]),
                        float(found.value[i]),
                        None if row < 0 else (row, column),
                        locate_patch(heat, end) if heat.any() else None,
                    )
