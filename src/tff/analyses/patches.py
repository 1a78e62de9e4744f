"""Patches that activate the top channels most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.passes import SplitWhenOutOfMemory
from tff.analyses.engine.subject import Subject
from tff.plots.image_grids import Cutout, collage
from tff.relevance.lrp import MaximumExplanation
from tff.relevance.patch import ENDS, Patch, locate_patch, positive_heat
from tff.types import Batch, Floats, Result


class Pair(NamedTuple):
    """One channel in one view of an image.

    Attributes:
        rank: of the channel, from 1.
        place: of the image among those of the channel, from 1.
        row: of the image among the test images.
        view: its number; 0 unless images are seen in several views.
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
        image: (H, W, 3), as the detector sees it.
        maximum: the largest positive output behind BatchNorm, 0 if there is none.
        at: row and column of it in the feature map.
        box: of the patch, None if no pixel has positive relevance.
    """

    pair: Pair
    image: NDArray[np.uint8]
    maximum: float
    at: tuple[int, int]
    box: Patch | None


def explain_peaks(subject: Subject, pairs: Iterable[Pair], end: str) -> Iterator[Peak]:
    """Explain each pair, those of a layer and of a size of images together, as many as fit.

    Args:
        end: of patches, see `relevance.patch.patch`.
    """
    test, size = subject.images.test, subject.images.test.sizes()

    def alike(pair: Pair) -> tuple[str, int, int]:
        return pair.layer, int(size[pair.row, 0]), int(size[pair.row, 1])

    def explained(part: Batch) -> MaximumExplanation:  # of the batch whose turn it is
        pixels = part.image.to(subject.passes.device).float() / 255
        channels = torch.tensor([batch[i].channel for i in part.index.tolist()])
        return subject.lrp.explain_maximum(pixels, batch[0].layer, channels)

    fitting = SplitWhenOutOfMemory(explained, "patches")
    for _, group in groupby(sorted(pairs, key=alike), alike):
        waiting = list(group)
        for start in range(0, len(waiting), subject.passes.batch_size):
            batch = waiting[start : start + subject.passes.batch_size]
            images = [test[0, pair.row, pair.view] for pair in batch]
            whole = Batch(*(torch.stack(column) for column in zip(*images, strict=True)))
            # Rows may come more than once: here an index is a place in the batch.
            for part, found in fitting(whole._replace(index=torch.arange(len(batch)))):
                yield from _peaks([batch[i] for i in part.index.tolist()], part.image, found, end)


def _peaks(
    pairs: Sequence[Pair], images: Tensor, found: MaximumExplanation, end: str
) -> Iterator[Peak]:
    for i, pair in enumerate(pairs):
        image = np.asarray(images[i].permute(1, 2, 0), np.uint8)
        heat = positive_heat(found.pixels[i])
        row, column = found.position[i].tolist()
        box = locate_patch(heat, end) if heat.any() else None
        yield Peak(pair, image, float(found.value[i]), (row, column), box)


ABOUT = """
For each of the top channels, the {kind} test images at which its response (the spatial maximum of
the raw convolution output) is largest. Relevance that starts at the channel's most active place and
is propagated back to the image (LRP-max) shows which pixels make it so active. Each patch is the
box around the pixels above the 75th percentile of this relevance, enlarged; the small image beside
it shows where it was cut from.

