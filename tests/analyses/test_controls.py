from collections import Counter

import numpy as np
import pytest
import torch

from tff.analyses.sensitivity import Controls
from tff.types import Channels

CHANNELS = Channels({"narrow": 4, "wide": 20, "middle": 9})


def controls(k=6, seed=0, ranking=None):
    if ranking is None:
        ranking = torch.from_numpy(np.random.default_rng(seed).permutation(len(CHANNELS)))
    return Controls(CHANNELS, ranking, k, seed)


def layers(channels):
    return Counter(CHANNELS.table()["layer"].iloc[channels.tolist()])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["random", "matched"])
def test_k_different_channels_besides_the_top(kind, seed):
    made = controls(seed=seed)
    sets = getattr(made, kind)(7)
    assert len(sets) == 7
    for channels in sets:
        assert channels.dtype == torch.int64
        assert len(channels) == len(set(channels.tolist())) == 6
        assert not set(channels.tolist()) & set(made.ranking[:6].tolist())
    assert len({tuple(sorted(channels.tolist())) for channels in sets}) > 1


def test_low_is_the_end_of_the_ranking():
    made = controls()
    assert made.lowest.tolist() == made.ranking.tolist()[-6:]


@pytest.mark.parametrize("seed", range(8))
def test_matched_channels_lie_in_the_layers_of_the_top(seed):
    random = np.random.default_rng(seed)
    # At most half of each layer, so that as many others are left.
    top = [
        *random.permutation(4)[:2],
        *random.permutation(20)[:7] + 4,
        *random.permutation(9)[:4] + 24,
    ]
    rest = np.setdiff1d(np.arange(33), top)
    ranking = torch.from_numpy(np.array([*random.permutation(top), *random.permutation(rest)]))
    made = controls(13, seed, ranking)
    assert made.shortage == 0
    for channels in made.matched(5):
        assert (
            layers(channels) == layers(made.ranking[:13]) == {"narrow": 2, "wide": 7, "middle": 4}
        )


def test_where_a_layer_has_too_few_others_the_rest_comes_from_anywhere():
    # Three of the four narrow channels are in the top: one other is left, two are missing.
    ranking = torch.tensor([0, 2, 3, 5, 30, *(i for i in range(33) if i not in (0, 2, 3, 5, 30))])
    made = controls(5, ranking=ranking)
    assert made.shortage == 2
    seen = set()
    for channels in made.matched(40):
        chosen = set(channels.tolist())
        assert len(chosen) == 5
        assert 1 in chosen  # the one that is left
        assert not chosen & {0, 2, 3, 5, 30}
        found = layers(channels)
        assert found["narrow"] == 1
        assert found["wide"] >= 1
        assert found["middle"] >= 1
        seen |= chosen
    assert len(seen) > 20


def test_a_whole_layer_in_the_top():
    made = controls(4, ranking=torch.arange(33))
    assert made.shortage == 4
    for channels in made.matched(3):
        assert len(set(channels.tolist()) - set(range(4))) == 4


def test_every_other_channel_is_drawn_about_equally_often():
    made = controls(3)
    drawn = Counter(int(c) for channels in made.random(2000) for c in channels)
    expected = 2000 * 3 / 30
    assert set(drawn) == set(made.ranking[3:].tolist())
    assert max(abs(n - expected) for n in drawn.values()) < 5 * np.sqrt(expected)


def test_the_seed_alone_decides():
    ranking = torch.arange(32, -1, -1)
    for kind in ("random", "matched"):
        one, same, other = (getattr(controls(5, s, ranking), kind)(4) for s in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    # More draws begin with the same ones.
    few, many = controls(5, 3, ranking).random(2), controls(5, 3, ranking).random(6)
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


def test_as_many_others_are_needed():
    assert len(controls(16).random(1)[0]) == 16
    with pytest.raises(ValueError, match="k=17: random and lowest k need as many other channels"):
        controls(17)
