"""LayerNorm with weights and biases, and the gamma rule, against the last block of transformers.

`layer_norm.npz` holds what lxt gives for two small vision transformers, in float64, with epsilon
1e-9 in all rules: relevance of the MLP neurons before their activation, and of what enters the
output projection of attention, summed over tokens. Between these and the logit lie both LayerNorms
of the last block. `heads` and `residual` are the values that enter this part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tff.relevance import rules
from tff.relevance.lrp import LRP

FILE = Path(__file__).parent / "layer_norm.npz"


class LastBlock(nn.Module):
    """What a transformer does behind the attention of its last block; (B, tokens, 2 D) -> (B, 1).

    Args:
        width: D, of what attention gives and of the residual stream, which lie side by side.
        average: whether the logit is that of the mean token, or of the first one.
    """

    def __init__(self, width: int, average: bool) -> None:
        super().__init__()
        self.width, self.average = width, average
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.proj = nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2, self.norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.act, self.head = nn.GELU(), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x[..., self.width :] + self.attn.proj(x[..., : self.width])
        x = x + self.mlp.fc2(self.act(self.mlp.fc1(self.norm2(x))))
        x = self.norm(x)
        return self.head(x.mean(1) if self.average else x[:, 0])


@pytest.mark.parametrize("name", ["vit_tiny_32", "vit_avg_40"])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("epsilon", {"rule": "epsilon"}),
        ("gamma0.25", {"rule": "gamma", "gamma": 0.25}),
        ("gamma0.05", {"rule": "gamma", "gamma": 0.05}),
    ],
)
def test_last_block_of_a_transformer(name, rule, options, monkeypatch):
    monkeypatch.setattr(rules, "EPSILON", 1e-9)
    with np.load(FILE) as file:
        part = {k.removeprefix(f"{name}/"): torch.from_numpy(file[k]) for k in file if name in k}
    heads, residual = part["heads"], part["residual"]
    network = LastBlock(heads.shape[-1], average="avg" in name).double().eval()
    network.load_state_dict(
        {k.removeprefix("weight/"): v for k, v in part.items() if k.startswith("weight/")}
    )
    engine = LRP(network, **options)
    at = {step.name: i for i, step in enumerate(engine.steps)}
    activations = engine.propagator.forward(torch.cat([heads, residual], -1), len(at) - 1)
    logit = activations.values[len(at) - 1]
    torch.testing.assert_close(logit[:, 0], part["logits"], rtol=1e-9, atol=1e-9)
    neurons, rule_of_fc1 = [], engine.steps[at["mlp.fc1"]].rule
    share = rule_of_fc1.relevance
    monkeypatch.setattr(
        rule_of_fc1, "relevance", lambda R, *rest: neurons.append(R) or share(R, *rest)
    )
    found = engine.propagator.backward(
        activations, len(at) - 1, torch.ones_like(logit), pixels=True
    )
    for where, relevance in (
        ("neurons", neurons[0]),
        ("heads", found.pixels[..., : heads.shape[-1]]),
    ):
        for part_of, values in (("signed", relevance), ("positive", relevance.clamp(min=0))):
            known = part[f"{rule}/{part_of}/{where}"]
            torch.testing.assert_close(values.sum(1), known, rtol=1e-6, atol=1e-7)
