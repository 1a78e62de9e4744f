"""Channels that are dropped beside the top k, to see what any k channels would do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tff.types import Channels


@dataclass(frozen=True)
class Controls:
    """Draws controls for the top k of a ranking; random ones come from the seed alone.

    Args:
        ranking: (n_channels,) flat indices, best first.
        k: how many of them are the top.

    Raises:
        ValueError: so few channels remain besides the top k that k others cannot be drawn.
    """

    channels: Channels
    ranking: Tensor
    k: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.ranking) < 2 * self.k:
            raise ValueError(f"k={self.k}: random and lowest k need as many other channels")

    @property
    def low(self) -> Tensor:
        """The last k of the ranking."""
        return self.ranking[-self.k :]

    def random(self, draws: int) -> list[Tensor]:
        """So many sets of k channels, without replacement, none of them in the top k."""
        generator = np.random.default_rng(self.seed)
        rest = self.ranking[self.k :].numpy()
        return [
            torch.from_numpy(generator.choice(rest, self.k, replace=False)) for _ in range(draws)
        ]

    def matched(self, draws: int) -> list[Tensor]:
        """The same, with as many channels of each layer as the top k has there.

        Since omega favours narrow layers, k channels from anywhere lie in other layers than the top
        k, and differ from them in that too. Where a layer has too few others, all of them are
        taken, and what is missing comes from anywhere: see `shortage`.
        """
        generator = np.random.default_rng([self.seed, 1])
        sets = []
        for _ in range(draws):
            taken = []
            for wanted, others in self._layers():
                taken.append(generator.choice(others, min(wanted, len(others)), replace=False))
            chosen = np.concatenate(taken)
            elsewhere = np.setdiff1d(self.ranking[self.k :].numpy(), chosen)
            more = generator.choice(elsewhere, self.k - len(chosen), replace=False)
            sets.append(torch.from_numpy(np.concatenate([chosen, more])))
        return sets

    @property
    def shortage(self) -> int:
        """How many of the k matched channels must come from other layers."""
        return sum(max(0, wanted - len(others)) for wanted, others in self._layers())

    def _layers(self) -> list[tuple[int, np.ndarray]]:
        """Of each layer in the top k how many it has there, and its other channels."""
        top = set(self.ranking[: self.k].tolist())
        layers = []
        for layer, width in self.channels.widths.items():
            start = self.channels.starts[layer]
            mine = np.arange(start, start + width)
            inside = np.array([channel in top for channel in mine])
            if inside.any():
                layers.append((int(inside.sum()), mine[~inside]))
        return layers
