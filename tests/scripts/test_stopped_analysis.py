"""analyze.py stopped by a signal says how to go on, and goes on within the pass."""

import os
import shlex
import signal

import pandas as pd
import pytest
from tests.helpers import machine_faults

#: Whole scripts, some of them several times.
pytestmark = pytest.mark.slow

OPTIONS = (*machine_faults.ANALYZE, "analysis=[detection]", "subject.batch_size=2", "images=8")
#: Images take a while to load, and parts of a pass are stored after each batch.
SLOW = """
import sys, time, threading

def slow():
    needed = {"tff.analyses.engine.parts": "Parts", "tff.data.dataset": "Images"}
    while not all(hasattr(sys.modules.get(m), name) for m, name in needed.items()):
        time.sleep(0.01)
    sys.modules["tff.analyses.engine.parts"].INTERVAL = 0
    Images = sys.modules["tff.data.dataset"].Images
    original = Images.__getitem__
    def load(images, key):
        time.sleep(0.5)
        return original(images, key)
    Images.__getitem__ = load

threading.Thread(target=slow, daemon=True).start()
"""


def tables(out):
    return {p.name: pd.read_csv(p) for p in (out / "report" / "tables").glob("*.csv")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_analysis_goes_on(trained_run, tmp_path, number, processes):
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    ckpt = f"ckpt={trained_run}/run/checkpoints/best.ckpt"
    several = ("trainer=ddp_sim", f"trainer.devices={processes}") if processes > 1 else ()
    options, out = (ckpt, *OPTIONS, *several), tmp_path / "with space"
    slow = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = machine_faults.start("analyze.py", *options, f"hydra.run.dir={out}", **slow)
    machine_faults.until(lambda: len(list(out.rglob("*.partial"))) == processes, process)
    os.kill(process.pid, number)
    code, text = machine_faults.ended(process, 40)
    assert code == 128 + number, text[-4000:]
    assert "Traceback" not in text
    assert f"Stopped; what was computed is stored in {out}" in text
    assert len(list(out.rglob("*.partial"))) == processes, text[-4000:]
    command = shlex.split(text.partition("Go on with: ")[2])
    assert command[-2:] == ["resume=auto", f"hydra.run.dir={out}"]

    again = machine_faults.start(command[1], *command[2:])
    code, text = machine_faults.ended(again)
    assert code == 0, text[-4000:]
    assert "going on after" in text
    assert not list(out.rglob("*.partial"))
    whole = tmp_path / "whole"
    code, text = machine_faults.ended(
        machine_faults.start("analyze.py", *options, f"hydra.run.dir={whole}")
    )
    assert code == 0, text[-4000:]
    mine, theirs = tables(out), tables(whole)
    assert mine.keys() == theirs.keys() and mine
    for name in mine:
        pd.testing.assert_frame_equal(mine[name], theirs[name], check_exact=True)
