"""Output never decides over a result, and names are read as UTF-8 in any locale."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tff import startup

NAME = "照片 \u2022 é"
#: Prints a name and what the process sees, then leaves a file.
SCRIPT = """
import sys
from pathlib import Path
from tff.startup import prepare_process, write_now
prepare_process()
write_now(b"now\\n")
for stream in (sys.stdout, sys.stderr):
    for _ in range(3):
        print(sys.argv[1], "\\udcff", file=stream, flush=True)
names = [path.name for path in Path(sys.argv[2]).iterdir()]
Path(sys.argv[2], "done").write_text(f"{sys.argv[1]} {names}")
"""
LOCALES = [
    {},
    {"PYTHONUNBUFFERED": "1"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
]


def run(folder, shell="", **environ):
    """Run the script in a shell, with what stands behind it there; (exit code, output, file)."""
    (folder / NAME).touch()
    command = [sys.executable, "-c", SCRIPT, NAME, str(folder)]
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command],
        capture_output=True, env={**os.environ, **environ}, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    left = folder / "done"
    return done.returncode, done, left.read_text(encoding="utf-8") if left.exists() else ""


@pytest.mark.parametrize("environ", LOCALES)
def test_any_encoding(tmp_path, environ):
    code, done, left = run(tmp_path, **environ)
    assert code == 0, done.stderr
    assert left == f"{NAME} {[NAME]}"  # argument and file name are right, whatever can be shown
    encoding = environ.get("PYTHONIOENCODING") or ("ascii" if "LC_ALL" in environ else "utf-8")
    shown = f"{NAME} \udcff".encode(encoding, "backslashreplace")
    assert done.stdout.splitlines() == 3 * [shown]
    assert done.stderr.splitlines() == [b"now", *(3 * [shown])]


@pytest.mark.parametrize(
    "shell",
    ["> /dev/full", "2> /dev/full", ">&-", "2>&-", ">&- 2>&- <&-", "< /dev/null | true",
     "2>&1 | head -1"],
)  # fmt: skip
def test_output_that_goes_nowhere(tmp_path, shell):
    code, done, left = run(tmp_path, shell)
    assert code == 0, done.stderr
    assert left == f"{NAME} {[NAME]}"
    assert b"Traceback" not in done.stdout + done.stderr


def test_without_a_guard_output_ends_a_process(tmp_path):
    """The cases above can fail."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c 'print(1)' > /dev/full"], capture_output=True
    )
    assert done.returncode != 0


def test_streams_of_a_notebook_or_test_stay(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    startup.guard_output()
    assert sys.stdout is stream


def test_a_terminal_that_takes_nothing_at_the_moment(monkeypatch):
    monkeypatch.setattr(startup, "PATIENCE", 0.1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with startup._Lossy(writer, "w") as file:
        written = file.write(bytes(10**6))  # as much as the pipe takes
        assert 0 < written < 10**6
        assert file.write(bytes(10**6)) == 10**6  # lost
    os.close(reader)


def test_an_error_in_a_signal_handler_is_ignored(monkeypatch):
    def fail(*_):
        raise OSError(errno.EPIPE, "gone")

    monkeypatch.setattr(os, "write", fail)
    startup.write_now(b"x")


def test_a_user_without_a_name_has_one(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    startup._name_user()
    import getpass

    assert getpass.getuser() == f"user-{os.getuid()}"
    assert Path.home() == Path("/")
