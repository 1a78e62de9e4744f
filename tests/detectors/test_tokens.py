"""Tokens of an image as a grid."""

import pytest
import torch

from tff.detectors.tokens import Grid


@pytest.mark.parametrize(
    ("tokens", "maps", "expected"),
    [
        (197, [(1, 768, 14, 14)], (14, 14, 1)),
        (12, [(1, 8, 3, 4)], (3, 4, 0)),
        (17, [(1, 8, 3, 4)], (3, 4, 5)),  # a class token and four registers
        (13, [(1, 8, 6, 8), (1, 8, 3, 4)], (3, 4, 1)),  # the last map that fits
        (12, [(1, 8, 3, 4), (1, 8, 1, 2)], (3, 4, 0)),  # keys and values of fewer tokens
        (49, [(1, 8, 56, 56)], None),  # a window
        (1, [(1, 8, 3, 4)], None),
        (1, [(1, 8, 1, 1)], None),
        (5, [], None),
    ],
)
def test_find(tokens, maps, expected):
    assert Grid.find(tokens, maps) == expected


def test_places_and_maps():
    grid = Grid(2, 3, prefix=2)
    places = grid.locate(torch.tensor([0, 1, 2, 4, 5, 7]))
    assert places.tolist() == [[-1, -1], [-1, -1], [0, 0], [0, 2], [1, 0], [1, 2]]
    tokens = torch.arange(8.0)[None, :, None] * torch.tensor([1.0, 10.0])
    found = grid.to_map(tokens)
    assert found[0, 0].tolist() == [[2, 3, 4], [5, 6, 7]]
    assert found[0, 1].tolist() == [[20, 30, 40], [50, 60, 70]]
