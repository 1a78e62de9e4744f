"""Values as a reader wants them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tff.report.page import format_value, split_constants


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.123"),
        (1.0, "1.000"),
        (114.0, "114"),
        (1e-12, "1.0e-12"),
        (np.inf, "inf"),
        (np.float32(0.5), "0.500"),
        (7, "7"),
        (True, "yes"),
        (np.bool_(False), "no"),
        ("text", "text"),
        *((missing, "\N{EN DASH}") for missing in (np.nan, None, pd.NA, pd.NaT)),
    ],
)
def test_values_are_rounded_for_readers(value: object, text: str) -> None:
    assert format_value(value) == text


def test_columns_that_say_the_same_in_every_row_are_told_once() -> None:
    table = pd.DataFrame({"ap": [0.5, 0.6, 0.7], "k": 114, "cue": "color", "seen": True})
    same, rest = split_constants(table)
    assert same == {"k": "114", "cue": "color", "seen": "yes"}
    assert list(rest) == ["ap"]


def test_a_table_of_constants_only_stays_whole() -> None:
    same, rest = split_constants(pd.DataFrame({"k": [114] * 3}))
    assert (same, rest.shape) == ({}, (3, 1))
