"""A subject with made-up logits: noisy, and less certain without a cue."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from tests.helpers import tiny

from tff.analyses.engine.cache import Cache
from tff.analyses.engine.passes import Passes, Table, labels_of


@dataclass
class FakePasses:
    """Passes with made-up logits; everything else is that of real ones.

    Args:
        signal: name of a cue ("" for none) -> distance of both kinds in standard deviations.
        own: spread of the noise that differs without each cue; the rest is shared.
        seed: of the noise; another one is another detector.
        change: of the logits (name of cue or choice, logits).
    """

    passes: Passes
    signal: dict = field(default_factory=lambda: {"": 1.5, "color": 0.6})
    own: float = 0.3
    seed: int = 0
    change: object = lambda _name, logits: logits

    def __getattr__(self, name):
        return getattr(self.passes, name)

    def logits(self, images, signal, *words):
        shared = np.random.default_rng([self.seed, len(images)]).normal(size=len(images))
        key = [self.seed, len(images), *(ord(letter) for word in words for letter in word)]
        noise = np.random.default_rng(key).normal(size=len(images))
        return signal * (labels_of(images) - 0.5) + shared + self.own * noise

    def compute_outputs(self, images, ablation, channels, sample):
        name = "" if ablation is None else ablation.cue
        logits = self.change(name, self.logits(images, self.signal[name], name))
        return Table(pd.DataFrame({"logit": logits}))

    def compute_outputs_without_channels(self, images, choices, instead):
        left = {n: self.signal[""] / (1 + sum(c.tolist()) % 5) for n, c in choices.items()}
        logits = {n: self.logits(images, left[n], str(c.tolist())) for n, c in choices.items()}
        return Table(pd.DataFrame({n: self.change(n, z) for n, z in logits.items()}))


def subject(root, options=None, **fake):
    """A tiny subject with made-up logits."""
    real = tiny.subject(root, **{"draws": 60, **(options or {})})
    return replace(real, cache=Cache(), _passes=FakePasses(real.passes, **fake))
