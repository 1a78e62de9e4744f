"""A transformer whose decision goes through one known neuron: do the rankings find it?

One channel of the embedding measures how red a patch is, one neuron of the last block fires on it
and writes to one number of the token, and the logit reads that number alone. All other weights are
small and random.
"""

import numpy as np
import pytest
import torch
from tests.helpers import tiny
from timm.models.vision_transformer import VisionTransformer

from tff.analyses.engine.top_channels import RankingRule
from tff.analyses.sensitivity import Sensitivity
from tff.detectors.detector import Detector
from tff.types import Channels

LAYER, NEURON, RED, WRITTEN = "blocks.1.mlp.fc1", 5, 0, 15


def planted(seed: int) -> Detector:
    """The transformer, and other random weights for each seed."""
    torch.manual_seed(seed)
    network = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=1,
        class_token=False, global_pool="avg", fc_norm=False, final_norm=False,
    )  # fmt: skip
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "norm" not in name:
                weights.copy_(0.05 * torch.randn_like(weights))
        red = torch.tensor([1.0, -0.5, -0.5]).view(3, 1, 1)
        network.patch_embed.proj.weight[RED] = 8 * red / 64
        mlp = network.blocks[1].mlp
        mlp.fc1.weight[NEURON, RED], mlp.fc1.bias[NEURON] = 3.0, -6.0
        mlp.fc2.weight[WRITTEN, NEURON] = 4.0
        network.head.weight.zero_()
        network.head.weight[0, WRITTEN] = 5.0
        network.head.bias.fill_(-10.0)
    return Detector(network.eval(), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module")
def red_images(tmp_path_factory):
    return tiny.tree(tmp_path_factory.mktemp("red"), ("seen", "other"), images=24)


@pytest.mark.parametrize("by", ["omega", "contrast", "greedy", "effect"])
def test_rankings_find_the_neuron(red_images, by):
    rule = RankingRule(by)
    subject = tiny.subject(
        red_images, planted(1), units=["neurons"], k=1, ranking=rule, confidence=0.5
    )
    names: Channels = subject.channels
    assert subject.top.tolist() == [names.flat_index(LAYER, NEURON)]
    result = Sensitivity(random_draws=10)(subject)
    assert (
        sum(said.endswith("significantly more than random channels.") for said in result.findings)
        == 2
    )


def test_without_the_neuron_nothing_is_left(red_images):
    subject = tiny.subject(red_images, planted(1), units=["neurons"], k=1, confidence=0.5)
    logits = subject.evaluate_without_channels({"top": subject.top})["top"]
    labels, plain = subject.labels, subject.evaluate().logits
    assert plain[labels == 1].min() > plain[labels == 0].max()
    spread = np.ptp(plain)
    assert np.ptp(logits) < 0.1 * spread