As in the paper, images are ordered by the output before BatchNorm, while LRP-max explains the
largest positive output behind it. The two part where BatchNorm turns the sign around; an image
whose largest output behind BatchNorm is not positive has no patch.
"""

#: Which images are looked through.
LABELS = {"generated": [1], "real": [0], "all": [0, 1]}
_WHOLE = ["peak_row", "peak_column", *Patch._fields]


@dataclass(frozen=True)
class Patches(Analysis):
    """LRP-max patches of the top channels (Chandrasegaran et al., ECCV 2022) and their collage.

    The images are found from the responses to all test images, which other analyses share.

    Args:
        channels: how many of the top channels; at most the subject's k.
        images: how many images a channel.
        label: of the images: `generated`, `real` or `all`.
        box: `inclusive`, or `paper` for the box of the released code, which leaves out its last row
            and column.

    Raises:
        ValueError: an option has an impossible value.
    """

    needs_responses: ClassVar[bool] = True
    channels: int = 12
    images: int = 5
    label: str = "generated"
    box: str = "inclusive"

    def __post_init__(self) -> None:
        for option, value in (("channels", self.channels), ("images", self.images)):
            if value < 1:
                raise ValueError(f"analysis.patches.{option}={value}: must be at least 1")
        for option, name, known in (("label", self.label, [*LABELS]), ("box", self.box, ENDS)):
            if name not in known:
                raise ValueError(f"analysis.patches.{option}={name}: expected {', '.join(known)}")

    def answer(self, subject: Subject) -> Result:
        """Table `patches`, a row for each channel and image; figure `patches`."""
        responses = subject.evaluate(None, responses=True).responses
        assert responses is not None
        best: dict[tuple[int, int], Peak] = {}
        for peak in explain_peaks(subject, self._chosen(subject, responses), self.box):
            key = peak.pair.rank, peak.pair.place
            if key not in best or peak.maximum > best[key].maximum:  # of several views
                best[key] = peak
        found = [best[key] for key in sorted(best)]
        table = _table(subject, found, responses)
        kind = "real and generated" if self.label == "all" else self.label
        result = Result("What the top channels look at", ABOUT.format(kind=kind))
        result.tables = {"patches": table}
        result.figures = {"patches": collage(_rows(table, found, subject.options.ranking.by))}
        result.captions = {
            "patches": f"Patches of the {kind} test images at which each channel responds most, "
            "strongest first; channels by rank. Frames show where patches were cut from."
        }
        missing = int(table["top"].isna().sum())
        result.scalars = {"patches_missing": missing}
        if missing:
            result.warnings.append(
                f"{missing} of {len(table)} patches are missing: the channel's output behind "
                "BatchNorm is nowhere positive in the image, or no relevance of it arrives there."
            )
        return result

    def _chosen(self, subject: Subject, responses: Floats) -> Iterator[Pair]:
        """Of each channel the images with the largest responses; ties in the order of the rows."""
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
    """A row a patch; no box and no peak where there is none."""
    pairs = [peak.pair for peak in found]
    images = subject.images.test.manifest.loc[[pair.row for pair in pairs]].reset_index(drop=True)
    flat = [subject.channels.flat_index(pair.layer, pair.channel) for pair in pairs]
    by, none = subject.options.ranking.by, (None,) * len(_WHOLE)
    boxes = [none if peak.box is None else (*peak.at, *peak.box) for peak in found]
    return pd.DataFrame(
        {
            "rank": [pair.rank for pair in pairs],
            "layer": [pair.layer for pair in pairs],
            "channel": [pair.channel for pair in pairs],
            by: subject.channel_scores(by)[flat],
            "place": [pair.place for pair in pairs],
            **{column: images[column] for column in ("path", "generator", "label")},
            "view": [pair.view for pair in pairs],
            "response": [responses[pair.row, pair.rank - 1] for pair in pairs],
            "maximum": [peak.maximum for peak in found],
        }
    ).join(pd.DataFrame(boxes, columns=_WHOLE, dtype="Int64"))


def _rows(table: pd.DataFrame, found: list[Peak], by: str) -> list[tuple[str, list[Cutout]]]:
    """A row of the collage for each channel, in the order of their ranks."""
    pieces = [
        Cutout.cut(peak.image, peak.box, str(generator))
        for peak, generator in zip(found, table["generator"], strict=True)
    ]
    rows = []
    for _, same in groupby(range(len(table)), table["rank"].__getitem__):
        at = list(same)
        first = table.loc[at[0]]
        title = f"{first['rank']}. {first['layer']} #{first['channel']}, {by} {first[by]:.2g}"
        rows.append((title, [pieces[i] for i in at]))
    return rows
