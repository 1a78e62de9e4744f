"""Random images of many kinds, new in each run."""

import cv2
import numpy as np
import pytest


@pytest.fixture
def pictures(rng):
    """Name -> (H, W, 3) uint8: all that rounding, borders and block sizes can trip over."""
    height, width = rng.integers(30, 90, 2)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(int)
    y, x = np.indices((height, width))
    blocks = noise[: max(1, height // 12), : max(1, width // 9)]
    return {
        "noise": noise,
        "smooth": smooth.astype(np.uint8),
        "clipped": np.clip(smooth * 9 - 1000, 0, 255).astype(np.uint8),
        "black and white": (noise > 127).astype(np.uint8) * 255,
        "checkerboard": np.repeat(((x + y) % 2 * 255)[..., None], 3, 2).astype(np.uint8),
        "flat": np.broadcast_to(noise[0, 0], noise.shape).copy(),
        "black": np.zeros_like(noise),
        "white": np.full_like(noise, 255),
        "blocks": cv2.resize(blocks, (int(width), int(height)), interpolation=cv2.INTER_NEAREST),
        "half white": np.where((y < height // 2)[..., None], np.uint8(255), noise),
        "ramp": np.stack([x + y, 2 * x, y], 2).astype(np.uint8),
        "stripes": np.repeat(noise[:1], height, 0),
        "odd": rng.integers(0, 256, (31, 17, 3), dtype=np.uint8),
        "a part of one": noise[3:-2, 5:-4],
        "3x5": rng.integers(0, 256, (3, 5, 3), dtype=np.uint8),
        "1x40": rng.integers(0, 256, (1, 40, 3), dtype=np.uint8),
        "40x1": rng.integers(0, 256, (40, 1, 3), dtype=np.uint8),
        "1x1": rng.integers(0, 256, (1, 1, 3), dtype=np.uint8),
    }
