"""The bundled numbers are those that were published."""

from collections import Counter

import pytest

from tff.published.tables import RECIPES, load_cells, load_sources

GANS = {"progan", "stylegan2", "stylegan", "biggan", "cyclegan", "stargan", "gaugan"}


def value(**wanted):
    found = [c for c in load_cells() if all(getattr(c, k) == v for k, v in wanted.items())]
    assert len({c.value for c in found}) == 1, found
    return found[0].value


@pytest.mark.parametrize(
    ("expected", "wanted"),
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
def test_numbers_as_printed(expected, wanted):
    assert value(**wanted) == expected


def test_every_printed_number_is_there_once():
    by_source = Counter(cell.source for cell in load_cells())
    printed = {  # rows by columns of numbers
        "tff2022_sensitivity": 56 * 3, "tff2022_color_robust": 56, "cnndetection2020": 26 * 4,
    }  # fmt: skip
    assert by_source == {load_sources()[name]["source"]: count for name, count in printed.items()}
    assert len(set(load_cells())) == sum(printed.values())
    assert all(0 <= cell.value <= 1 for cell in load_cells())
    assert {cell.recipe for cell in load_cells()} == set(RECIPES)
    assert {cell.what for cell in load_cells()} == {
        "baseline",
        "top_k",
        "random_k",
        "low_k",
        "gray",
    }


def test_two_papers_print_the_same_baseline():
    for generator in GANS:
        wang = value(source=load_sources()["cnndetection2020"]["source"], recipe="blur_jpeg",
                     generator=generator, metric="ap", crop="none")  # fmt: skip
        assert wang == value(architecture="resnet50", recipe="blur_jpeg", what="baseline",
                             generator=generator, metric="ap", crop="none")  # fmt: skip


def test_suspect_is_the_column_that_repeats_another_and_contradicts_another_table():
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


def test_what_was_dropped_and_by_which_threshold():
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
