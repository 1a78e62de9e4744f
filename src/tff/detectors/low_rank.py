"""Weights in files that hold updates of low rank beside them: LoRA, and what Effort trains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tff.safe_text import make_printable

# `_r` are the singular vectors that Effort keeps, which its `weight_main` is made of.
_PART = re.compile(
    r"(?P<layer>.+)\.(?:(?P<effort>weight_main|[USV]_(?:residual|r))"
    r"|(?P<lora>lora_[AB])(?:\.\w+)??(?:\.weight)?)"
)
_RESIDUAL = ("U_residual", "S_residual", "V_residual")


def add_updates(
    weights: dict[str, Tensor], path: Path | str, lora_alpha: float | None
) -> dict[str, Tensor]:
    """The weights with updates of low rank added.

    Effort (Yan et al., ICML 2025): weight_main + U diag(S) V of the last singular vectors; of its
    two classes, the logit of "generated" minus that of "real" is the one logit. LoRA (Hu et al.,
    ICLR 2022): weight + alpha / rank B A.

    Args:
        weights: of a file.
        path: of the file, for messages.
        lora_alpha: numerator of the scale of LoRA updates; None: not given.

    Raises:
        ValueError: an update lacks a part, its scale or the weight that it changes, or its parts
            have shapes that do not fit; or there are several of a layer.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    used = set()
    for name, value in weights.items():
        if match := _PART.fullmatch(name):
            found = parts.setdefault(match["layer"], {})
            if (part := match["effort"] or match["lora"]) in found:
                raise ValueError(
                    f"checkpoint {path}: holds several updates of {_show(match['layer'])}; merge "
                    "the one that you mean"
                )
            found[part] = value
            used.add(name)
    effort = any("weight_main" in found for found in parts.values())
    if not effort and not any({"lora_A", "lora_B"} & found.keys() for found in parts.values()):
        return weights
    made = {n.replace(".base_layer.", "."): v for n, v in weights.items() if n not in used}
    for layer, found in parts.items():
        name = f"{layer}.weight"
        base = found.get("weight_main", made.get(name))
        made[name] = _add(base, found, f"checkpoint {path}: {_show(layer)}", lora_alpha)
    return {n: _join_classes(n, v) for n, v in made.items()} if effort else made


def _show(layer: str) -> str:
    return make_printable(layer[:200])


def _add(
    base: Tensor | None, found: Mapping[str, Tensor], where: str, lora_alpha: float | None
) -> Tensor:
    """A weight with its update."""
    if base is None:
        raise ValueError(
            f"{where} has an update, and not the weight that it is added to; merge both where they "
            "come from (peft: model.merge_and_unload()), and save that"
        )
    needed = ("lora_B", "lora_A") if {"lora_A", "lora_B"} & found.keys() else _RESIDUAL
    if needed == _RESIDUAL and not found.keys() & set(_RESIDUAL):
        return base  # nothing of it was trained
    if lost := [part for part in needed if part not in found]:
        raise ValueError(f"{where} has an update without {' and '.join(lost)}")
    left, right = found[needed[0]], found[needed[-1]]
    size = found.get("S_residual")
    # Shapes are compared first, since a product may take far more memory than the file.
    if not (
        left.ndim == right.ndim == base.ndim == 2 and len(right) == left.shape[1]
        and base.shape == (len(left), right.shape[1])
        and (size is None or size.shape == (len(right),))
    ):  # fmt: skip
        shapes = ", ".join(f"{part} {tuple(found[part].shape)}" for part in needed)
        raise ValueError(
            f"{where} has an update that does not fit the weight {tuple(base.shape)}: {shapes}"
        )
    if size is not None:
        return base + (left * size) @ right
    if lora_alpha is None:
        raise ValueError(
            f"{where} has a LoRA update of rank {len(right)}, and weights do not tell its scale; "
            "pass detector.lora_alpha=N (lora_alpha in adapter_config.json)"
        )
    return base + lora_alpha / len(right) * (left @ right)


def _join_classes(name: str, value: Tensor) -> Tensor:
    """A head of two classes as one of one logit; anything else as it is."""
    is_head = re.fullmatch(r"(?:.*\.)?head\.(?:weight|bias)", name)
    return value[1:] - value[:1] if is_head and value.ndim and len(value) == 2 else value
