from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from tff.statistics.ffrs import FFRS


@pytest.fixture
def shares() -> torch.Tensor:
    return torch.randn(37, 11, generator=torch.manual_seed(0)).softmax(1)


def test_mean_and_standard_error(shares):
    metric = FFRS(11)
    metric.update(shares)
    omega, error, images = metric.summary()
    exact = shares.double().numpy()
    np.testing.assert_allclose(omega, exact.mean(0), rtol=1e-14)
    np.testing.assert_allclose(error, exact.std(0, ddof=1) / np.sqrt(37), rtol=1e-9)
    assert images == 37
    assert omega.dtype == torch.float64


@pytest.mark.parametrize("size", [1, 2, 10, 36])
def test_batches_give_the_same_bits(shares, size):
    whole, parts = FFRS(11), FFRS()
    whole.update(shares)
    for part in shares.flip(0).split(size):
        parts.update(part)
    assert torch.equal(whole.compute(), parts.compute())


def test_layers_in_order(shares):
    whole, layers = FFRS(11), FFRS(11)
    whole.update(shares)
    layers.update({"b": shares[:, :4], "a": shares[:, 4:]})
    assert torch.equal(whole.compute(), layers.compute())


def test_few_images(shares):
    metric = FFRS(11)
    with warnings.catch_warnings(action="error"):
        assert metric.compute().isnan().all()
    metric.update(shares[:0])
    assert metric.summary()[0].isnan().all()
    metric.update(shares[:1])
    omega, error, images = metric.summary()
    assert torch.equal(omega, shares[0].double())
    assert error.isnan().all()
    assert images == 1
    metric.reset()
    metric.update(shares[1:2])
    assert torch.equal(metric.compute(), shares[1].double())


def test_equal_images_have_no_error():
    metric = FFRS(2)
    metric.update(torch.tensor([[0.1, 0.7]]).repeat(9, 1))
    assert metric.summary()[1].max() < 1e-6
