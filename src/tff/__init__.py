"""Discover the transferable forensic features of detectors of generated images."""

import os

# albumentations 2.0.8 asks the package index for a newer release each time it is imported, which
# takes seconds, fails offline and prints an advertisement. It reads this variable on import, so it
# has to be set before any module of ours imports it; processes that we start inherit it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
