"""Relevance of small vision transformers against lxt (attention) and zennit (gamma rule).

`transformers.npz` holds two random networks, one with a class token and one that averages its
tokens, and for two rules on all convolutions and linear layers, in float64 with epsilon 1e-9: the
share of each unit in the positive relevance of its layer, and the relevance of the first image's
pixels. What enters an output projection is given for each of its values.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tff.relevance.lrp import LRP, channel_relevance

with np.load(Path(__file__).parent / "transformers.npz") as file:
    FILE = {name: file[name] for name in file.files}
RULES = {
    "epsilon": {"rule": "epsilon"},
    "gamma0.05": {"rule": "gamma", "gamma": 0.05},
}


def load(name: str) -> tuple[VisionTransformer, torch.Tensor]:
    """A network in float64 and its images."""
    network = VisionTransformer(**json.loads(str(FILE[f"{name}/meta"]))).eval()
    weights = f"{name}/weight/"
    network.load_state_dict(
        {k.removeprefix(weights): torch.from_numpy(v) for k, v in FILE.items() if weights in k}
    )
    return network.double(), torch.from_numpy(FILE[f"{name}/images"]).double()


@pytest.mark.parametrize("name", ["vit_tiny_32", "vit_avg_40"])
@pytest.mark.parametrize("rule", RULES)
def test_units_and_pixels_of_a_transformer(name, rule):
    network, images = load(name)
    engine = LRP(network, box=False, **RULES[rule])
    found = engine.explain(images, pixels=True)
    assert abs(found.logit.numpy() - FILE[f"{name}/logits"]).max() < 1e-12
    assert abs(found.pixels[:1].numpy() - FILE[f"{name}/{rule}/pixels"]).max() < 1e-6
    shares = engine.channels.split(found.shares)
    assert {engine.channels.kind(layer) for layer in shares} == {"embedding", "neurons", "heads"}
    for layer, share in shares.items():
        heads = engine.channels.kind(layer) == "heads"
        known = FILE[f"{name}/{rule}/share/{layer}{'.input' if heads else ''}"]
        known = known.reshape(*share.shape, -1).sum(-1) if heads else known
        assert abs(share.numpy() - known).max() < 1e-6, layer


def test_default_rule_is_epsilon_beyond_the_embedding():
    network, images = load("vit_tiny_32")
    shares = channel_relevance(network, images)
    known = FILE["vit_tiny_32/epsilon/share/blocks.1.mlp.fc1"]
    assert abs(shares["blocks.1.mlp.fc1"].numpy() - known).max() < 1e-6
