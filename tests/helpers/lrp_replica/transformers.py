"""Replays timm's `VisionTransformer` and `Eva`: an oracle for transformers with their options."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.helpers.lrp_replica import attention
from tests.helpers.lrp_replica.networks import Explained
from tests.helpers.lrp_replica.recorder import Node
from tests.helpers.lrp_replica.tape import Tape
from timm.layers.attention import Attention
from torch import Tensor, nn

from tff.types import Channels


class Replay:
    """One pass of a network over the tape.

    Args:
        tape: records.
        network: `VisionTransformer` or `Eva` of timm.
        lrp: "cp" or "attnlrp".
    """

    def __init__(self, tape: Tape, network: nn.Module, lrp: str) -> None:
        self.tape, self.network, self.lrp = tape, network, lrp

    def run(self, image: Node) -> Node:
        tape, net = self.tape, self.network
        x = tape.conv(net.patch_embed.proj, image)
        x = tape.route(lambda t: t.flatten(2).transpose(1, 2), x)
        x = self.norm(net.patch_embed.norm, x)
        tokens = [t for t in (net.cls_token, getattr(net, "reg_token", None)) if t is not None]
        beside = torch.cat(tokens, 1) if tokens else None
        rope = getattr(net, "rope", None)
        if net.pos_embed is None:
            x = self.concatenate(beside, x)
        elif net.no_embed_class:
            x = self.concatenate(beside, tape.shift(x, net.pos_embed))
        else:
            x = tape.shift(self.concatenate(beside, x), net.pos_embed)
        x = self.norm(net.norm_pre, x)
        for block in net.blocks:
            x = self.block(block, x, None if rope is None else rope.get_embed())
        return self.head(self.norm(net.norm, x))

    def concatenate(self, constants: Tensor | None, x: Node) -> Node:
        if constants is None:
            return x

        def put(t: Tensor) -> Tensor:
            # `route` takes numbers below 1000 for constants.
            return torch.cat([constants.expand(len(t), -1, -1), t], 1)

        return self.tape.route(put, x, account="", constants_keep=True)

    def norm(self, norm: nn.Module, x: Node) -> Node:
        if isinstance(norm, nn.Identity):
            return x
        if isinstance(norm, nn.RMSNorm):
            return self.tape.passes(norm, x)
        return self.tape.normalise(norm, x, rows=int(torch.tensor(x.shape[:-1]).prod()))

    def block(self, block: nn.Module, x: Node, rope: Tensor | None) -> Node:
        y = self.attention(block.attn, self.norm(block.norm1, x), rope)
        x = self.tape.mixture(torch.add, x, self.scale(block, 1, y))
        y = self.mlp(block.mlp, self.norm(block.norm2, x))
        return self.tape.mixture(torch.add, x, self.scale(block, 2, y))

    def scale(self, block: nn.Module, number: int, y: Node) -> Node:
        if getattr(block, f"gamma_{number}", None) is not None:  # Eva
            return self.tape.passes(lambda t: t * getattr(block, f"gamma_{number}"), y)
        layer = getattr(block, f"ls{number}", nn.Identity())
        return y if isinstance(layer, nn.Identity) else self.tape.passes(layer, y)

    def mlp(self, mlp: nn.Module, x: Node) -> Node:
        tape = self.tape
        if hasattr(mlp, "fc1_g"):
            gate = mlp.act(mlp.fc1_g(x.value))
            x = tape.passes(lambda t: t * gate, tape.linear(mlp.fc1_x, x))
        elif hasattr(mlp, "chunk_dim"):
            half = mlp.fc1.out_features // 2
            packed = tape.linear(mlp.fc1, x)
            gates = packed.value.split(half, -1)
            gate = mlp.act(gates[1 if mlp.gate_last else 0])
            x = tape.route(lambda t: t.split(half, -1)[0 if mlp.gate_last else 1], packed)
            x = tape.passes(lambda t: t * gate, x)
        else:
            x = tape.passes(mlp.act, tape.linear(mlp.fc1, x))
        return tape.linear(mlp.fc2, self.norm(mlp.norm, x))

    def attention(self, layer: nn.Module, x: Node, rope: Tensor | None) -> Node:
        tape, heads, scale = self.tape, layer.num_heads, layer.scale
        joined = getattr(layer, "qkv", None)
        if joined is not None:
            if getattr(layer, "q_bias", None) is not None:
                joined = nn.Linear(0, 0)
                joined.weight = layer.qkv.weight
                joined.bias = nn.Parameter(torch.cat([layer.q_bias, layer.k_bias, layer.v_bias]))
                tape.names[joined] = tape.names[layer.qkv]
            packed = tape.linear(joined, x)
            q, k, v = (tape.route(self.part(i, 3, heads), packed) for i in range(3))
        else:
            constant = self.lrp == "cp"  # queries and keys are gates
            q, k, v = (
                on.route(self.part(0, 1, heads), on.linear(linear, Node(x.value) if inert else x))
                for linear, inert in (
                    (layer.q_proj, constant),
                    (layer.k_proj, constant),
                    (layer.v_proj, False),
                )
                for on in [Tape(self.network) if inert else tape]
            )
        if self.lrp == "cp":
            inert = Replay(Tape(self.network), self.network, self.lrp)
            q, k = (
                inert.rotated(layer, inert.norm(norm, Node(n.value)), rope)
                for norm, n in ((layer.q_norm, q), (layer.k_norm, k))
            )
            s = attention.softmax(attention.matmul(scale * q.value, k.value.transpose(2, 3)))
            mixed = attention.weigh(tape, s, v)
        else:
            q, k = (self.norm(norm, n) for norm, n in ((layer.q_norm, q), (layer.k_norm, k)))
            q, k = (self.rotated(layer, n, rope) for n in (q, k))
            if layer.fused_attn:
                mixed = attention.attend(tape, q, k, v, scale)
            else:
                q = tape.passes(lambda t: t * scale, q)
                k = tape.route(lambda t: t.transpose(2, 3), k)
                products = attention.multiply(tape, q, k)
                if isinstance(layer, Attention):  # adds no mask, by a function of its own
                    products = tape.shift(products, torch.zeros(()))
                s = attention.normalise(tape, products)
                mixed = attention.multiply(tape, s, v)
        out = tape.route(lambda t: t.transpose(1, 2).flatten(2), mixed)
        return tape.linear(layer.proj, self.norm(layer.norm, out))

    @staticmethod
    def part(i: int, parts: int, heads: int) -> Callable[[Tensor], Tensor]:
        """Queries, keys or values of each head, (B, H, T, W)."""
        return lambda t: t.reshape(*t.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)[i]

    def rotated(self, layer: nn.Module, a: Node, rope: Tensor | None) -> Node:
        """Rotary position embedding of all tokens but the first ones."""
        if rope is None:
            return a
        tape, first = self.tape, layer.num_prefix_tokens
        sin, cos = rope.chunk(2, -1)
        x = tape.route(lambda t: t[:, :, first:], a)
        if getattr(layer, "rotate_half", False):
            half = x.shape[-1] // 2
            one = tape.passes(torch.neg, tape.route(lambda t: t[..., half:], x))
            two = tape.route(lambda t: t[..., :half], x)
            across = tape.route(lambda u, v: torch.cat([u, v], -1), one, two)
        else:
            one = tape.passes(torch.neg, tape.route(lambda t: t[..., 1::2], x))
            two = tape.route(lambda t: t[..., ::2], x)
            across = tape.route(lambda u, v: torch.stack([u, v], -1).flatten(-2), one, two)
        along, across = (
            tape.passes(lambda t: t * cos, x),
            tape.passes(lambda t: t * sin, across),
        )
        turned = tape.mixture(torch.add, along, across)
        kept = tape.route(lambda t: t[:, :, :first], a)
        return tape.route(lambda u, v: torch.cat([u, v], 2), kept, turned) if first else turned

    def head(self, x: Node) -> Node:
        tape, net = self.tape, self.network
        first = net.num_prefix_tokens
        if net.attn_pool is not None:
            x = self.pool(net.attn_pool, tape.route(lambda t: t[:, first:], x))
        elif net.global_pool == "token":
            x = tape.route(lambda t: t[:, 0], x)
        else:
            x = tape.route(lambda t: t[:, first:], x) if first else x
            x = tape.mixture(lambda t: t.mean(1), x)
        return tape.linear(net.head, self.norm(net.fc_norm, x))

    def pool(self, pool: nn.Module, x: Node) -> Node:
        """Attention of a learned query, as in SigLIP."""
        tape, heads = self.tape, pool.num_heads
        q = pool.q(pool.latent.expand(len(x.value), -1, -1))
        q = q.reshape(*q.shape[:2], heads, -1).transpose(1, 2)
        packed = tape.linear(pool.kv, x)
        k, v = (tape.route(self.part(i, 2, heads), packed) for i in range(2))
        scale = q.shape[-1] ** -0.5
        if self.lrp == "cp":
            s = attention.softmax(attention.matmul(scale * q, k.value.transpose(2, 3)))
            x = attention.weigh(tape, s, v)
        else:
            x = attention.attend(tape, q, k, v, scale)
        x = tape.linear(pool.proj, tape.route(lambda t: t.transpose(1, 2).flatten(2), x))
        if pool.mlp is not None:
            x = tape.mixture(torch.add, x, self.mlp(pool.mlp, self.norm(pool.norm, x)))
        return tape.route(lambda t: t[:, 0], x)


@torch.no_grad()
def explain(
    network: nn.Module,
    images: Tensor,
    channels: Channels,
    lrp: str = "cp",
    box: bool = False,
    **rule: float | str,
) -> Explained:
    """Explain the logit, with the shares of these channels."""
    tape, start = Tape(network, box=box, **rule), Node(images, image=True)
    logit = Replay(tape, network, lrp).run(start)
    logit.relevance += 1
    tape.walk_back()
    shares = []
    for layer, width in channels.widths.items():
        kind = channels.kind(layer)
        if kind == "neurons":
            shares.append(tape.shares_of_rows(layer, channels.first.get(layer, 0), width))
        elif kind == "heads":
            shares.append(tape.shares_of_heads(layer, width))
        else:
            shares.append(tape.shares(layer))
    ledger = torch.stack([tape.lines[i] for i in range(len(tape.accounts))], 1)
    return Explained(
        logit.value[:, 0], torch.cat(shares, 1), ledger, start.relevance, tape.accounts, tape.doubt
    )
