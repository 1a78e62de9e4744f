"""A subject whose detector says what a test wants: noisy logits, less sure without a cue."""

from dataclasses import dataclass, field, replace

import numpy as np
from tests.helpers import tiny

from tff.analyses.engine.passes import Outputs, Passes, labels_of


@dataclass
class Told:
    """Passes with made-up logits; relevance and the like are those of the real ones.

    Args:
        signal: name of a cue ("" for none) -> distance of both kinds in standard deviations.
        own: spread of the noise that images have anew without each cue; the rest is shared.
        seed: of the noise, another detector.
    """

    passes: Passes
    signal: dict = field(default_factory=lambda: {"": 1.5, "color": 0.6})
    own: float = 0.3
    seed: int = 0

    def __getattr__(self, name):
        return getattr(self.passes, name)

    def logits(self, images, signal, *words):
        shared = np.random.default_rng([self.seed, len(images)]).normal(size=len(images))
        key = [self.seed, len(images), *(ord(letter) for word in words for letter in word)]
        noise = np.random.default_rng(key).normal(size=len(images))
        return signal * (labels_of(images) - 0.5) + shared + self.own * noise

    def evaluate(self, images, cue, channels, sample):
        name = "" if cue is None else cue.cue
        return Outputs(self.logits(images, self.signal[name], name))

    def evaluate_dropped(self, images, choices, instead):
        left = {n: self.signal[""] / (1 + sum(c.tolist()) % 5) for n, c in choices.items()}
        return {n: self.logits(images, left[n], str(c.tolist())) for n, c in choices.items()}


def subject(root, options=None, **told):
    """A tiny subject that is told its logits."""
    real = tiny.subject(root, **{"draws": 60, **(options or {})})
    return replace(real, passes=Told(real.passes, **told), _done={}, _dropped={})
