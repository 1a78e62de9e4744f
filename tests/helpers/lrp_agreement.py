"""Engine and replica side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hypothesis import strategies as st
from tests.helpers import lrp_replica as replicas
from torch import Tensor, nn

from tff.relevance.lrp import LRP

POOLS = {
    "none": None,
    "max": nn.MaxPool2d(3, 2, 1),
    "overlapping": nn.MaxPool2d(2, 1),
    "average": nn.AvgPool2d((2, 3), 1, (1, 0)),
}
#: Where contributions cancel to less than one part in so many, rounding may count for more than
#: the tolerances.
DOUBTFUL = 1e5


@dataclass(frozen=True)
class Case:
    """A random network with images for it, shown as its recipe."""

    kinds: list[tuple[str, int, int]]
    head: str
    seed: int
    width: int
    pooled: int
    pool: str
    stem: dict[str, Any]
    batch: int
    size: tuple[int, int]

    @cached_property
    def network(self) -> replicas.Network:
        stem = dict(self.stem)
        if stem["padding"] == "same":
            stem["stride"] = 1
        return replicas.network(
            self.kinds, self.seed, self.width, self.pooled, POOLS[self.pool], self.head, **stem
        )

    @property
    def images(self) -> Tensor:
        generator = torch.manual_seed(self.seed)
        return torch.randn(self.batch, 3, *self.size, dtype=torch.float64, generator=generator)

    @property
    def sign(self) -> Tensor:
        return torch.tensor([1.0, -1.0, 2.5], dtype=torch.float64)[: self.batch]

    @property
    def fits(self) -> bool:
        """Whether the images are large enough for all that the network does to them."""
        try:
            with torch.no_grad():
                self.network(self.images)
        except RuntimeError:
            return False
        return True


CASES = st.builds(
    Case,
    kinds=st.lists(
        st.tuples(st.sampled_from(sorted(replicas.BLOCKS)), st.integers(1, 4), st.integers(1, 2)),
        min_size=1,
        max_size=3,
    ),
    head=st.sampled_from(sorted(replicas.HEADS)),
    seed=st.integers(0, 2**16),
    width=st.integers(1, 4),
    pooled=st.integers(1, 2),
    pool=st.sampled_from(sorted(POOLS)),
    stem=st.fixed_dictionaries(
        {
            "kernel_size": st.sampled_from([1, 2, 3, (3, 2)]),
            "stride": st.sampled_from([1, 2, (2, 1)]),
            "padding": st.sampled_from([0, 1, (2, 1), "same"]),
            "padding_mode": st.sampled_from(["zeros", "zeros", "reflect", "circular"]),
            "dilation": st.sampled_from([1, 2]),
        }
    ),
    batch=st.integers(1, 3),
    size=st.tuples(*[st.sampled_from([5, 7, 8])] * 2),
)


def agree(
    network: nn.Module,
    images: Tensor,
    sign: Tensor | float = 1.0,
    box: bool = True,
    doubtful: float = DOUBTFUL,
    **rule: Any,
) -> None:
    """Assert that the engine says what the replica says, unless rounding is in the way."""
    engine = LRP(network, box=box, **rule)
    found = engine.explain(images, sign, pixels=True)
    known = replicas.explain(network, images, engine.channels.layers, sign, box, **rule)
    with torch.no_grad():
        close(found.logit, network(images.clone())[:, 0], 1e-11)
    close(found.logit, known.logit, 1e-11)
    names = [name for name, _ in engine.leaky_operations]
    assert len(names) == len(known.accounts)
    assert all(a in (b, "") for a, b in zip(known.accounts, names, strict=True))
    if known.doubt <= doubtful:
        assert (found.shares - known.shares).abs().max() <= 1e-10
        close(found.pixels, known.pixels, 1e-9)
        close(found.conservation[..., :4], known.ledger[..., :4], 1e-9)
        counts = torch.tensor([name in engine.channels.layers for name in names])
        assert (found.conservation[:, counts, 4] - known.ledger[:, counts, 4]).abs().max() <= 1e-10


def close(found: Tensor, known: Tensor, tolerance: float) -> None:
    """Equal up to this part of the largest value."""
    assert found.shape == known.shape
    scale = known.abs().max().clamp(min=1e-6)  # of a relevance of 1 in all
    assert ((found - known) / scale).abs().max() <= tolerance
