from dataclasses import replace

import numpy as np
import pytest

from tff.published.tables import COLUMNS, Cell, Measurement, compare, normalize_name

PROTOCOL = {"crop": "none", "resize": "none", "relevance": "rule=zplus precision=float32"}
CELL = Cell("paper", "resnet50", "blur_jpeg", "top_k", "stylegan2", "ap", 0.553, k=114)
OURS = Measurement(0.57, 0.55, 0.59, k=114)


def row(cell=CELL, ours=OURS, **protocol):
    return compare(cell, "StyleGAN2", [ours], PROTOCOL | protocol)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("StyleGAN2", "stylegan2"), ("StyleGAN-2", "stylegan2"), ("big_gan", "biggan"),
     ("Which Face Is Real", "whichfaceisreal"), ("seeingdark", "sitd"), ("SITD", "sitd")],
)  # fmt: skip
def test_names_of_generators(name, expected):
    assert normalize_name(name) == expected


def test_a_row():
    found = row()
    assert tuple(found) == COLUMNS
    assert found["difference"] == pytest.approx(0.017)
    assert (found["generator"], found["published"], found["suspect"]) == ("StyleGAN2", 0.553, "")
    assert found["inside_interval"] is True
    assert found["protocol_matches"] is True
    assert found["protocol_differs"] == ""


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        (0.5534, 0.6, True),  # printed as 55.3, so up to 55.35
        (0.5536, 0.6, False),
        (0.5, 0.5526, True),
        (0.5, 0.5524, False),
        (np.nan, np.nan, None),
    ],
)
def test_inside_allows_for_rounding(low, high, inside):
    assert row(ours=replace(OURS, low=low, high=high))["inside_interval"] is inside


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop": "center224"}, "crop none, here center224"),
        ({"resize": 256}, "resize none, here 256"),
        ({"match_format": "JPEG 75"}, "format as it is, here JPEG 75"),
        ({"relevance": "rule=epsilon"}, "relevance rule zplus, here epsilon"),
        ({"ours": replace(OURS, k=50)}, "k 114, here 50"),
        ({"cell": replace(CELL, metric="fake_accuracy", threshold="oracle"),
          "ours": replace(OURS, threshold="half")}, "threshold oracle, here half"),
        ({"crop": "center224", "resize": 256}, "crop none, here center224; resize none, here 256"),
    ],
)  # fmt: skip
def test_another_protocol_is_told(change, said):
    found = row(**change)
    assert found["protocol_matches"] is False
    assert found["protocol_differs"] == said


def test_the_rule_of_relevance_matters_only_where_channels_were_dropped():
    assert row(replace(CELL, k=0), replace(OURS, k=0), relevance="rule=epsilon")["protocol_matches"]


def test_two_spellings_of_centre():
    assert row(replace(CELL, crop="center224"), crop="centre224")["protocol_matches"]


def test_ours_is_what_was_measured_most_like_it():
    cell = replace(CELL, threshold="oracle")
    several = [
        Measurement(0.1, threshold="half", k=114),
        Measurement(0.2, threshold="oracle", k=50),
        Measurement(0.3, threshold="oracle", k=114),
        Measurement(0.4, threshold="half", k=50),
    ]
    assert compare(cell, "x", several, PROTOCOL)["ours"] == 0.3
    assert compare(cell, "x", several[:2], PROTOCOL)["ours"] == 0.2
