import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tff.analyses.engine.passes import draw_images, labels_of, sample_evenly
from tff.data.dataset import Images, View


def images(generators, labels, **options):
    rows = {"path": [f"{i}.png" for i in range(len(labels))]}
    return Images(pd.DataFrame({**rows, "generator": generators, "label": labels}), **options)


kinds = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=200)


@given(kinds, st.integers(1, 60))
def test_even_sample_is_limited_per_generator_and_label(rows, limit):
    some = images(*map(list, zip(*rows, strict=True)))
    found = sample_evenly(some, limit)
    assert found.dtype == np.int64
    assert (np.diff(found) > 0).all()
    for kind in set(rows):
        mine = [i for i, row in enumerate(rows) if row == kind]
        places = [mine.index(i) for i in found if rows[i] == kind]
        assert len(places) == min(limit, len(mine))
        gaps = np.diff([*places, len(mine)])
        assert places[0] == 0
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("limit", [7, 49, 250])
def test_evenly_never_takes_one_more(limit):
    for number in range(1, 600, 2):
        some = images(["a"] * number, [1] * number)
        assert len(sample_evenly(some, limit)) == min(limit, number)


def test_no_images():
    assert sample_evenly(images([], []), 5).tolist() == []


def test_labels_of():
    assert labels_of(images(["a", "b", "a"], [1, 0, 1])).tolist() == [1, 0, 1]


def test_draws_with_replacement_follow_the_seed():
    some = images(["a"] * 9, [1, 0, 1] * 3, view=View("center8"), seed=4, match_format=True)
    one, same, other = (draw_images(some, 300, seed) for seed in (1, 1, 2))
    assert one.manifest.equals(same.manifest)
    assert not one.manifest.equals(other.manifest)
    assert len(one) == 300
    assert one.manifest.index.tolist() == list(range(300))
    assert set(one.manifest["path"]) == set(some.manifest["path"])
    assert (one.view, one.seed, one.match_format) == (some.view, some.seed, True)
