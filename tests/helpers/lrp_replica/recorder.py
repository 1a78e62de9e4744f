"""Records what was done to tensors, then walks back with relevance.

Whatever is linear is a matrix, found by applying it to unit vectors; whatever only moves values is
a list of places, found by applying it to their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from tests.helpers.lrp_replica.shares import Shared, away_from_zero, positive, stabilised, unchanged
from torch import Tensor

Operation = Callable[..., Tensor]


class Node:
    """A tensor (B, ...) and its relevance."""

    def __init__(self, value: Tensor, image: bool = False) -> None:
        self.value, self.relevance, self.image = value, torch.zeros_like(value), image

    @property
    def shape(self) -> torch.Size:
        """Of the values of one image."""
        return self.value.shape[1:]

    @property
    def flat(self) -> Tensor:
        return self.value.flatten(1)


def dense(operation: Operation, *shape: int) -> Tensor:
    """The matrix (N_in, N_out) of an operation that is linear in its input."""
    units = torch.eye(prod(shape), dtype=torch.float64)
    return operation(units.reshape(-1, *shape)).flatten(1)


class Recorder:
    """Operations without weights."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], None]] = []
        self.accounts: list[str] = []
        self.lines: dict[int, Tensor] = {}
        self.doubt = 0.0

    def _record(
        self,
        inputs: list[Node],
        value: Tensor,
        share: Callable[[Tensor], Shared],
        account: str | None = None,
    ) -> Node:
        """An operation.

        Args:
            inputs: what it reads.
            value: of its output.
            share: relevance of the output (B, N_out) -> of all inputs one after the other.
            account: its name in the ledger; None if none of its relevance can be lost.
        """
        out, position = Node(value), len(self.accounts)
        if account is not None:
            self.accounts.append(account)

        def back() -> None:
            R = out.relevance.flatten(1)
            found = share(R)
            self.doubt = max(self.doubt, found.doubt)
            sizes = [prod(node.shape) for node in inputs]
            for node, part in zip(inputs, found.inputs.split(sizes, 1), strict=True):
                node.relevance += part.reshape(node.value.shape)
            if account is not None:
                arrives, leaves = R.sum(1), found.inputs.sum(1)
                negative = positive(-R).sum(1) / R.abs().sum(1).clamp(min=1e-300)
                line = [arrives, leaves, found.to_bias, found.at_zero, negative]
                self.lines[position] = torch.stack(line, 1)

        self.steps.append(back)
        return out

    def passes(self, operation: Operation, a: Node, account: str | None = None) -> Node:
        """Element by element: relevance is unchanged."""
        return self._record([a], operation(a.value.clone()), unchanged, account)

    def mixture(self, operation: Operation, *inputs: Node) -> Node:
        """Linear in all inputs together: epsilon rule."""
        parts = []
        for k, node in enumerate(inputs):

            def alone(unit: Tensor, k: int = k) -> Tensor:
                others = (torch.zeros(len(unit), *other.shape) for other in inputs)
                return operation(*(unit if j == k else other for j, other in enumerate(others)))

            parts.append(node.flat[:, :, None] * dense(alone, *node.shape))
        c, value = torch.cat(parts, 1), operation(*(node.value for node in inputs))
        return self._record([*inputs], value, lambda R: stabilised(R, c), "")

    def shift(self, a: Node, constants: Tensor) -> Node:
        """A sum with constants of every place, which keep what the epsilon rule does not give."""
        value = a.value + constants

        def share(R: Tensor) -> Shared:
            inputs = a.flat / away_from_zero(value.flatten(1)) * R
            return Shared(inputs, R.sum(1) - inputs.sum(1), torch.zeros(len(R)))

        return self._record([a], value, share, "")

    def route(
        self,
        operation: Operation,
        *inputs: Node,
        account: str | None = None,
        constants_keep: bool = False,
    ) -> Node:
        """Moves and copies values: relevance goes back to where they came from.

        That of constants is lost at zero, or to constants.
        """
        first = 1000  # below that are constants
        sizes = [prod(node.shape) for node in inputs]
        numbers = (first + torch.arange(sum(sizes), dtype=torch.float64)).split(sizes)
        places = [n.reshape(1, *node.shape) for n, node in zip(numbers, inputs, strict=True)]
        source = operation(*places).flatten().long() - first
        copied = source >= 0
        together = torch.cat([node.flat for node in inputs], 1)
        value = operation(*(node.value for node in inputs))
        assert torch.equal(value.flatten(1)[:, copied], together[:, source[copied]])

        def share(R: Tensor) -> Shared:
            back = torch.zeros_like(together).index_add(1, source[copied], R[:, copied])
            nothing, lost = torch.zeros(len(R)), R[:, ~copied].sum(1)
            return Shared(back, *((lost, nothing) if constants_keep else (nothing, lost)))

        return self._record([*inputs], value, share, account)

    def largest(self, pool: Operation, windows: Operation, a: Node) -> Node:
        """Max pool: relevance goes to the first of the largest values.

        Args:
            windows: a linear operation with positive coefficients on the same windows.
        """
        inside = dense(windows, *a.shape) > 0
        seen = torch.where(inside, a.flat[:, :, None], -torch.inf)
        winner = torch.from_numpy(seen.numpy().argmax(1))  # NumPy's is the first one
        value, best = pool(a.value), seen.amax(1)
        assert torch.equal(value.flatten(1), best)
        second = seen.scatter(1, winner[:, None], -torch.inf).amax(1)
        close = (best - second < 1e-12) & (best != 0)  # rounding decides
        doubt, nothing = float("inf") if close.any() else 0.0, torch.zeros_like(a.flat)

        def share(R: Tensor) -> Shared:
            return unchanged(nothing.scatter_add(1, winner, R))._replace(doubt=doubt)

        return self._record([a], value, share)

    def walk_back(self) -> None:
        for back in reversed(self.steps):
            back()
