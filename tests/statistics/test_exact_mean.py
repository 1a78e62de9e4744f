from __future__ import annotations

import numpy as np
import pytest
import torch

from tff.statistics.ffrs import ExactMean


@pytest.fixture
def rows() -> torch.Tensor:
    values = 100 * torch.randn(41, 5, dtype=torch.float64)
    values[torch.rand(41, 5) < 0.3] = torch.nan
    values[:, 4] = torch.nan
    values[7, 3] = 1e-9
    return values


@pytest.mark.parametrize("size", [1, 4, 41])
def test_mean_of_what_is_there_in_any_order(rows, size):
    whole, parts = ExactMean(5), ExactMean()
    whole.update(rows)
    for part in rows[torch.randperm(41)].split(size):
        parts.update(part)
    assert torch.equal(whole.compute().nan_to_num(-1), parts.compute().nan_to_num(-1))
    np.testing.assert_allclose(whole.compute()[:4], np.nanmean(rows[:, :4], 0), atol=1e-7)
    assert whole.compute()[4].isnan()


def test_large_values_count_as_the_limit():
    metric = ExactMean(2, limit=8.0)
    metric.update(torch.tensor([[1e30, -torch.inf], [0.0, torch.inf]]))
    assert metric.compute().tolist() == [4.0, 0.0]


def test_no_row():
    metric = ExactMean(2)
    metric.update(torch.zeros(0, 2))
    assert metric.compute().isnan().all()


def test_sums_beyond_the_range_of_an_integer():
    """Against Python's own integers, which have no end; negative ones carry too."""
    scale, rows = 2**44, 3000  # 3000 batches of 400 rows of 1: 2^64
    values = (0.5 + torch.rand(4, dtype=torch.float64) / 2) * torch.tensor([1.0, 1.0, -1.0, 1e-6])
    metric = ExactMean(4, scale=scale)
    whole = [round(value * scale) for value in values.tolist()]
    batch = values.expand(400, 4)
    for _ in range(rows):
        metric.update(batch)
    for found, units in zip(metric.compute().tolist(), whole, strict=True):
        assert found == float(units * 400 * rows) / scale / (400 * rows)
    assert max(abs(units) for units in whole) * 400 * rows > 2**63
