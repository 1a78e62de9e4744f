"""One web server for all tests of downloads."""

from __future__ import annotations

import time
from collections import namedtuple
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session, constants, file_download
from tests.helpers.web_server import WebServer

from tff.data.download import extract


@pytest.fixture(scope="session")
def web_server():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        close_session()  # it may have been opened with a proxy
        with WebServer() as server:
            yield server
            server.shutdown()


@pytest.fixture
def server(web_server, monkeypatch):
    """The server, empty; requests are retried without waiting, and a kilobyte is a block."""
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    impatient = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr(file_download, "time", impatient)
    web_server.reset()
    return web_server


@pytest.fixture
def disk(monkeypatch):
    """Set how many bytes are free on the disk."""

    def set_free(free):
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(extract.shutil, "disk_usage", lambda folder: usage(free))

    set_free(10**12)
    return set_free
