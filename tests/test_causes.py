"""The error itself, whatever is wrapped around it."""

import traceback

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.multiprocessing.spawn import ProcessRaisedException

from tff.errors import is_lost_connection, readable_errors, root_cause


def of_a_process(error, number=0):
    """As torch passes on what a process has raised."""
    try:
        try:
            raise KeyError("before it")
        except KeyError:
            raise error  # noqa: B904 the traceback tells of both
    except Exception:
        text = traceback.format_exc()
    intro = f"\n\n-- Process {number} terminated with the following error:\n"
    return ProcessRaisedException(intro + text, number, 1234)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("k=0: must be more"),
        FileNotFoundError("a: no such file"),
        RuntimeError("two\nlines: of it\n  and one\n\nmore"),
        ZeroDivisionError(),
        InstantiationException("of another module"),
    ],
)
def test_of_a_process(error):
    found = root_cause(of_a_process(error))
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_classes_that_cannot_be_rebuilt_are_named():
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert str(root_cause(of_a_process(error))) == f"UnicodeDecodeError: {error}"
    unknown = type("Strange", (Exception,), {"__module__": "nowhere.known"})
    assert (
        str(root_cause(of_a_process(unknown("odd: thing")))) == "nowhere.known.Strange: odd: thing"
    )
    strange = ProcessRaisedException("no traceback at all", 0, 1)
    assert root_cause(strange) is strange


def test_of_a_call():
    with pytest.raises(InstantiationException) as caught:
        instantiate({"_target_": "builtins.int", "_args_": ["much"]})
    assert "Error in call to target" in str(caught.value)
    cause = root_cause(caught.value)
    assert type(cause) is ValueError
    assert str(cause) == "invalid literal for int() with base 10: 'much'"
    without = InstantiationException("nothing behind it")
    assert root_cause(without) is without


@pytest.mark.parametrize(
    "text",
    [
        "[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:11416.",
        "[gloo/transport/tcp/pair.cc:446] readv [10.0.0.1]:3: Connection reset by peer",
        "writev [10.0.0.1]:3: Broken pipe",
        "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server crash?",
        "NCCL error: remote process exited or there was a network error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process "
        "exiting prematurely.",
        "NCCL communicator was aborted on rank 0.",
    ],
)
def test_another_process_is_gone(text):
    assert is_lost_connection(RuntimeError(text))
    assert not is_lost_connection(OSError(text))  # such as a download: a reason of its own


def test_other_errors_tell_a_reason():
    assert not is_lost_connection(RuntimeError("CUDA out of memory"))
    assert not is_lost_connection(ValueError("Connection closed"))


def test_one_sentence_for_an_error_of_a_process(capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit), readable_errors():
        raise of_a_process(ValueError("a.png: damaged image"))
    assert capsys.readouterr().err.startswith("Error: a.png: damaged image\n")
    with pytest.raises(SystemExit), readable_errors():
        raise of_a_process(ZeroDivisionError("a fault"))
    assert capsys.readouterr().err.startswith("Error: ZeroDivisionError: a fault. ")


def test_a_lost_process_is_reported_in_one_sentence(capsys, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit), readable_errors():
        raise RuntimeError("[pair.cc:561] Connection closed by peer")
    assert "another process failed, was killed or is out of reach; " in capsys.readouterr().err
