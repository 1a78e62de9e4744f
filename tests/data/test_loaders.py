from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pandas as pd
import pytest

from tff.data.dataset import Images, View
from tff.data.loaders import EvaluationBatches, TrainingBatches

SIZES = np.random.default_rng(0).integers(8, 11, (47, 2))


@pytest.fixture
def images() -> Images:
    table = pd.DataFrame({"path": map(str, range(47)), "label": 0, "generator": "g"})
    return Images(table.assign(height=SIZES[:, 0], width=SIZES[:, 1]))


@pytest.fixture
def process(monkeypatch):
    def become(rank: int, world: int) -> None:
        monkeypatch.setattr("tff.data.loaders.get_rank", lambda: rank)
        monkeypatch.setattr("tff.data.loaders.get_world_size", lambda: world)

    return become


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_row_once_in_batches_of_one_size(batch_size, images, process):
    alone = list(EvaluationBatches(images, batch_size))
    assert Counter(chain(*alone)) == Counter((0, row, 0) for row in range(47))
    for batch in alone:
        assert 1 <= len(batch) <= batch_size
        assert len({tuple(SIZES[row]) for _, row, _ in batch}) == 1
        assert batch == sorted(batch)
    sizes = Counter(map(tuple, SIZES.tolist()))
    assert len(alone) == sum(-(-count // batch_size) for count in sizes.values())


@pytest.mark.parametrize("world", [1, 2, 3, 40])
def test_batches_do_not_depend_on_the_number_of_processes(world, images, process):
    alone = list(EvaluationBatches(images, 4))
    dealt = []
    for rank in range(world):
        process(rank, world)
        mine = EvaluationBatches(images, 4)
        assert len(mine) == len(list(mine))
        dealt += list(mine)
    assert sorted(dealt) == sorted(alone)


def test_crops_have_one_size(images):
    from dataclasses import replace

    batches = list(EvaluationBatches(replace(images, view=View("center8")), 10))
    assert [len(b) for b in batches] == [10, 10, 10, 10, 7]
    assert list(chain(*batches)) == [(0, row, 0) for row in range(47)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_batches_are_equal_and_disjoint(world, process):
    by_rank = []
    for rank in range(world):
        process(rank, world)
        batches = TrainingBatches(47, 5, seed=2)
        batches.set_epoch(4)
        by_rank.append(list(batches))
        assert len(batches) == len(by_rank[-1]) == 47 // (5 * world)
    keys = list(chain(*chain(*by_rank)))
    assert all(len(batch) == 5 for batch in chain(*by_rank))
    assert len(keys) == len(set(keys)) == 47 // (5 * world) * 5 * world
    assert {epoch for epoch, _ in keys} == {4}
    assert {row for _, row in keys} <= set(range(47))


def test_epochs_take_views_in_turn():
    batches = TrainingBatches(20, 5, seed=2, views=3)
    seen = []
    for epoch in range(5):
        batches.set_epoch(epoch)
        keys = list(chain(*batches))
        seen.append({view for view, _ in keys})
        assert sorted(row for _, row in keys) == list(range(20))
    assert seen == [{0}, {1}, {2}, {0}, {1}]


def test_processes_together_see_the_order_of_one(process):
    alone = list(chain(*TrainingBatches(40, 10, seed=2)))
    dealt = []
    for rank in range(2):
        process(rank, 2)
        dealt.append(list(TrainingBatches(40, 5, seed=2)))
    assert [key for pair in zip(*dealt, strict=True) for key in chain(*pair)] == alone


def test_new_order_each_epoch_and_seed():
    def rows(seed: int, epoch: int) -> list[int]:
        batches = TrainingBatches(47, 5, seed)
        batches.set_epoch(epoch)
        return [row for _, row in chain(*batches)]

    assert rows(0, 3) == rows(0, 3)
    orders = [rows(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    sat_out = {row for epoch in range(30) for row in set(range(47)) - set(rows(0, epoch))}
    assert len(sat_out) > 20  # not always the same rows


@pytest.mark.parametrize(("rows", "world"), [(4, 1), (0, 1), (9, 2)])
def test_too_few_rows(rows, world, process):
    process(0, world)
    with pytest.raises(ValueError, match=rf"{rows} training images .* {world} processes"):
        TrainingBatches(rows, 5, seed=0)


@pytest.mark.parametrize("batch_size", [2, 4])
def test_mixed_batches_begin_with_both_kinds(images, batch_size):
    """Lightning limits a validation to its first batches."""
    table = images.manifest.assign(label=(np.arange(47) >= 30).astype(int))
    one_size = Images(table.assign(height=8, width=8))
    first = EvaluationBatches(one_size, batch_size, mixed=True).batches[0]
    assert set(table["label"].iloc[[row for _, row, _ in first]]) == {0, 1}
    # A size that only one kind has: the sizes take turns.
    sizes = Images(table.assign(height=8 + table["label"], width=8))
    mixed = EvaluationBatches(sizes, batch_size, mixed=True).batches
    kinds = [set(table["label"].iloc[[row for _, row, _ in batch]]) for batch in mixed]
    assert kinds[:2] == [{0}, {1}]
    assert Counter(chain(*mixed)) == Counter(chain(*EvaluationBatches(sizes, batch_size)))


def test_repeated_batches_are_those_of_the_first_epoch():
    batches = TrainingBatches(47, 5, seed=2, repeat=True)
    first = [[row for _, row in batch] for batch in batches]
    batches.set_epoch(3)
    assert [[row for _, row in batch] for batch in batches] == first
    assert {epoch for batch in batches for epoch, _ in batch} == {3}  # so augmentations change
