"""The tiny transformer, step by step: every value that can be dropped is within reach."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

#: Takes the name of a layer and what it computes, and gives what replaces that.
Change = Callable[[str, Tensor], Tensor]


def run(detector, image: Tensor, change: Change = lambda layer, values: values) -> Tensor:
    """Logits (B,) of `tiny.transformer`, with explicit attention.

    Heads are seen at the input of their output projection as (B, tokens, heads, width), neurons as
    (B, tokens, neurons), the embedding as (B, channels, rows, columns).
    """
    net = detector.network
    x = change("patch_embed.proj", net.patch_embed.proj(detector.normalise(image)))
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([net.cls_token.expand(len(x), -1, -1), x], dim=1) + net.pos_embed
    for i, block in enumerate(net.blocks):
        attention = block.attn
        heads, width = attention.num_heads, attention.head_dim
        q, k, v = (
            part.unflatten(2, (heads, width)) for part in attention.qkv(block.norm1(x)).chunk(3, 2)
        )
        scores = torch.einsum("bthd,bshd->bhts", q, k) / width**0.5
        mixed = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)
        mixed = change(f"blocks.{i}.attn.proj", mixed)
        x = x + attention.proj(mixed.flatten(2))
        neurons = change(f"blocks.{i}.mlp.fc1", block.mlp.fc1(block.norm2(x)))
        x = x + block.mlp.fc2(F.gelu(neurons))
    return net.head(net.norm(x)[:, 0])[:, 0]


def of_channel(layer: str, values: Tensor, channel: int) -> Tensor:
    """Values of one channel: (B, rows, columns), (B, tokens), or (B, tokens, width); a view."""
    return values[:, channel] if "embed" in layer else values[:, :, channel]


def record(detector, image: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Logits, and what each layer computes with the derivative of the logit by it."""
    found: dict[str, Tensor] = {}

    def keep(layer: str, values: Tensor) -> Tensor:
        found[layer] = values
        return values

    logit = run(detector, image.clone().requires_grad_(), keep)
    slopes = torch.autograd.grad(logit.sum(), [*found.values()])
    values = {layer: y.detach() for layer, y in found.items()}
    return logit.detach(), values, dict(zip(found, slopes, strict=True))


def drop(
    detector, image: Tensor, flat: list[int], other: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Logits with channels set to 0, or to their values in `other`."""

    def replace(layer: str, values: Tensor) -> Tensor:
        values = values.clone()
        for index in flat:
            row = detector.channels.table().iloc[index]
            if row["layer"] == layer:
                channel = int(row["channel"])
                part = of_channel(layer, values, channel)
                part[:] = 0 if other is None else of_channel(layer, other[layer], channel)
        return values

    with torch.no_grad():
        return run(detector, image, replace)
