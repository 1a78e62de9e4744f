"""Why a run failed: the reason itself, and not lost by what other processes say."""

import json

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from tff.cli.run_folder import FAILED, write_failure
from tff.comparisons.sweep import read_job
from tff.errors import readable_errors

GONE = "[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1. GLHF!"


def told(folder):
    return json.loads((folder / FAILED).read_text())


def test_the_reason_within_a_call_is_what_a_sweep_shows(tmp_path):
    with pytest.raises(InstantiationException) as caught:
        instantiate({"_target_": "tff.data.folder.Folder", "root": "/x", "on_corrupt": "nonsense"})
    write_failure(tmp_path, caught.value)
    assert told(tmp_path)["type"] == "ValueError"
    found = read_job(tmp_path)
    assert found["error"] == f"ValueError: {caught.value.__cause__}"
    assert "nonsense" in found["error"]


@pytest.mark.parametrize("text", [GONE, "exited with code 1; see its log"])
def test_what_tells_no_reason_replaces_none(tmp_path, text, capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    first = ValueError("a.png: damaged image")
    write_failure(tmp_path, first)
    error = RuntimeError(text)
    write_failure(tmp_path, error)
    assert told(tmp_path) == {"type": "ValueError", "error": str(first)}
    if text == GONE:  # the other reason is what the user is told
        with pytest.raises(SystemExit), readable_errors():
            raise error
        said = capsys.readouterr().err
        assert said.startswith("Error: another process failed: ValueError: a.png: damaged image\n")


def test_what_tells_no_reason_is_better_than_nothing(tmp_path):
    write_failure(tmp_path, RuntimeError(GONE))
    assert told(tmp_path) == {"type": "RuntimeError", "error": GONE}
    write_failure(tmp_path, ValueError("the reason comes later"))
    assert told(tmp_path)["error"] == "the reason comes later"
    (tmp_path / FAILED).write_text("damaged")
    write_failure(tmp_path, RuntimeError(GONE))  # and that does no harm


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    write_failure(tmp_path / "file", ValueError("the error itself matters more"))
