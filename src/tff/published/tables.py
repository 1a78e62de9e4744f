"""Published tables of results as typed cells, each with its source and how it was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

FOLDER = Path(__file__).parent
#: Which detector: trained with blur and JPEG (p = 0.5 or 0.1), or with random grayscale besides.
RECIPES = ("blur_jpeg", "blur_jpeg_p01", "color_robust")
#: What was done to it; `gray`: tested on images without color.
WHAT = ("baseline", "top_k", "random_k", "low_k", "gray")
#: Half of the last digit that is printed: no table tells more than this.
ROUNDING = 0.0005


@dataclass(frozen=True)
class Cell:
    """One published number.

    Attributes:
        source: paper and table.
        architecture: `resnet50` or `efficientnet_b0`.
        recipe: one of `RECIPES`.
        what: one of `WHAT`.
        generator: in the source's spelling, lower case.
        metric: `ap`, `real_accuracy`, `fake_accuracy`, or `accuracy` over all images.
        value: a fraction in [0, 1], known up to `ROUNDING`.
        crop: of the test images, `none` or `center224`.
        threshold: `half` or `oracle` where the metric needs one, else empty.
        k: channels dropped.
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
def sources() -> dict[str, dict[str, str]]:
    """Name of a file in this folder -> `source`, `page` and how it was measured."""
    content: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / "sources.yaml"))
    return {str(name): dict(about) for name, about in content.items()}


@cache
def cells() -> tuple[Cell, ...]:
    """All published numbers, in the order of the tables."""
    return (*_sensitivity(), *_color_robust(), *_cnndetection())


def _sensitivity() -> Iterator[Cell]:
    about = sources()["tff2022_sensitivity"]
    for row in _rows("tff2022_sensitivity"):
        # The released script puts the threshold of the seen generator at 0.5.
        rule = "half" if row["generator"] == "progan" else about["threshold"]
        for metric in ("ap", "real_accuracy", "fake_accuracy"):
            yield Cell(
                about["source"],
                row["architecture"],
                "blur_jpeg",
                row["dropout"],
                row["generator"],
                metric,
                _fraction(row[metric]),
                threshold="" if metric == "ap" else rule,
                k=0 if row["dropout"] == "baseline" else int(row["k"]),
            )


def _color_robust() -> Iterator[Cell]:
    for row in _rows("tff2022_color_robust"):
        yield Cell(
            sources()["tff2022_color_robust"]["source"],
            row["architecture"],
            "blur_jpeg" if row["detector"] == "baseline" else "color_robust",
            "baseline" if row["input"] == "rgb" else "gray",
            row["generator"],
            "ap",
            _fraction(row["ap"]),
            suspect=row["note"].removeprefix("suspect: "),
        )


def _cnndetection() -> Iterator[Cell]:
    about = sources()["cnndetection2020"]
    recipes = {"0.5": "blur_jpeg", "0.1": "blur_jpeg_p01"}
    for row in _rows("cnndetection2020"):
        for ending, crop in (("crop224", "center224"), ("nocrop", "none")):
            for metric in ("ap", "accuracy"):
                yield Cell(
                    about["source"],
                    "resnet50",
                    recipes[row["blur_jpeg_probability"]],
                    "baseline",
                    row["generator"],
                    metric,
                    _fraction(row[f"{metric}_{ending}"]),
                    crop=crop,
                    threshold="" if metric == "ap" else about["threshold"],
                )


def _rows(name: str) -> list[dict[str, str]]:
    table = pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)
    return [{str(k): str(v) for k, v in row.items()} for row in table.to_dict("records")]


def _fraction(percent: str) -> float:
    """Percent as printed -> the fraction with the same digits."""
    return round(float(percent) / 100, 5)
