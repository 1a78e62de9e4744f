"""The engine against explicit sums over dense matrices, on random small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from tests import replicas
from torch import nn

from tff.relevance.lrp import LRP

BLOCK = st.tuples(st.sampled_from(sorted(replicas.BLOCKS)), st.integers(1, 4), st.integers(1, 2))
STEM = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([1, 2, 3, (3, 2)]),
        "stride": st.sampled_from([1, 2, (2, 1)]),
        "padding": st.sampled_from([0, 1, (2, 1)]),
        "dilation": st.sampled_from([1, 2]),
    }
)
POOLS = {
    "none": None,
    "max": nn.MaxPool2d(3, 2, 1),
    "overlapping": nn.MaxPool2d(2, 1),
    "average": nn.AvgPool2d((2, 3), 1, (1, 0)),
}


def agree(network: replicas.Network, images: torch.Tensor, sign: np.ndarray, box: bool) -> None:
    engine = LRP(network, box=box)
    names = engine.channels.layers
    found = engine.explain(images, torch.from_numpy(sign), pixels=True)
    logit, shares, pixels = replicas.explain(network, images, names, sign, box)
    np.testing.assert_allclose(found.logit, logit, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.shares, shares, rtol=1e-9, atol=1e-11)
    scale = np.abs(pixels).max(initial=1e-300)
    np.testing.assert_allclose(found.pixels / scale, pixels / scale, rtol=1e-9, atol=1e-10)


@given(
    kinds=st.lists(BLOCK, min_size=1, max_size=3),
    stem=STEM,
    pool=st.sampled_from(sorted(POOLS)),
    width=st.integers(1, 4),
    pooled=st.integers(1, 2),
    size=st.tuples(*[st.sampled_from([5, 7, 9])] * 2),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    box=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_random_networks(kinds, stem, pool, width, pooled, size, batch, seed, box):
    network = replicas.network(kinds, seed, width=width, pooled=pooled, pool=POOLS[pool], **stem)
    images = torch.randn(batch, 3, *size, dtype=torch.float64)
    try:
        network.stem(images)
    except RuntimeError:  # too small an image for this stem
        reject()
    agree(network, images, np.array([1.0, -1.0, 2.5])[:batch], box)


@pytest.mark.parametrize("kind", sorted(replicas.BLOCKS))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out", [3, 4])
def test_each_block(kind, stride, out):
    network = replicas.network([(kind, out, stride)], seed=3, pool=POOLS["max"])
    agree(network, torch.randn(2, 3, 9, 7, dtype=torch.float64), np.array([1.0, -1.0]), True)


def test_ties_of_the_pool_go_to_the_first():
    network = replicas.network([], seed=1, pool=POOLS["max"])
    flat = torch.full((1, 3, 9, 9), 0.5, dtype=torch.float64)
    agree(network, flat, np.ones(1), True)


def test_unit_without_support_loses_its_relevance():
    network = replicas.network([("basic", 3, 1)], seed=5)
    with torch.no_grad():
        network.blocks[0].conv2.weight.copy_(-network.blocks[0].conv2.weight.abs())
        network.blocks[0].bn2.weight.abs_()
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    assert LRP(network).explain(images).shares.isfinite().all()
    agree(network, images, np.ones(2), False)
