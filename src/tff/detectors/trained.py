"""Which parameters of a network are trained: all, the head, or the last blocks and the head."""

from __future__ import annotations

import re
from typing import Any

from timm.models import group_parameters
from torch import nn

from tff.detectors.weights import find_head
from tff.options import Allowed

#: Values of the option `train`.
TRAINED = Allowed(
    lambda value: re.fullmatch(r"all|head|last_[1-9]\d{0,3}", value) is not None,
    "all, head, or last_ with a number of blocks, such as last_4",
)


def freeze_others(network: nn.Module, train: str) -> None:
    """Let gradients reach only the parameters that are trained.

    Args:
        network: with one output; changed in place.
        train: `all`; `head`: the layer that computes the logit; `last_4`: also the last four
            blocks as timm numbers them, and what follows them.

    Raises:
        ValueError: another value, or the network has no blocks by number, or not so many.
    """
    TRAINED.require("detector.train", train)
    if train == "all":
        return
    blocks = None if train == "head" else _last_blocks(network, train)
    network.requires_grad_(False)
    find_head(network)[1].requires_grad_(True)
    for name, parameter in network.named_parameters():
        if blocks is not None and name in blocks:
            parameter.requires_grad_(True)


def _last_blocks(network: nn.Module, train: str) -> set[str]:
    """Names of the parameters of the last blocks, and of those behind them."""
    known: Any = None
    for place, module in network.named_modules():
        if hasattr(module, "group_matcher"):
            known, prefix = module, f"{place}." if place else ""
            break
    if known is None:
        raise ValueError(
            f"detector.train={train}: the blocks of {type(network).__name__} are not known; use "
            "head or all"
        )
    number: dict[str, int] = group_parameters(known, known.group_matcher(), reverse=True)
    last, count = max(number.values()), int(train.removeprefix("last_"))
    if count >= last:  # group 0 is the stem
        raise ValueError(
            f"detector.train={train}: {type(known).__name__} has {last - 1} blocks; use fewer of "
            "them, or all"
        )
    return {f"{prefix}{name}" for name, group in number.items() if group >= last - count}
