"""Rules for attention: its weights as constants (CP-LRP), or with relevance of their own (AttnLRP).

Notation as in `rules`; q, k, v queries, keys and values, s = softmax(q k^T / sqrt(width) + mask),
y = s v.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tff.detectors.feature_maps import ATTENTION
from tff.relevance.rules import Operation, Rule, SignedMixture, register_rule, total, with_transpose


@register_rule(*ATTENTION)
class Attention(SignedMixture):
    """y = s v with the attention weights s held constant: R_v = v s^T(R / e(y)).

    Queries and keys receive nothing, as a gate does (CP-LRP: Ali et al., ICML 2022). Where both
    factors of a product carry relevance, each of them gets half: R_v = v s^T(R / e(2 y)),
    R_s = s (R / e(2 y)) v^T (AttnLRP: Achtibat et al., ICML 2024, proposition 3.3).
    """

    multiple_inputs = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        y, transpose = with_transpose(run, *inputs)
        shares = transpose(relevance / self.stabilise(len(inputs) * y))
        return [a * share for a, share in zip(inputs, shares, strict=True)]


class Softmax(Rule):
    """s = softmax(a): R_a = a (R - s sum(R)) (Achtibat et al., ICML 2024, proposition 3.1).

    The constant term of the linearised softmax keeps the rest, which may be of any size.
    """

    leaks = True

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        (a,) = inputs
        s, transpose = with_transpose(run, a)
        # The Jacobian is diag(s) - s s^T, so R / s becomes R - s sum(R).
        (share,) = transpose(torch.where(s == 0, 0, relevance / s))
        return [torch.where(s == 0, 0, a * share)]  # a = -inf where masked

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        return total(relevance) - sum(total(part) for part in parts)


#: Functions whose rule is `Softmax` under `relevance.attention=attnlrp`.
SOFTMAX = {torch.softmax, F.softmax, nn.Softmax}


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | tuple[Tensor, Tensor | None]:
    """`F.scaled_dot_product_attention`; without values what its softmax is of.

    That is the scaled product of queries and keys, and the mask that is added to it (-inf where a
    token is not seen), if there is one.

    Raises:
        NotImplementedError: several heads of queries share one of keys.
    """
    if value is not None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        raise NotImplementedError(
            "relevance.attention=attnlrp: heads that share keys (enable_gqa) have no rule; use "
            "relevance.attention=cp"
        )
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    products = factor * (query @ key.transpose(-2, -1))
    if is_causal:
        attn_mask = torch.ones_like(products, dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(products).masked_fill(~attn_mask, -torch.inf)
    return products, attn_mask


register_rule(attend)(Attention)


class AttnLRP(Rule):
    """y = s v with relevance for v, q and k (Achtibat et al., ICML 2024).

    Halves to s and v as in `Attention`; from s to the logits as in `Softmax`; from these to
    q k^T by the epsilon rule, so that a mask keeps its share; halves to q and k. A factor that
    depends on no pixel leaves all to the other one. What the softmax and the mask keep is lost to
    constants. The maps of one layer at a time are in memory.

    Attributes:
        factors: how many of q and k depend on pixels.
    """

    multiple_inputs = True
    leaks = True
    factors = 2

    def relevance(self, relevance: Tensor, run: Operation, *inputs: Tensor) -> list[Tensor]:
        *qk, v = inputs
        products, transpose = with_transpose(lambda *qk: run(*qk, None)[0], *qk)
        mask = run(*qk, None)[1]
        logits = products if mask is None else products + mask
        s = logits.softmax(-1)
        share = relevance / self.stabilise(2 * (s @ v))
        of_v = v * (s.transpose(-2, -1) @ share)
        of_s = s * (share @ v.transpose(-2, -1))
        of_logits = logits * (of_s - s * of_s.sum(-1, keepdim=True))
        if mask is not None:
            of_logits = torch.where(s == 0, 0, of_logits)  # logits of -inf
            of_logits = products * (of_logits / self.stabilise(logits))
        shares = transpose(of_logits / self.stabilise(self.factors * products))
        return [*(a * share for a, share in zip(qk, shares, strict=True)), of_v]

    def lost_to_constants(self, relevance: Tensor, parts: list[Tensor], *inputs: Tensor) -> Tensor:
        return total(relevance) - sum(total(part) for part in parts)
