"""The engine against explicit sums over dense matrices, on random small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.helpers import lrp_replica as replicas
from tests.helpers.lrp_agreement import CASES, POOLS, agree
from torch import nn

from tff.relevance.lrp import LRP

SIGN = torch.tensor([1.0, -1.0], dtype=torch.float64)


@given(CASES, st.booleans())
def test_random_networks_agree_with_the_replica(case, box):
    assume(case.fits)
    agree(case.network, case.images, case.sign, box)


@pytest.mark.parametrize("kind", sorted(replicas.BLOCKS))
def test_each_block_agrees_with_the_replica(kind):
    for out, stride, seed in ((3, 1, 1), (4, 2, 2)):
        network = replicas.network([(kind, out, stride)], seed, width=4)
        agree(network, torch.randn(2, 3, 8, 7, dtype=torch.float64), SIGN)


@pytest.mark.parametrize("head", sorted(replicas.HEADS))
@pytest.mark.parametrize("pool", sorted(POOLS))
def test_each_head_and_pool_agree_with_the_replica(head, pool):
    network = replicas.network([("basic", 4, 2)], seed=3, pool=POOLS[pool], head=head)
    agree(network, torch.randn(2, 3, 9, 7, dtype=torch.float64), SIGN)


def test_ties_in_max_pooling_go_to_the_first_value():
    for seed in range(3):
        network = replicas.network([("copies", 3, 1)], seed)
        images = torch.randn(2, 3, 5, 4, dtype=torch.float64)
        agree(network, images, SIGN, doubtful=float("inf"))


def test_flat_image_with_ties_everywhere():
    network = replicas.network([], seed=2, pool=POOLS["max"])
    network.stem.norm.bias.data.abs_().add_(3)
    flat = torch.full((1, 3, 9, 9), 0.5, dtype=torch.float64)
    assert (network.stem(flat) > 0).all()
    agree(network, flat, doubtful=float("inf"))


def test_epsilon_moves_small_values_away_from_zero():
    """By the epsilon of the released code, in single precision; and zero itself to above."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(3, 1)).double()
    network[0].weight.data[:] = torch.eye(3)[:, :, None, None]
    network[0].bias.data.zero_()
    network[2].weight.data[:], network[2].bias.data[:] = 1.0, 0.0
    image = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    found = LRP(network, box=False).explain(image, pixels=True)
    assert found.logit == 0
    by = 1 / np.float64(np.float32(1e-6))
    np.testing.assert_allclose(found.pixels.flatten(), [by, 0, 0], rtol=1e-12)
    assert found.conservation[0, -1, 3] == 1  # all is lost, as far as the linear layer is concerned
    below = LRP(network, box=False).explain(image - 1e-7, pixels=True).pixels
    np.testing.assert_allclose(below.flatten()[0], -(1 - 1e-7) / (3e-7 + 1 / by), rtol=1e-8)


def test_unit_without_positive_contributions_loses_its_relevance():
    network = replicas.network([("basic", 3, 1)], seed=5)
    with torch.no_grad():
        network.blocks[0].conv2.weight.copy_(-network.blocks[0].conv2.weight.abs())
        network.blocks[0].bn2.weight.abs_()
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    explained = LRP(network).explain(images)
    assert explained.shares.isfinite().all()
    position = [name for name, _ in LRP(network).leaky_operations].index("blocks.0.conv2")
    arrives, leaves, to_bias, at_zero, _ = explained.conservation[:, position].T
    assert (arrives != 0).all()
    assert (leaves == 0).all()
    assert (to_bias == 0).all()
    assert torch.equal(at_zero, arrives)
    agree(network, images, box=False)


def test_convolution_used_twice_is_one_layer():
    network = replicas.network([("twice", 3, 1)], seed=2)
    engine = LRP(network)
    assert [name for name, _ in engine.leaky_operations].count("blocks.0.middle.conv") == 2
    assert engine.channels.layers.count("blocks.0.middle.conv") == 1
