"""A training that is killed at random moments ends as one that is left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Whole scripts, some of them several times.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_two_kills_change_nothing(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "kill.py"), "--times", "2", "--epochs=2"]
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
    assert "differing: nothing" in done.stdout
    assert "incomplete files: nothing" in done.stdout
