"""Means over resamples against weights drawn one by one and sums in another order."""

import numpy as np
import pytest
import torch

from tff.statistics.resampled_means import DRAWS, RESAMPLES, ResampledMeans


def by_hand(units, values):
    """Means over resamples and halves with one generator per unit."""
    weights = np.zeros((RESAMPLES, len(units)))
    for place, unit in enumerate(units):
        generator = np.random.default_rng([3, unit])
        half = generator.integers(2)
        weights[:DRAWS, place] = generator.poisson(1.0, DRAWS)
        weights[DRAWS + half, place] = 1
    with np.errstate(invalid="ignore"):
        return (weights[:, :, None] * values).sum(1) / weights.sum(1)[:, None]


@pytest.mark.parametrize("n", [1, 2, 37])
def test_means_equal_weights_by_hand(n, rng):
    values, units = rng.random((n, 3)), rng.permutation(1000)[:n]
    metric = ResampledMeans(3)
    metric.update(torch.tensor(units), torch.tensor(values))
    np.testing.assert_allclose(metric.compute(), by_hand(units.tolist(), values), rtol=1e-10)


def test_equal_to_the_last_bit_in_any_batches_on_any_processes(rng):
    values, units = torch.tensor(rng.normal(size=(23, 4))), torch.arange(23)
    whole = ResampledMeans(4, 2**28, 2**8)
    whole.update(units, values)
    parts = [ResampledMeans(4, 2**28, 2**8) for _ in range(2)]
    for start in range(0, 23, 5):
        parts[start % 2].update(units[start : start + 5], values[start : start + 5])
    joined = ResampledMeans(4, 2**28, 2**8)
    joined.sums, joined.counts = (
        sum(getattr(part, name) for part in parts) for name in ("sums", "counts")
    )
    assert torch.equal(joined.compute(), whole.compute())


def test_no_images_give_nan_and_an_empty_batch_changes_nothing():
    metric = ResampledMeans(2)
    metric.update(torch.empty(0, dtype=torch.int64), torch.empty(0, 2))
    assert metric.compute().isnan().all()
    metric.update(torch.tensor([5]), torch.tensor([[0.5, 1.0]]))
    known = metric.compute()[~metric.compute().isnan().any(1)]
    assert torch.equal(known, torch.tensor([[0.5, 1.0]]).double().expand(len(known), 2))


def test_every_unit_is_in_one_half_and_halves_are_alike():
    metric = ResampledMeans(1)
    metric.update(torch.arange(2000), torch.ones(2000, 1))
    halves = metric.counts[DRAWS:]
    assert halves.sum() == 2000
    assert abs(halves[0] - 1000) < 5 * 2000**0.5 / 2


def test_the_spread_over_resamples_is_the_standard_error(rng):
    values = rng.random((400, 200))
    metric = ResampledMeans(200)
    metric.update(torch.arange(400), torch.tensor(values))
    spread = metric.compute()[:DRAWS].std(0).numpy()
    expected = values.std(0, ddof=1) / 20
    assert np.mean(spread / expected) == pytest.approx(1, abs=0.1)
