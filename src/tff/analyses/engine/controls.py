"""Control channels for the top of a ranking, and the comparison of a measure with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tff.statistics.bootstrap import Estimate, add_chance_of_draws, mean
from tff.types import KINDS, Channels, Floats, Ints


@dataclass(frozen=True)
class Controls:
    """Control channels for a ranking.

    Args:
        channels: the numbering.
        ranking: (n_channels,) flat indices, best first.
        seed: of random controls.
    """

    channels: Channels
    ranking: Tensor
    seed: int

    def matched(self, draws: int) -> list[Tensor]:
        """Random orders (n_channels,) whose k-th channel is from the layer of the ranking's k-th.

        Each is the ranking with the channels of every layer shuffled, so that the first k have as
        many channels in each layer as the top k, for every k. Omega favors narrow layers, so
        channels from anywhere lie in other layers than the top k and differ from them in that too.

        The top k may be among the first k of such an order. Only so is a ranking without meaning
        exchangeable with them: sets that avoid the top k vary less than it does, the more so the
        more of a layer it takes.
        """
        table = self.channels.table()["layer"].to_numpy()[self.ranking.numpy()]
        places = {layer: np.flatnonzero(table == layer) for layer in self.channels.layers}
        orders = []
        for draw in range(draws):
            # Equal for all rankings, so that equal numbers per layer are equal sets.
            generator = np.random.default_rng([self.seed, 1, draw])
            order = np.empty(len(self.channels), np.int64)
            for layer, start in self.channels.starts.items():
                shuffled = generator.permutation(self.channels.widths[layer])
                order[places[layer]] = start + shuffled
            orders.append(torch.from_numpy(order))
        return orders

    def random(self, k: int, draws: int) -> list[Tensor]:
        """Sets of k channels outside the top k, each drawn without replacement, as in the paper.

        Each has as many of every kind as the top k.

        Raises:
            ValueError: fewer channels remain besides the top k.
        """
        others = self._others(k)
        generator = np.random.default_rng(self.seed)
        return [
            torch.from_numpy(
                np.concatenate([generator.choice(rest, n, replace=False) for rest, n in others])
            )
            for _ in range(draws)
        ]

    def lowest(self, k: int, scores: Floats) -> tuple[Tensor, int]:
        """The k channels with the lowest scores, drawn at random among those of equal score.

        As many of every kind as in the top k.

        Args:
            k: their number.
            scores: (n_channels,) by which the channels were ranked.

        Returns:
            (k,) flat indices, and the number of channels of equal score that some of them were
            drawn from; 0 if nothing was left to chance.

        Raises:
            ValueError: fewer channels remain besides the top k.
        """
        found = [self._lowest(rest, n, scores) for rest, n in self._others(k)]
        lowest = torch.from_numpy(np.concatenate([channels for channels, _ in found]))
        return lowest, sum(tied for _, tied in found)

    def _lowest(self, rest: Ints, k: int, scores: Floats) -> tuple[Ints, int]:
        """The k of some channels, best first, with the lowest scores, and the number of ties."""
        values = np.nan_to_num(scores, nan=-np.inf)[rest]
        differs = values != values[-k]
        before, after = np.flatnonzero(differs[:-k]), np.flatnonzero(differs[-k:])
        first = int(before[-1]) + 1 if len(before) else 0
        last = len(rest) - k + int(after[0]) if len(after) else len(rest)
        sure, tied = rest[last:], rest[first:last]
        missing = k - len(sure)
        drawn = np.random.default_rng([self.seed, 3]).choice(tied, missing, replace=False)
        return np.concatenate([drawn, sure]), len(tied) * (missing < len(tied))

    def _others(self, k: int) -> list[tuple[Ints, int]]:
        """Channels outside the top k, best first, and number in it, of each kind that is in it."""
        order = self.ranking.numpy()
        kinds = self.channels.kind_numbers[order]
        found = []
        for kind in np.unique(kinds[:k]):
            rest, n = order[k:][kinds[k:] == kind], int((kinds[:k] == kind).sum())
            if len(rest) < n:
                several = len(np.unique(kinds)) > 1
                raise ValueError(
                    f"k={k}: random and lowest k need as many other channels"
                    + (f" of each kind, but of {KINDS[kind]}" if several else ", but")
                    + f" the network has {len(rest) + n} in all; lower subject.k"
                )
            found.append((rest, n))
        return found


@dataclass(frozen=True)
class Comparison:
    """Difference of a measure between the top channels of a ranking and random ones.

    Attributes:
        on_average: from the mean over all random draws. Its interval covers the images, and the
            standard error of the mean over the few draws that were made.
        from_one: the same difference, with the interval in which that from one more draw lies.
            Only if it excludes 0 do the top channels do what chance seldom does: even a random draw
            differs from the average one.
        among: number of rankings of which this is the best on the discovery images. Random draws
            have no such choice, so `from_one` is then the interval of as many more draws together.
    """

    on_average: Estimate
    from_one: Estimate
    among: int = 1

    @classmethod
    def of(
        cls, top: Estimate, drawn: Sequence[Estimate], lower: bool = True, among: int = 1
    ) -> Comparison:
        """How much lower (or higher) the measure is with the top channels than with random ones.

        Args:
            top: with the top channels dropped, or only them kept.
            drawn: the same with each random draw.
            lower: whether the difference is positive where the measure is lower.
            among: number of rankings that the ranking was chosen from.
        """
        average = mean(drawn)
        difference = average - top if lower else top - average
        return cls(
            add_chance_of_draws(difference, drawn, one_more=False),
            add_chance_of_draws(difference, drawn, among=among),
            among,
        )

    def columns(self, name: str) -> dict[str, float]:
        """Columns `NAME` with the interval of one more draw, and `NAME_on_average`."""
        return self.from_one.columns(name) | self.on_average.columns(f"{name}_on_average")

    def describe(self, what: str) -> str:
        """The difference of AP in words: `WHAT 0.016 more AP than random ones ...`."""
        value = self.on_average.value
        sign, word = (-1, "less") if value < 0 else (1, "more")
        average, one = (
            "{:.3f} to {:.3f}".format(*sorted(sign * end for end in estimate.interval))
            for estimate in (self.on_average, self.from_one)
        )
        more = "one more draw" if self.among == 1 else f"the best of {self.among} more draws"
        return (
            f"{what} {abs(value):.3f} {word} AP than random ones of the same layers on average "
            f"({average}), and {one} {word} than {more} of them"
        )

    def verdict(self) -> str:
        """Whether the top channels cost more than one more random draw would, in words."""
        low, high = self.from_one.interval
        if np.isnan([low, high]).any():
            return "significance unknown, since there is a single random draw"
        more = "significantly more" if low > 0 else "significantly less" if high < 0 else None
        return f"{more or 'not significantly more'} than random channels"


def join_draws(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over random draws, with the interval in which one more draw would lie.

    A single estimate keeps its own interval.
    """
    if len(estimates) == 1:
        return estimates[0]
    return add_chance_of_draws(mean(estimates), estimates)


def describe_draws(shares: Sequence[Estimate], name: str) -> dict[str, float]:
    """Columns of `join_draws` of shares from 0 to 1, where the ends of the interval lie too."""
    columns = join_draws(shares).columns(name)
    return {column: float(np.clip(value, 0, 1)) for column, value in columns.items()}


def describe_change(before: float, after: float) -> str:
    """A change of a measure in words, such as `falls to 0.951`."""
    if f"{before:.3f}" == f"{after:.3f}":
        return f"stays at {after:.3f}"
    return f"{'rises' if after > before else 'falls'} to {after:.3f}"
