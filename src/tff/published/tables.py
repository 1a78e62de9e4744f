"""Published numbers with their sources, and the comparison of ours with them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

FOLDER = Path(__file__).parent
#: Training of a detector: with blur and JPEG (p = 0.5 or 0.1), or with random grayscale as well.
RECIPES = ("blur_jpeg", "blur_jpeg_p01", "color_robust")
#: Precision of the printed numbers: half of their last digit.
ROUNDING = 0.0005


@dataclass(frozen=True)
class Cell:
    """One published number.

    Attributes:
        source: paper and table.
        architecture: `resnet50` or `efficientnet_b0`.
        recipe: one of `RECIPES`.
        what: intervention: `baseline`, `top_k`, `random_k`, `low_k`, or `gray` (tested on images
            without color).
        generator: in the source's spelling, lower case.
        metric: `ap`, `real_accuracy`, `fake_accuracy`, or `accuracy` over all images.
        value: a fraction in [0, 1], exact to `ROUNDING`.
        crop: of the test images, `none` or `center224`.
        threshold: `half` or `oracle` if the metric needs one, else empty.
        k: number of dropped channels.
        suspect: why the number is likely wrong in the source, else empty.
    """

    source: str
    architecture: str
    recipe: str
    what: str
    generator: str
    metric: str
    value: float
    crop: str = "none"
    threshold: str = ""
    k: int = 0
    suspect: str = ""


@cache
def load_sources() -> dict[str, dict[str, str]]:
    """Name of a file in this folder -> `source`, `page` and how its numbers were measured."""
    content: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / "sources.yaml"))
    return {str(name): dict(about) for name, about in content.items()}


@cache
def load_cells() -> tuple[Cell, ...]:
    """All published numbers, in the order of their tables."""
    return (*_sensitivity(), *_color_robust(), *_cnndetection())


def _sensitivity() -> Iterator[Cell]:
    about = load_sources()["tff2022_sensitivity"]
    for row in _rows("tff2022_sensitivity"):
        # The released script puts the threshold of the seen generator at 0.5.
        rule = "half" if row["generator"] == "progan" else about["threshold"]
        for metric in ("ap", "real_accuracy", "fake_accuracy"):
            yield Cell(
                about["source"], row["architecture"], "blur_jpeg", row["dropout"],
                row["generator"], metric, _fraction(row[metric]),
                threshold="" if metric == "ap" else rule,
                k=0 if row["dropout"] == "baseline" else int(row["k"]),
            )  # fmt: skip


def _color_robust() -> Iterator[Cell]:
    source = load_sources()["tff2022_color_robust"]["source"]
    for row in _rows("tff2022_color_robust"):
        recipe = "blur_jpeg" if row["detector"] == "baseline" else "color_robust"
        what = "baseline" if row["input"] == "rgb" else "gray"
        yield Cell(
            source, row["architecture"], recipe, what, row["generator"], "ap",
            _fraction(row["ap"]), suspect=row["note"].removeprefix("suspect: "),
        )  # fmt: skip


def _cnndetection() -> Iterator[Cell]:
    about = load_sources()["cnndetection2020"]
    recipes = {"0.5": "blur_jpeg", "0.1": "blur_jpeg_p01"}
    for row in _rows("cnndetection2020"):
        for ending, crop in (("crop224", "center224"), ("nocrop", "none")):
            for metric in ("ap", "accuracy"):
                yield Cell(
                    about["source"], "resnet50", recipes[row["blur_jpeg_probability"]],
                    "baseline", row["generator"], metric, _fraction(row[f"{metric}_{ending}"]),
                    crop=crop, threshold="" if metric == "ap" else about["threshold"],
                )  # fmt: skip


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _fraction(percent: str) -> float:
    """Percent as printed -> fraction with the same digits."""
    return round(float(percent) / 100, 5)


#: Folder of the released set -> name in its authors' table.
_ALIASES = {"seeingdark": "sitd"}
#: Keys of a row made by `compare`.
COLUMNS = (
    "source", "what", "generator", "metric", "ours", "ours_low", "ours_high", "published",
    "difference", "inside_interval", "suspect", "protocol_matches", "protocol_differs",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """A number of ours and how it was measured.

    Attributes:
        value: a fraction in [0, 1].
        low: lower end of its interval, NaN if there is none; likewise `high`.
        threshold: rule, empty if the metric needs none.
        k: number of dropped channels.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    threshold: str = ""
    k: int = 0


def normalize_name(generator: str) -> str:
    """`StyleGAN-2` -> `stylegan2`, so that generators match by name."""
    name = re.sub(r"[-_\s]", "", generator.lower())
    return _ALIASES.get(name, name)


def compare(
    cell: Cell, generator: str, several: Sequence[Measurement], protocol: Mapping[str, object]
) -> dict[str, object]:
    """One row of the comparison, with `COLUMNS`.

    Args:
        cell: the published number.
        generator: in our spelling.
        several: ours for this cell; the one whose protocol is most like the cell's is compared.
        protocol: of our tables: `crop`, `resize`, `relevance` and, optionally, `match_format`.
    """
    ours = min(several, key=lambda o: (o.threshold != cell.threshold, o.k != cell.k))
    differs = _protocol_differences(cell, ours, protocol)
    inside = ours.low - ROUNDING <= cell.value <= ours.high + ROUNDING
    known = math.isfinite(ours.low) and math.isfinite(ours.high)
    return {
        "source": cell.source,
        "what": cell.what,
        "generator": generator,
        "metric": cell.metric,
        "ours": ours.value,
        "ours_low": ours.low,
        "ours_high": ours.high,
        "published": cell.value,
        "difference": ours.value - cell.value,
        "inside_interval": inside if known else None,
        "suspect": cell.suspect,
        "protocol_matches": not differs,
        "protocol_differs": "; ".join(differs),
    }


def _protocol_differences(
    cell: Cell, ours: Measurement, protocol: Mapping[str, object]
) -> list[str]:
    """How the protocols of a published number and of ours differ, such as `k 114, here 50`."""
    pairs = [
        ("crop", cell.crop, str(protocol["crop"]).replace("centre", "center")),
        ("resize", "none", str(protocol["resize"])),
        ("format", "as it is", str(protocol.get("match_format", "as it is"))),
        ("threshold", cell.threshold, ours.threshold),
        ("k", str(cell.k), str(ours.k)),
    ]
    if cell.k:  # also for random channels, which exclude the top ones
        rule = re.search(r"\brule=(\S+)", str(protocol["relevance"]))
        pairs.append(("relevance rule", "zplus", rule[1] if rule else "another"))
    return [f"{what} {theirs}, here {mine}" for what, theirs, mine in pairs if theirs != mine]
