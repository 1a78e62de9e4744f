"""Weights of image towers under the names of a timm network, as timm itself converts them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

#: What names of the parts of a tower begin with, behind any prefix.
_STARTS = re.compile(
    r"(?P<prefix>(?:[^.]+\.)*?)(?:visual\.|embeddings\.class_embedding|class_embedding|patch_embed\.|"
    r"cls_token|stem\.|downsample_layers\.)"
)
# Parts of CLIP's tower in the transformers library -> timm.
_TRANSFORMERS = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.position_embedding.weight": "pos_embed",
    "pre_layrnorm": "norm_pre", "post_layernorm": "norm", "encoder.layers": "blocks",
    "layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj",
}  # fmt: skip


def find_tower(network: nn.Module) -> tuple[str, nn.Module] | None:
    """Name and module of the network of timm's in a network, perhaps itself; None without one."""
    named = network.named_modules()
    return next(((n, m) for n, m in named if hasattr(m, "pretrained_cfg")), None)


def to_timm_names(
    weights: Mapping[str, Tensor], network: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights of a tower under timm's names with a head beside it, and names of what is left out.

    Their names may be those of OpenAI's or OpenCLIP's CLIP, of CLIP in the transformers library, or
    of any other release that timm reads. Position embeddings are interpolated to the size of images
    that the network takes, as timm does it. Other weights are returned as they are.

    Args:
        weights: of a file.
        network: that they are for.
    """
    starts = {match["prefix"] for name in weights if (match := _STARTS.match(name))}
    found = find_tower(network)
    if found is None or not starts:
        return dict(weights), []
    place, tower = found
    convert = getattr(sys.modules[type(tower).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(weights), []
    own = tower.state_dict()
    prefix = f"{place}." if place else ""
    for start in sorted(starts, key=len):
        inner = {n.removeprefix(start): v for n, v in weights.items() if n.startswith(start)}
        beside = {n: v for n, v in weights.items() if not n.startswith(start)}
        fits = _fits(inner, own)
        if fits and start.endswith(prefix):
            break
        try:
            made = inner if fits else _convert(inner, beside, start, tower, convert)
        except Exception:  # whatever timm raises of tensors that it does not know
            continue
        kept = {n: v for n, v in made.items() if n in own or not n.startswith("head")}
        if sum(n in own for n in kept) > len(own) / 2:
            # A whole CLIP has a text tower beside it, and a detector its head.
            whole = any(n.startswith("visual.") for n in inner)
            others = {n: v for n, v in inner.items() if whole and not n.startswith("visual.")}
            others |= beside | {n: v for n, v in made.items() if n not in kept}
            heads = {n: v for n, v in others.items() if _is_head(n, v)}
            return {f"{prefix}{n}": v for n, v in kept.items()} | heads, [*others.keys() - heads]
    return dict(weights), []


def _is_head(name: str, value: Tensor) -> bool:
    return name.endswith(("weight", "bias")) and value.ndim > 0 and len(value) == 1


def _fits(inner: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names and shapes of the network, apart from a classifier."""
    same = [inner[n].shape == v.shape for n, v in own.items() if n in inner and "head" not in n]
    return len(same) > len(own) / 2 and all(same)


def _convert(
    inner: dict[str, Tensor], beside: Mapping[str, Tensor], start: str, tower: Any, convert: Any
) -> dict[str, Tensor]:
    if "embeddings.class_embedding" in inner:
        projection = beside.get(f"{start.removesuffix('vision_model.')}visual_projection.weight")
        inner = _from_transformers(inner, projection)
    elif "class_embedding" in inner:  # of the tower alone
        inner = {f"visual.{name}": value for name, value in inner.items()}
    made: dict[str, Tensor] = convert(dict(inner), tower)
    return made


def _from_transformers(
    weights: Mapping[str, Tensor], projection: Tensor | None
) -> dict[str, Tensor]:
    """CLIP's tower of the transformers library under timm's names, with its projection if any."""
    made: dict[str, Tensor] = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"(.*\.self_attn)\.q_proj\.(weight|bias)", name):
            parts = [weights[f"{match[1]}.{part}_proj.{match[2]}"] for part in "qkv"]
            name, value = f"{match[1]}.qkv.{match[2]}", torch.cat(parts)
        elif re.search(r"self_attn\.[kv]_proj|position_ids", name):
            continue
        for theirs, ours in _TRANSFORMERS.items():
            name = name.replace(theirs, ours)
        name = name.replace("self_attn.", "attn.")
        made[name] = value
    made["cls_token"] = made["cls_token"].reshape(1, 1, -1)
    made["pos_embed"] = made["pos_embed"][None]
    if projection is not None:
        made |= {"head.weight": projection, "head.bias": torch.zeros(len(projection))}
    return made
