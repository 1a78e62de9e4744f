"""The bundled numbers are those that were published, and ours are compared with them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tff.published.tables import (
    COLUMNS,
    RECIPES,
    Cell,
    Measurement,
    compare,
    load_cells,
    load_sources,
    normalize_name,
)

GANS = {"progan", "stylegan2", "stylegan", "biggan", "cyclegan", "stargan", "gaugan"}


def value(**attributes):
    found = [c for c in load_cells() if all(getattr(c, k) == v for k, v in attributes.items())]
    assert len({c.value for c in found}) == 1, found
    return found[0].value


@pytest.mark.parametrize(
    ("expected", "attributes"),
    [
        (0.698, {"architecture": "resnet50", "what": "top_k", "generator": "progan",
                 "metric": "ap"}),
        (0.359, {"architecture": "resnet50", "what": "top_k", "generator": "stargan",
                 "metric": "fake_accuracy"}),
        (0.594, {"architecture": "efficientnet_b0", "what": "random_k", "generator": "biggan",
                 "metric": "real_accuracy"}),
        (0.876, {"architecture": "resnet50", "recipe": "color_robust", "what": "gray",
                 "generator": "biggan"}),
        (0.775, {"recipe": "blur_jpeg", "generator": "stylegan", "metric": "accuracy",
                 "crop": "none"}),
        (0.871, {"recipe": "blur_jpeg_p01", "generator": "stylegan", "metric": "accuracy",
                 "crop": "center224"}),
    ],
)  # fmt: skip
def test_numbers_as_printed(expected, attributes):
    assert value(**attributes) == expected


def test_every_printed_number_is_there_once():
    by_source = Counter(cell.source for cell in load_cells())
    printed = {  # rows by columns of numbers
        "tff2022_sensitivity": 56 * 3, "tff2022_color_robust": 56, "cnndetection2020": 26 * 4,
    }  # fmt: skip
    assert by_source == {load_sources()[name]["source"]: count for name, count in printed.items()}
    assert len(set(load_cells())) == sum(printed.values())
    assert all(0 <= cell.value <= 1 for cell in load_cells())
    assert {cell.recipe for cell in load_cells()} == set(RECIPES)
    interventions = {"baseline", "top_k", "random_k", "low_k", "gray"}
    assert {cell.what for cell in load_cells()} == interventions


def test_two_papers_print_the_same_baseline():
    for generator in GANS:
        wang = value(source=load_sources()["cnndetection2020"]["source"], recipe="blur_jpeg",
                     generator=generator, metric="ap", crop="none")  # fmt: skip
        assert wang == value(architecture="resnet50", recipe="blur_jpeg", what="baseline",
                             generator=generator, metric="ap", crop="none")  # fmt: skip


def test_the_suspect_column_repeats_another_and_contradicts_another_table():
    suspect = [cell for cell in load_cells() if cell.suspect]
    assert len(suspect) == 4
    for cell in suspect:
        assert (cell.architecture, cell.generator) == ("efficientnet_b0", "stylegan2")
        where = {name: getattr(cell, name) for name in ("source", "architecture", "recipe", "what")}
        assert cell.value == value(**where, generator="stylegan")
        assert "repeats stylegan" in cell.suspect
    baseline = next(c for c in suspect if (c.recipe, c.what) == ("blur_jpeg", "baseline"))
    other = value(source=load_sources()["tff2022_sensitivity"]["source"], what="baseline",
                  architecture="efficientnet_b0", generator="stylegan2", metric="ap")  # fmt: skip
    assert (baseline.value, other) == (0.99, 0.959)


def test_dropped_channels_and_thresholds_of_cells():
    for cell in load_cells():
        assert (cell.k > 0) == (cell.what in ("top_k", "random_k", "low_k"))
        if cell.k:
            assert cell.k == {"resnet50": 114, "efficientnet_b0": 27}[cell.architecture]
        assert (cell.threshold == "") == (cell.metric == "ap")
        half = cell.metric == "accuracy" or cell.generator == "progan"
        assert cell.threshold in ("", "half" if half else "oracle")


def test_every_file_has_its_source():
    for about in load_sources().values():
        assert about["page"].startswith("https://github.com/")
        assert about["source"]


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


def test_a_row_of_the_comparison():
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
def test_inside_interval_allows_for_rounding(low, high, inside):
    assert row(ours=replace(OURS, low=low, high=high))["inside_interval"] is inside


@pytest.mark.parametrize(
    ("change", "expected"),
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
def test_differences_of_the_protocol_are_named(change, expected):
    found = row(**change)
    assert found["protocol_matches"] is False
    assert found["protocol_differs"] == expected


def test_the_relevance_rule_matters_only_if_channels_were_dropped():
    assert row(replace(CELL, k=0), replace(OURS, k=0), relevance="rule=epsilon")["protocol_matches"]


def test_two_spellings_of_centre():
    assert row(replace(CELL, crop="center224"), crop="centre224")["protocol_matches"]


def test_the_measurement_with_the_most_similar_protocol_is_compared():
    cell = replace(CELL, threshold="oracle")
    several = [
        Measurement(0.1, threshold="half", k=114),
        Measurement(0.2, threshold="oracle", k=50),
        Measurement(0.3, threshold="oracle", k=114),
        Measurement(0.4, threshold="half", k=50),
    ]
    assert compare(cell, "x", several, PROTOCOL)["ours"] == 0.3
    assert compare(cell, "x", several[:2], PROTOCOL)["ours"] == 0.2
