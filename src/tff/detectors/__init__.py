"""Detectors: an image in [0, 1] goes in, one logit comes out; its sigmoid is P(generated)."""
