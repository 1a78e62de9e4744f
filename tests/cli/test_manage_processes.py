"""Processes that Lightning has started end with the job, in an order in which none waits."""

import subprocess
import sys
import time

import pytest
from pytorch_lightning.strategies.launchers import subprocess_script

from tff.cli import launch


@pytest.fixture
def ends(monkeypatch):
    """Whether the other process lived still, when the group was left."""
    children, found = [], []
    monkeypatch.setattr(launch, "is_initialized", lambda: True)

    def leave():
        found.append(children[0].poll() is None)

    monkeypatch.setattr(launch, "destroy_process_group", leave)

    def start(code):
        children.append(subprocess.Popen([sys.executable, "-c", code]))
        subprocess_script._launch_process_observer([*children])
        return children[0]

    yield start, found
    for child in children:
        child.kill()
        child.wait()


FOREVER = "import time; time.sleep(60)"


def test_after_an_error_the_others_go_before_the_group(ends):
    start, alive = ends
    before = time.monotonic()
    with pytest.raises(ValueError, match="reason"), launch.manage_processes():
        child = start(FOREVER)
        raise ValueError("the reason")
    assert alive == [False]
    assert child.returncode == -9
    assert time.monotonic() - before < launch.GRACE


def test_one_that_is_gone_may_say_why(ends, tmp_path):
    start, alive = ends
    word = tmp_path / "word"
    with pytest.raises(RuntimeError, match="closed"), launch.manage_processes():
        child = start(f"import time; time.sleep(1); open({str(word)!r}, 'w').close()")
        raise RuntimeError("[pair.cc:561] Connection closed by peer")
    assert word.exists()
    assert child.returncode == 0
    assert alive == [False]


def test_one_that_does_not_end_is_killed(ends, monkeypatch):
    start, _ = ends
    monkeypatch.setattr(launch, "GRACE", 0.5)
    with pytest.raises(RuntimeError, match="closed"), launch.manage_processes():
        child = start(FOREVER)
        raise RuntimeError("Connection closed by peer")
    assert child.returncode == -9


def test_after_the_work_all_leave_the_group_together(ends):
    start, alive = ends
    with launch.manage_processes():
        child = start("import time; time.sleep(1)")
    assert alive == [True]
    assert child.returncode == 0
