"""Lets tests import each other's helpers as `tests.replicas`, from wherever pytest is started."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1]))
# Convolutions of many groups in float64 meet at a barrier for each group: on a busy machine two
# threads take minutes where one takes seconds.
torch.set_num_threads(1)
