from __future__ import annotations

import pytest
import torch

from tff.types import Channels

CHANNELS = Channels({"stem": 3, "block.conv": 4, "a": 2})  # network order, not the alphabet's


def test_flat_numbering():
    assert CHANNELS.layers == ["stem", "block.conv", "a"]
    assert len(CHANNELS) == 9
    assert CHANNELS.starts == {"stem": 0, "block.conv": 3, "a": 7}
    table = CHANNELS.table()
    flat = [CHANNELS.flat_index(row.layer, row.channel) for row in table.itertuples()]
    assert flat == list(range(9))


def test_split_and_join():
    flat = torch.arange(18).reshape(2, 9)
    parts = CHANNELS.split(flat)
    assert {k: v.tolist() for k, v in parts.items()} == {
        "stem": [[0, 1, 2], [9, 10, 11]],
        "block.conv": [[3, 4, 5, 6], [12, 13, 14, 15]],
        "a": [[7, 8], [16, 17]],
    }
    assert torch.equal(CHANNELS.join(dict(reversed(parts.items()))), flat)


def test_split_refuses_another_width():
    with pytest.raises(RuntimeError):
        CHANNELS.split(torch.zeros(8))


def test_masks():
    masks = CHANNELS.masks(torch.tensor([8, 0, 2]))
    assert {k: v.tolist() for k, v in masks.items()} == {
        "stem": [True, False, True],
        "a": [False, True],
    }
    assert CHANNELS.masks(torch.tensor([], dtype=torch.int64)) == {}


@pytest.mark.parametrize(
    ("layer", "channel", "message"),
    [
        ("nobody", 0, "unknown layer 'nobody'.*stem, block.conv, a"),
        ("a", 2, "2 channels; no channel 2"),
        ("a", -1, "no channel -1"),
    ],
)
def test_unknown_channel(layer, channel, message):
    with pytest.raises(KeyError, match=message):
        CHANNELS.flat_index(layer, channel)


def test_no_channels():
    empty = Channels({})
    assert len(empty) == 0
    assert empty.table().empty
