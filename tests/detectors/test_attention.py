"""Rewritten attention layers against those of PyTorch and torchvision."""

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from tff.detectors.attention import REWRITTEN, rewrite_attention


def randomise(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.double().eval()


@pytest.mark.parametrize("make", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((8, 8), (4, 4), (0, 0)),
        ((8, 8), (4, 4), (2, 2)),
        ((7, 9), (4, 3), (2, 1)),  # padded
        ((4, 9), (4, 4), (2, 2)),  # one window in rows: no shift there
        ((3, 2), (4, 4), (2, 2)),  # smaller than a window
        ((5, 6), (2, 3), (0, 1)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_windows_of_swin_are_rewritten_exactly(make, size, window, shift, bias, rng):
    torch.manual_seed(int(rng.integers(2**31)))
    layer = randomise(make(6, [*window], [*shift], num_heads=2, qkv_bias=bias, proj_bias=bias))
    x = torch.randn(3, *size, 6, dtype=torch.float64)
    expected, names = layer(x), [*layer.state_dict()]
    rewrite_attention(layer)
    assert type(layer) is REWRITTEN[make]
    assert [*layer.state_dict()] == names
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-12)
    zeroed = []
    layer.proj.register_forward_pre_hook(lambda _, inputs: zeroed.append(inputs[0]))
    layer(x)
    assert zeroed[0].shape[-1] == 6


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_of_pytorch_is_rewritten_exactly(batch_first, rng):
    torch.manual_seed(int(rng.integers(2**31)))
    layer = randomise(nn.MultiheadAttention(6, 3, batch_first=batch_first))
    x = torch.randn(4, 5, 6, dtype=torch.float64)
    mask = torch.randn(5, 5) if batch_first else torch.randn(4, 4)
    for given in (None, mask.double()):
        expected = nn.MultiheadAttention.forward(layer, x, x, x, attn_mask=given)[0]
        rewritten = layer
        rewrite_attention(rewritten)
        found = rewritten(x, x, x, attn_mask=given)[0]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
