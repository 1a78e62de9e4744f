"""Analyses on several processes: equal to those on one; an error of one is the end of all."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from tests.helpers import process_cases, tiny

SCRIPT = Path(__file__).parents[1] / "helpers" / "process_cases.py"


def started(*arguments, launcher=(), timeout=240):
    """The finished process, its output as text; all that it started is ended with it."""
    process = subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")},
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    # 13 + 13 images of the seen generator, 26 more of the other one: no batch of 11 is left whole.
    return tiny.tree(tmp_path_factory.mktemp("images"), images=13, size=24)


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "report"
    process_cases.work("cpu", "fine", images, out)
    return out


def same(one, other):
    names = sorted(path.name for path in (one / "tables").iterdir())
    assert names == sorted(path.name for path in (other / "tables").iterdir())
    assert len(names) > 8
    for name in names:
        tables = (pd.read_csv(folder / "tables" / name) for folder in (one, other))
        pd.testing.assert_frame_equal(*tables, check_exact=True, obj=name)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "devices"), [("fine", 2), ("fine", 3), ("few", 3)])
def test_equal_to_the_last_bit(case, devices, images, alone, tmp_path):
    code, out, err = started(case, images, tmp_path / "report", devices)
    assert code == 0, err
    assert "answers: 6" in out
    if case == "fine":
        same(alone, tmp_path / "report")
    else:  # other batches: other last bits
        one, other = (
            pd.read_csv(folder / "tables" / "ranking.csv").sort_values(["layer", "channel"])
            for folder in (alone, tmp_path / "report")
        )
        assert list(one["omega"]) == pytest.approx(list(other["omega"]), rel=1e-5, abs=1e-7)
        assert set(other["images"]) == set(one["images"])


@pytest.mark.slow
def test_a_transformer_on_two_processes(tmp_path):
    images = tiny.tree(tmp_path / "images", images=13)
    process_cases.work("cpu", "transformer", images, tmp_path / "alone")
    code, out, err = started("transformer", images, tmp_path / "report", 2)
    assert code == 0, err
    assert "answers: 7" in out
    same(tmp_path / "alone", tmp_path / "report")


@pytest.mark.slow
def test_a_plain_script_under_torchrun(images, alone, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    code, _, err = started("plain", images, tmp_path / "report", launcher=launcher)
    assert code == 0, err
    same(alone, tmp_path / "report")


@pytest.mark.slow
def test_ours_under_torchrun_takes_its_processes(images, alone, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    code, out, err = started("fine", images, tmp_path / "report", 1, "auto", launcher=launcher)
    assert code == 0, err
    assert out.count("answers: 6") == 2
    same(alone, tmp_path / "report")


def test_an_error_of_one_process_ends_all_and_is_printed_once(images, tmp_path):
    code, out, err = started("one", images, tmp_path / "report", 2)
    assert code == 1
    assert err.count("picture of process 1 is odd") == 1
    assert "Traceback" not in err
    assert "answers" not in out
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_an_error_of_all_processes_is_printed_once(images, tmp_path):
    code, _, err = started("all", images, tmp_path / "report", 2)
    assert code == 1
    assert err.count("is odd") == 1
    assert "picture of process 0" in err


@pytest.mark.slow
def test_an_error_of_one_process_while_others_wait_for_it(images, tmp_path):
    """Not within a pass: the others are killed by whoever started them."""
    code, _, err = started("files", images, tmp_path / "report", 2)
    assert code == 1
    assert err.count("only process 1 sees this") == 1


@pytest.mark.slow
def test_a_bug_shows_where_it_is(images, tmp_path):
    code, _, err = started("bug", images, tmp_path / "report", 2)
    assert code != 0
    assert "in compute of tff.analyses.engine.passes: IndexError: bug of process 1" in err


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all(images, tmp_path):
    code, out, _ = started("killed", images, tmp_path / "report", 2)
    assert code != 0
    assert "answers" not in out
