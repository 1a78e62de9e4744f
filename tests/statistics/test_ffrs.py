"""FF-RS and the exact mean behind it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tff.statistics.ffrs import FFRS, ExactMean


@pytest.fixture
def exact_mean_rows() -> torch.Tensor:
    values = 100 * torch.randn(41, 5, dtype=torch.float64)
    values[torch.rand(41, 5) < 0.3] = torch.nan
    values[:, 4] = torch.nan
    values[7, 3] = 1e-9
    return values


@pytest.mark.parametrize("size", [1, 4, 41])
def test_exact_mean_mean_of_what_is_there_in_any_order(exact_mean_rows, size):
    whole, parts = ExactMean(5), ExactMean()
    whole.update(exact_mean_rows)
    for part in exact_mean_rows[torch.randperm(41)].split(size):
        parts.update(part)
    assert torch.equal(whole.compute().nan_to_num(-1), parts.compute().nan_to_num(-1))
    np.testing.assert_allclose(
        whole.compute()[:4], np.nanmean(exact_mean_rows[:, :4], 0), atol=1e-7
    )
    assert whole.compute()[4].isnan()


def test_exact_mean_large_values_count_as_the_limit():
    metric = ExactMean(2, limit=8.0)
    metric.update(torch.tensor([[1e30, -torch.inf], [0.0, torch.inf]]))
    assert metric.compute().tolist() == [4.0, 0.0]


def test_exact_mean_no_row():
    metric = ExactMean(2)
    metric.update(torch.zeros(0, 2))
    assert metric.compute().isnan().all()


def test_exact_mean_sums_beyond_the_range_of_an_integer():
    """Against Python's own integers, which have no end; negative ones carry too."""
    scale, exact_mean_rows = 2**44, 3000  # 3000 batches of 400 exact_mean_rows of 1: 2^64
    values = (0.5 + torch.rand(4, dtype=torch.float64) / 2) * torch.tensor([1.0, 1.0, -1.0, 1e-6])
    metric = ExactMean(4, scale=scale)
    whole = [round(value * scale) for value in values.tolist()]
    batch = values.expand(400, 4)
    for _ in range(exact_mean_rows):
        metric.update(batch)
    for found, units in zip(metric.compute().tolist(), whole, strict=True):
        assert found == float(units * 400 * exact_mean_rows) / scale / (400 * exact_mean_rows)
    assert max(abs(units) for units in whole) * 400 * exact_mean_rows > 2**63


@pytest.fixture
def ffrs_shares() -> torch.Tensor:
    return torch.randn(37, 11, generator=torch.manual_seed(0)).softmax(1)


def test_ffrs_mean_and_standard_error(ffrs_shares):
    metric = FFRS(11)
    metric.update(ffrs_shares)
    omega, error, images = metric.summary()
    exact = ffrs_shares.double().numpy()
    np.testing.assert_allclose(omega, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(error, exact.std(0, ddof=1) / np.sqrt(37), rtol=1e-9)
    assert images == 37
    assert omega.dtype == torch.float64


@pytest.mark.parametrize("size", [1, 2, 10, 36])
def test_ffrs_batches_give_the_same_bits(ffrs_shares, size):
    whole, parts = FFRS(11), FFRS()
    whole.update(ffrs_shares)
    for part in ffrs_shares.flip(0).split(size):
        parts.update(part)
    assert torch.equal(whole.compute(), parts.compute())


def test_ffrs_layers_in_order(ffrs_shares):
    whole, layers = FFRS(11), FFRS(11)
    whole.update(ffrs_shares)
    layers.update({"b": ffrs_shares[:, :4], "a": ffrs_shares[:, 4:]})
    assert torch.equal(whole.compute(), layers.compute())


def test_ffrs_few_images(ffrs_shares):
    metric = FFRS(11)
    with warnings.catch_warnings(action="error"):
        assert metric.compute().isnan().all()
    metric.update(ffrs_shares[:0])
    assert metric.summary()[0].isnan().all()
    metric.update(ffrs_shares[:1])
    omega, error, images = metric.summary()
    assert torch.equal(omega, ffrs_shares[0].double())
    assert error.isnan().all()
    assert images == 1
    metric.reset()
    metric.update(ffrs_shares[1:2])
    assert torch.equal(metric.compute(), ffrs_shares[1].double())


def test_ffrs_equal_images_have_no_error():
    metric = FFRS(2)
    metric.update(torch.tensor([[0.1, 0.7]]).repeat(9, 1))
    assert metric.summary()[1].max() < 1e-6
