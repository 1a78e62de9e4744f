from __future__ import annotations

import warnings

import torch

from tff.statistics.per_image import PerImage


def test_order_of_the_manifest():
    values = torch.rand(20, 3, dtype=torch.float64)
    rows = PerImage(width=3)
    for part in torch.randperm(20, generator=torch.manual_seed(1)).split(6):
        rows.update(part, values[part])
    assert torch.equal(rows.compute(), values)
    rows.reset()
    rows.update(torch.tensor([7, 2]), values[[7, 2]])
    assert torch.equal(rows.compute(), values[[2, 7]])


def test_one_number_a_row():
    rows = PerImage(width=1)
    rows.update(torch.tensor([1, 0]), torch.tensor([5.0, 6.0]))
    assert rows.compute().tolist() == [[6], [5]]


def test_no_row():
    with warnings.catch_warnings(action="error"):
        assert PerImage(width=4).compute().shape == (0, 4)
