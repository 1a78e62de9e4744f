"""Run the rules: forward once, then relevance back from the logit to every channel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tff.detectors.base import IMAGENET_MEAN, IMAGENET_STD, Detector
from tff.relevance.graph import canonize
from tff.relevance.rules import Box, ZPlus
from tff.types import Channels

# The range of normalised pixels: one for all three channels and in single precision, as released.
_MEAN, _STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
_LOW = float(((0 - _MEAN) / _STD).min())
_HIGH = float(((1 - _MEAN) / _STD).max())


class Explanation(NamedTuple):
    """What one backward walk tells.

    Shape:
        logit: (B,) of the fused network.
        shares: (B, n_channels), channels numbered as in `LRP.channels`.
        pixels: (B, 3, H, W) relevance of the input, or None when it was not asked for.
    """

    logit: Tensor
    shares: Tensor
    pixels: Tensor | None


class LRP:
    """Layer-wise relevance propagation through any convolutional network with one logit.

    Works on a frozen private copy: the given module is never touched. Memory does not grow with the
    number of images, since of each image and layer only C numbers survive.

    Args:
        module: a `Detector` (images in [0, 1]) or a bare network (images as it takes them).
        box: whether the first layer uses the z-beta rule when pixel relevance is asked for (as the
            released code does for ResNets, not for EfficientNet).

    Raises:
        NotImplementedError: the network holds an operation without a rule.
    """

    def __init__(self, module: nn.Module, box: bool = True) -> None:
        network = module.network if isinstance(module, Detector) else module
        self.prepare = module.normalise if isinstance(module, Detector) else nn.Identity()
        self.steps = canonize(network)
        reached = {step.name for step in self.steps if isinstance(step.rule, ZPlus)}
        self.channels = Channels(
            {
                name: conv.out_channels
                for name, conv in network.named_modules()
                if isinstance(conv, nn.Conv2d) and name in reached
            }
        )
        self.last_use = {j: i for i, step in enumerate(self.steps) for j in step.inputs}
        self.box = box

    @torch.no_grad()
    def explain(
        self, images: Tensor, sign: float | Tensor = 1.0, pixels: bool = False
    ) -> Explanation:
        """Explain each image's logit.

        Args:
            images: (B, 3, H, W), exactly what the given module takes.
            sign: relevance that is laid on the logit, a number or (B,). +1 explains the decision
                that was taken (in a real image's favour where the logit is negative); -1 is the
                released code's way with real images.
            pixels: also return the relevance of the input.
        """
        images = self.prepare(images)
        values = self._forward(images)
        logit = values[len(self.steps) - 1]
        if logit.numel() != len(images):
            raise ValueError(f"expected one logit an image, got an output of {tuple(logit.shape)}")
        seed = torch.as_tensor(sign, dtype=logit.dtype, device=logit.device)
        relevance = {len(self.steps) - 1: seed.expand(len(images)).reshape(logit.shape).clone()}
        shares: dict[str, Tensor] = {}
        for i in reversed(range(len(self.steps))):
            self._back(i, values, relevance, shares, pixels)
        return Explanation(logit.flatten(), self.channels.join(shares), relevance.get(-1))

    def _forward(self, images: Tensor) -> dict[int, Tensor]:
        """Run the network; keep only what the way back needs."""
        values = {-1: images}
        kept = {j for s in self.steps if s.rule and s.rule.keeps_inputs for j in s.inputs}
        for i, step in enumerate(self.steps):
            values[i] = step.run(*(values[j] for j in step.inputs))
            for j in step.inputs:
                if self.last_use[j] == i and j not in kept:
                    del values[j]
        return values

    def _back(
        self,
        i: int,
        values: dict[int, Tensor],
        relevance: dict[int, Tensor],
        shares: dict[str, Tensor],
        pixels: bool,
    ) -> None:
        """One step back: record the step's channels, share its relevance out among its inputs."""
        step = self.steps[i]
        arrived = relevance.pop(i, None)
        values.pop(i, None)
        if step.rule is None or arrived is None:
            return
        if isinstance(step.rule, ZPlus):
            shares[step.name] = positive_share(arrived)
        if step.inputs == [-1] and not pixels:
            return
        rule = step.rule
        if pixels and self.box and step.inputs == [-1] and isinstance(rule, ZPlus):
            rule = Box(rule, _LOW, _HIGH)
        inputs = [values[j] for j in step.inputs] if rule.keeps_inputs else []
        parts = rule.relevance(arrived, *inputs)
        for j, part in zip(step.inputs, parts, strict=True):
            if part is not None:
                relevance[j] = relevance[j].add_(part) if j in relevance else part


def positive_share(relevance: Tensor) -> Tensor:
    """Sum of [R]+ in a channel over sum of |R| in the layer: (B, C, H, W) -> (B, C).

    A layer that no relevance reaches in an image has no shares: all 0 (the released code has NaN).
    """
    positive = relevance.clamp(min=0).sum((2, 3))
    absolute = (2 * positive - relevance.sum((2, 3))).sum(1, keepdim=True)
    return torch.where(absolute > 0, positive / absolute, 0)


def channel_relevance(
    detector_or_module: nn.Module, images: Tensor, sign: float | Tensor = 1.0
) -> dict[str, Tensor]:
    """Each channel's share of the positive relevance of its layer, per image.

    Chandrasegaran et al. (ECCV 2022), the normalisation before FF-RS is averaged.

    Args:
        detector_or_module: a `Detector` or any traceable network with one logit.
        images: (B, 3, H, W), exactly what the given module takes.
        sign: relevance laid on the logit, a number or (B,).

    Returns:
        For each convolution, by its module name, a (B, C) tensor in the dtype of the network.
    """
    lrp = LRP(detector_or_module)
    return lrp.channels.split(lrp.explain(images, sign).shares)
