"""A detector: a network with one logit, normalisation inside, and numbered channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from tff.detectors.attention import rewrite_attention
from tff.detectors.feature_maps import find_channels
from tff.detectors.trained import freeze_others
from tff.detectors.weights import find_head
from tff.types import KINDS, Channels

# Statistics of ImageNet, RGB, for pixels in [0, 1] (the values every published detector uses).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Detector(nn.Module):
    """Image in [0, 1] -> logit; a positive logit means "generated".

    Normalisation happens inside, so that ablations act on pixels.

    Args:
        network: normalised images (B, 3, H, W) -> (B, 1).
        tff_fraction: fraction of the channels that are top channels by default.
        mean: per color, subtracted from pixels in [0, 1].
        std: per color, divides the difference.
        units: kinds of channels, some of `KINDS`; None: those of `find_channels`.
        trained: which parameters are trained; see `trained.freeze_others`. The others, and what
            normalises or drops outputs between them, stay in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        tff_fraction: float = 114 / 26560,  # ResNet-50: top 114 of 26,560 channels (0.43 %)
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        units: Sequence[str] | None = None,
        trained: str = "all",
    ) -> None:
        super().__init__()
        rewrite_attention(network)
        self.network = network
        self.units, self.trained = units, trained
        self.tff_fraction = tff_fraction
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)
        freeze_others(network, trained)
        if trained != "all":  # otherwise a network keeps the mode that it is in
            self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode where all parameters are trained, and eval mode elsewhere."""
        partly = mode and self.trained != "all"
        super().train(mode and not partly)
        if partly:
            self.training = True
            for module in self.network.modules():
                parameters = [*module.parameters()]
                if parameters and all(p.requires_grad for p in parameters):
                    module.train()
        return self

    def normalise(self, image: Tensor) -> Tensor:
        """Pixels in [0, 1] -> input of the network."""
        return (image - self.mean) / self.std

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B,) logits."""
        logit: Tensor = self.network(self.normalise(image))
        return logit.squeeze(1)

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) input of the layer that computes the logit."""
        found: list[Tensor] = []
        hook = find_head(self.network)[1].register_forward_pre_hook(
            lambda _, arguments: found.append(arguments[0])
        )
        try:
            self(image)
        finally:
            hook.remove()
        return found[0]

    def judge(self, features: Tensor) -> Tensor:
        """(B, D) from `features` -> (B,) logits."""
        logit: Tensor = find_head(self.network)[1](features)
        return logit.squeeze(1)

    def choose_units(self, kinds: Sequence[str]) -> None:
        """Rank and drop channels of these kinds only.

        Raises:
            ValueError: the network has none of one of them.
        """
        found = find_channels(self.network, KINDS)
        there = [kind for kind in KINDS if kind in {found.kind(layer) for layer in found.layers}]
        if missing := [kind for kind in kinds if kind not in there]:
            raise ValueError(
                f"subject.units={','.join(kinds)}: {type(self.network).__name__} has no "
                f"{' and no '.join(missing)}; it has {', '.join(there) or 'no channels'}"
            )
        self.units = tuple(kinds)
        vars(self).pop("channels", None)

    @cached_property
    def channels(self) -> Channels:
        """Everything that can be ranked and dropped, in module order."""
        return find_channels(self.network, self.units)
