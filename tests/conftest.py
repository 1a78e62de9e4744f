"""Lets tests import each other's helpers as `tests.replicas`, from wherever pytest is started."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
