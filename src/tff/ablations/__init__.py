"""Ablations: each removes one cue from images, (B, 3, H, W) in [0, 1] -> the same."""
