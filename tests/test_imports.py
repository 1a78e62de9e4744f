"""Importing tff: no network, no output."""

import subprocess
import sys

import pytest

FORBID_NETWORK = """
import os, socket, sys
def refuse(*_args, **_kwargs):
    raise SystemExit("import reaches for the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
os.environ.pop("NO_ALBUMENTATIONS_UPDATE", None)
"""
IMPORT_ALL = """
import importlib, pkgutil, tff
for module in pkgutil.walk_packages(tff.__path__, "tff."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
CHILD = """
import subprocess, tff
child = "import os; print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
assert subprocess.check_output([sys.executable, "-c", child], text=True) == "1\\n"
"""
USER = """
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "0"
import tff
assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "0"
"""


@pytest.mark.parametrize("code", [CHILD, USER, pytest.param(IMPORT_ALL, marks=pytest.mark.slow)])
def test_import_is_offline_silent_and_respects_the_user(code):
    process = subprocess.run(
        [sys.executable, "-c", FORBID_NETWORK + code], capture_output=True, text=True
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
