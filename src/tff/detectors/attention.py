"""Attention layers of PyTorch, rewritten exactly into linear layers and one attention function."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


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
        split = qkv.reshape(*qkv.shape[:2], 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask, self.dropout if self.training else 0.0, is_causal
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return (out if self.batch_first else out.transpose(0, 1)), None


def rewrite_attention(network: nn.Module) -> None:
    """Replace each `nn.MultiheadAttention` of a network by `SeparateAttention`, in place.

    Raises:
        NotImplementedError: a layer attends to other tokens than its own, or adds some.
    """
    for name, module in network.named_modules():
        if type(module) is not nn.MultiheadAttention:
            continue
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
        changed: Any = module
        changed.__class__ = SeparateAttention
