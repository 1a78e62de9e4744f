"""Attention of PyTorch and torchvision, rewritten exactly into linear layers and one function."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2


class SeparateAttention(nn.MultiheadAttention):
    """Self-attention of `nn.MultiheadAttention`, whose steps can be traced and hooked.

    PyTorch's own layer computes everything in one function and never calls its output projection.
    Parameters and their names are the same, and so are the values but for rounding.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Output as by `nn.MultiheadAttention`; the attention weights are not returned."""
        if key is not query or value is not query:
            raise NotImplementedError(
                "attention from one set of tokens to another cannot be explained, only "
                "self-attention"
            )
        tokens = query if self.batch_first else query.transpose(0, 1)
        qkv = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        # (B, T, 3, heads, width) -> three of (B, heads, T, width)
        split = torch.unflatten(qkv, 2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask, self.dropout if self.training else 0.0, is_causal
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None


def split_windows(x: Tensor, window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Tokens of each window: (B, H, W, C) -> (B * windows, tokens of a window, C).

    Zeros are added on the right and below where windows do not fit, and the map is then rolled.
    """
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
    x = torch.roll(x, [-s for s in _shift(height, width, window, shift)], (1, 2))
    x = torch.unflatten(torch.unflatten(x, 2, (-1, window[1])), 1, (-1, window[0]))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(x: Tensor, like: Tensor, window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """The inverse of `split_windows`, for a map of the size of `like`."""
    images, height, width, _ = like.shape
    rows, columns = math.ceil(height / window[0]), math.ceil(width / window[1])
    x = torch.unflatten(torch.unflatten(x, 1, tuple(window)), 0, (images, rows, columns))
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
    x = torch.roll(x, _shift(height, width, window, shift), (1, 2))
    return x[:, :height, :width]


def window_mask(like: Tensor, bias: Tensor, window: Sequence[int], shift: Sequence[int]) -> Tensor:
    """What is added to q k: the bias of relative positions, -100 between what rolling joined.

    Args:
        like: (B, H, W, C) of which only the size is read.
        bias: (1, heads, tokens, tokens) of a window.
        window: height and width.
        shift: of the windows.

    Returns:
        (1 or B * windows, heads, tokens, tokens).
    """
    images, height, width, _ = like.shape
    by = _shift(height, width, window, shift)
    if not any(by):
        return bias
    region = bias.new_zeros(1, height + -height % window[0], width + -width % window[1], 1)
    parts = (
        (slice(-side), slice(-side, -moved), slice(-moved, None))
        for side, moved in zip(window, by, strict=True)
    )
    for number, (rows, columns) in enumerate(itertools.product(*parts)):
        region[:, rows, columns] = number
    of_token = split_windows(region, window, (0, 0))  # (windows, tokens, 1)
    apart = of_token != of_token.transpose(1, 2)
    return (bias - 100 * apart[:, None].to(bias)).repeat(images, 1, 1, 1)


def _shift(height: int, width: int, window: Sequence[int], shift: Sequence[int]) -> list[int]:
    """Shift of the windows in rows and columns; none where one window is all there is."""
    return [
        by if side > w else 0 for side, w, by in zip((height, width), window, shift, strict=True)
    ]


class SeparateWindows(ShiftedWindowAttention):  # type: ignore[misc]  # torchvision has no types
    """Attention within windows of torchvision's Swin, whose steps can be traced and hooked."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), as by torchvision but for rounding."""
        window, shift = tuple(self.window_size), tuple(self.shift_size)
        bias = self.get_relative_position_bias()
        qkv = self.project(split_windows(x, window, shift))
        split = torch.unflatten(qkv, 2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        q, k, scale = self.scale(q, k)
        dropout = self.attention_dropout if self.training else 0.0
        mask = window_mask(x, bias, window, shift)
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scale)
        out = F.dropout(self.proj(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)
        return join_windows(out, x, window, shift)

    def project(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values side by side."""
        qkv: Tensor = self.qkv(tokens)
        return qkv

    def scale(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float | None]:
        """Queries and keys as they are multiplied, and by what else (None: 1 / sqrt(width))."""
        return q, k, None


class SeparateWindowsV2(SeparateWindows, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """The same of Swin V2, which multiplies normalised queries and keys."""

    def project(self, tokens: Tensor) -> Tensor:
        if self.qkv.bias is None:
            return super().project(tokens)
        q, _, v = self.qkv.bias.chunk(3)
        return F.linear(tokens, self.qkv.weight, torch.cat([q, torch.zeros_like(q), v]))

    def scale(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float | None]:
        by = self.logit_scale.clamp(max=math.log(100.0)).exp()
        return F.normalize(q, dim=-1) * by, F.normalize(k, dim=-1), 1.0


#: Classes of attention layers -> those that they are replaced by.
REWRITTEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.MultiheadAttention: SeparateAttention,
    ShiftedWindowAttention: SeparateWindows,
    ShiftedWindowAttentionV2: SeparateWindowsV2,
}


def rewrite_attention(network: nn.Module) -> None:
    """Replace each attention layer of a network by its class in `REWRITTEN`, in place.

    Raises:
        NotImplementedError: an `nn.MultiheadAttention` attends to other tokens than its own, or
            adds some.
    """
    for name, module in network.named_modules():
        if type(module) not in REWRITTEN:
            continue
        if isinstance(module, nn.MultiheadAttention):
            _require_self_attention(name, module)
        changed: Any = module
        changed.__class__ = REWRITTEN[type(module)]


def _require_self_attention(name: str, module: nn.MultiheadAttention) -> None:
    odd = [
        option
        for option, value in (
            ("kdim or vdim", None if module._qkv_same_embed_dim else True),
            ("add_bias_kv", module.bias_k),
            ("add_zero_attn", module.add_zero_attn or None),
        )
        if value is not None
    ]
    if odd:
        raise NotImplementedError(
            f"{name or 'the network'}: nn.MultiheadAttention with {' and '.join(odd)} cannot "
            "be explained; only self-attention of queries, keys and values of one width can"
        )
