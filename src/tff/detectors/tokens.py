"""Places of tokens in the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Tokens of an image, row by row, behind tokens without a place: class tokens and registers.

    Attributes:
        rows: of places.
        columns: of places.
        prefix: number of tokens without a place.
    """

    rows: int
    columns: int
    prefix: int

    @classmethod
    def find(cls, tokens: int, maps: Iterable[Sequence[int]]) -> Grid | None:
        """The grid of tokens that were cut from a feature map; None if no map fits.

        Args:
            tokens: their number.
            maps: shapes (B, C, rows, columns) of the outputs of convolutions before, in order.
        """
        for *_, rows, columns in reversed(list(maps)):
            places = rows * columns
            if 1 < places <= tokens < 2 * places:  # a few more at most are without a place
                return cls(rows, columns, tokens - places)
        return None

    def locate(self, token: Tensor) -> Tensor:
        """Numbers of tokens (B,) -> row and column, (B, 2); -1 for a token without a place."""
        place = token - self.prefix
        at = torch.stack([place // self.columns, place % self.columns], dim=1)
        return at.masked_fill((place < 0)[:, None], -1)

    def to_map(self, tokens: Tensor) -> Tensor:
        """(B, tokens, C) -> (B, C, rows, columns), without tokens that have no place."""
        of_places = tokens[:, self.prefix :].transpose(1, 2)
        return of_places.reshape(*of_places.shape[:2], self.rows, self.columns)
