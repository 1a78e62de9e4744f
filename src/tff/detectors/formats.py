"""Whose state dict it is: what wraps its tensors, how they are named, which network they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tff.safe_text import visible

# What trainers put before the names of a network's own tensors.
_WRAPPERS = ("module.", "_orig_mod.", "detector.", "model.", "network.")

# Modules of efficientnet_pytorch by their names in timm.
_EFFICIENTNET = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head",
                 "_bn1": "bn2", "_fc": "classifier"}  # fmt: skip
_INVERTED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
# Blocks that do not expand have one convolution less, and timm counts anew.
_SEPARABLE = _INVERTED | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}

# ResNets of torchvision by their number of blocks, and by whether these have a third convolution
# and the outputs and inputs (of one group) of the second one in the first of them.
_RESNETS = {
    ((2, 2, 2, 2), False, (64, 64)): "resnet18",
    ((3, 4, 6, 3), False, (64, 64)): "resnet34",
    ((3, 4, 6, 3), True, (64, 64)): "resnet50",
    ((3, 4, 23, 3), True, (64, 64)): "resnet101",
    ((3, 8, 36, 3), True, (64, 64)): "resnet152",
    ((3, 4, 6, 3), True, (128, 128)): "wide_resnet50_2",
    ((3, 4, 23, 3), True, (128, 128)): "wide_resnet101_2",
    ((3, 4, 6, 3), True, (128, 4)): "resnext50_32x4d",
    ((3, 4, 23, 3), True, (256, 8)): "resnext101_32x8d",
    ((3, 4, 23, 3), True, (256, 4)): "resnext101_64x4d",
}

#: How to load what cannot be told by its names.
HINT = (
    'If it is of another architecture, name it: load(path, {"_target_": '
    '"tff.detectors.torchvision_model.torchvision_model", "name": NAME}), or timm_model likewise'
)


def state_dict_in(content: Mapping[str, Any], path: Path | str) -> dict[str, Tensor]:
    """The network's tensors, whatever wraps them, by the names of torchvision or timm.

    Args:
        content: a state dict, or a checkpoint that holds one as `state_dict` or `model`.
        path: of the file, for messages.

    Raises:
        ValueError: there are no tensors in it.
    """
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor) and isinstance(k, str)}
    if not weights:
        found = ", ".join(str(key) for key in [*content][:5]) or "nothing"
        raise ValueError(f"checkpoint {path}: holds no tensors, only: {visible(found[:300])}")
    _require_dense(weights, path)
    for wrapper in _WRAPPERS:
        if all(k.startswith(wrapper) for k in weights):
            weights = {k.removeprefix(wrapper): v for k, v in weights.items()}
    if "_conv_stem.weight" in weights:
        return _from_efficientnet_pytorch(weights)
    # DenseNets were published when a module's name might still hold a dot.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {old.sub(r"\1\2", k): v for k, v in weights.items()}


def _require_dense(weights: Mapping[str, Tensor], path: Path | str) -> None:
    for name, tensor in weights.items():
        kind = (
            "only a shape" if tensor.is_meta
            else "sparse" if tensor.layout != torch.strided
            else "quantised" if tensor.is_quantized
            else "complex" if tensor.is_complex()
            else ""
        )  # fmt: skip
        if kind:
            raise ValueError(
                f"checkpoint {path}: its tensor {name[:200]!r} is {kind}; expected real numbers, "
                "one beside the other"
            )


def _from_efficientnet_pytorch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By timm's names. It numbers blocks within stages; a stage is a run of equal width."""
    place: dict[int, str] = {}
    stage, index, width = -1, 0, torch.Size()
    blocks = {int(k.split(".")[1]) for k in weights if re.match(r"_blocks\.\d+\.", k)}
    for block in sorted(blocks):
        projection = weights.get(f"_blocks.{block}._project_conv.weight")
        if projection is not None and projection.shape[:1] != width:
            stage, index, width = stage + 1, 0, projection.shape[:1]
        place[block] = f"blocks.{stage}.{index}"
        index += 1
    named = {}
    for key, value in weights.items():
        owner, dot, leaf = key.rpartition(".")
        inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", owner)
        if inside:
            expands = f"_blocks.{inside[1]}._expand_conv.weight" in weights
            name = (_INVERTED if expands else _SEPARABLE).get(inside[2], inside[2])
            named[f"{place[int(inside[1])]}.{name}.{leaf}"] = value
        else:
            named[f"{_EFFICIENTNET.get(owner, owner)}{dot}{leaf}"] = value
    return named


def recognise(weights: Mapping[str, Tensor], path: Path | str) -> dict[str, Any]:
    """Settings of the detector whose weights these are, told by their names and shapes.

    Raises:
        ValueError: neither an EfficientNet-B0 nor one of torchvision's ResNets.
    """
    if "conv_stem.weight" in weights:
        return {"_target_": "tff.detectors.efficientnet.efficientnet_b0"}
    found = f"first tensors: {visible(', '.join([*weights][:3])[:300])}"
    inner = weights.get("layer1.0.conv2.weight")
    if inner is not None and inner.ndim == 4:
        blocks = {m[0] for k in weights if (m := re.match(r"layer[1-4]\.\d+\.", k))}
        counts = tuple(sum(b.startswith(f"layer{n}.") for b in blocks) for n in (1, 2, 3, 4))
        kind = (counts, "layer1.0.conv3.weight" in weights, tuple(inner.shape[:2]))
        if kind in _RESNETS:
            target = "tff.detectors.torchvision_model.torchvision_model"
            return {"_target_": target, "name": _RESNETS[kind]}
        found = f"like a ResNet of {'-'.join(map(str, counts))} blocks, width {len(inner)}"
    raise ValueError(
        f"checkpoint {path}: of unknown architecture ({found}); expected the names of "
        f"torchvision's ResNets, or of EfficientNet-B0 in timm or efficientnet_pytorch. {HINT}"
    )
