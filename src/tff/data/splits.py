"""The sets of images that a training and an analysis are made of."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from tff.data.images import Images

SPLITS = ("train", "val", "test")


class Splits(NamedTuple):
    """The images of an analysis.

    Attributes:
        discovery: validation images of the seen generator; channels are ranked on these.
        test: images on which the ranked channels are put to the test, of every generator.
        train: images that a detector learns from, where they are looked at too.
    """

    discovery: Images
    test: Images
    train: Images | None = None

    def limited(self, limit: int | None, seed: int = 0) -> Splits:
        """At most so many images of each generator and label in each set."""
        train = self.train and self.train.limited(limit, seed)
        return Splits(self.discovery.limited(limit, seed), self.test.limited(limit, seed), train)

    @classmethod
    def none(cls) -> Splits:
        """No images at all, for a look at reports alone."""
        columns = ["path", "label", "generator", "class", "height", "width"]
        nothing = Images(pd.DataFrame({column: [] for column in columns}))
        return cls(nothing, nothing)

    @property
    def named(self) -> dict[str, Images]:
        """The sets by the names that a reader knows them by; one that stands for both, once."""
        sets = {} if self.train is None else {"train": self.train}
        if not self.discovery.manifest.equals(self.test.manifest):
            sets["discovery"] = self.discovery
        return sets | {"test": self.test}
