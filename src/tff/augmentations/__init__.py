"""Augmentations: one family a file, each an albumentations transform on HWC uint8 images."""
