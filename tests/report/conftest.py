"""Results with numbers, gaps, and names that try to break out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tff.plots.channels import top_channels
from tff.plots.grouped import box_plot
from tff.types import Result


@pytest.fixture(scope="session")
def context(hostile: str) -> dict[str, object]:
    protocol = {"crop": 224, "cue": hostile}
    return {"protocol": protocol, "seeds": [0, 1], "bad": float("nan")}


@pytest.fixture(scope="session")
def results(hostile: str) -> dict[str, Result]:
    omega = np.random.default_rng(0).random(40) ** 9
    ranking = pd.DataFrame({"layer": "conv1", "channel": np.arange(40), "omega": omega})
    ablation = pd.DataFrame(
        {
            "generator": [hostile, "=1+1", "b"],
            "ap": [1 / 3, np.nan, 1e-300],
            "seen": [True, False, False],
        }
    )
    return {
        "ranking": Result(
            title="Ranking",
            about="First.\n\nSecond.",
            findings=["The first channel leads."],
            tables={"ranking": ranking},
            figures={"top": top_channels(ranking)},
            captions={"top": "The top."},
            scalars={"k": 3.0, "none": float("nan"), "inf": float("inf")},
        ),
        hostile: Result(
            title=hostile,
            about=hostile,
            findings=[hostile],
            tables={"ablation": ablation},
            figures={hostile: box_plot({hostile: {hostile: np.arange(3)}}, hostile)},
            captions={hostile: hostile},
            scalars={"numpy": np.float32(0.5)},  # not a float, and happens all the same
            warnings=[hostile],
        ),
    }
