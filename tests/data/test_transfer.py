"""One file over HTTP, from a server that misbehaves in every way we could think of."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from types import SimpleNamespace

import pytest
from huggingface_hub import get_session

from tff.data.download import transfer
from tff.data.download.transfer import RemoteFile, _require_secure_redirects, download

BYTES = bytes(range(256)) * 400
SHA = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def get(server, tmp_path):
    """Download a.bin."""
    server.files["a.bin"] = BYTES

    def get(size=None, sha256=None, name="a.bin", headers=None):
        file = RemoteFile("a.bin", server.url(name), len(BYTES), size, sha256, headers or {})
        return download(file, tmp_path / "a.bin")

    return get


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file(server, get, tmp_path):
    assert get() == SHA
    assert (tmp_path / "a.bin").read_bytes() == BYTES
    assert server.asked == ["HEAD a.bin", "GET a.bin"]
    assert get(len(BYTES), SHA) == SHA
    assert server.asked[2:] == ["GET a.bin"]  # nothing more to ask for


def test_an_empty_file(server, get, tmp_path):
    server.files["a.bin"] = b""
    assert get() == hashlib.sha256(b"").hexdigest()
    assert (tmp_path / "a.bin").read_bytes() == b""


def test_broken_connections_are_resumed(server, get, tmp_path):
    server.plan = [{"cut": 10_000}, {"cut": 20_000}, {"cut": 0}, {}]
    assert get() == SHA
    assert server.ranges == [None, "bytes=10000-", "bytes=30000-", "bytes=30000-"]
    assert (tmp_path / "a.bin").read_bytes() == BYTES


@pytest.mark.parametrize("sha256", [None, SHA])
def test_received_bytes_stay_for_the_next_run(server, get, tmp_path, sha256):
    server.plan = [{"cut": 10_000}, *[{"cut": 0}] * 6]
    with pytest.raises(ValueError, match=r"connection broke.*10\.0 kB are kept: run the same"):
        get(sha256=sha256)
    assert (tmp_path / "a.bin.part").read_bytes() == BYTES[:10_000]
    assert get(sha256=sha256) == SHA
    assert server.ranges[-1] == "bytes=10000-"
    assert server.tags[-1] == (None if sha256 else '"1"')
    assert names(tmp_path) == ["a.bin", "a.bin.part.json"]
    assert (tmp_path / "a.bin").read_bytes() == BYTES


def interrupt(server, get, **options):
    server.plan = [{"cut": 10_000}, {"status": 503}]
    with pytest.raises(ValueError, match=r"answers 503 .*later to resume"):
        get(**options)


@pytest.mark.parametrize("wrong", [{"no_range": 1}, {"tag": '"2"'}])
def test_a_server_that_ignores_the_range_or_has_another_file(server, get, tmp_path, wrong):
    interrupt(server, get)
    other = bytes(reversed(BYTES)) if "tag" in wrong else BYTES
    server.plan = [{**wrong, "content": other}]
    get()
    assert (tmp_path / "a.bin").read_bytes() == other


def test_a_file_that_changes_between_two_requests(server, get, tmp_path):
    other = bytes(reversed(BYTES))
    server.plan = [{"cut": 10_000}, {"tag": '"2"', "content": other}]
    interrupt(server, get)
    server.plan = [{"cut": 10_000}, {"tag": '"2"', "content": other}]
    get()
    assert (tmp_path / "a.bin").read_bytes() == other


def test_a_file_that_became_shorter(server, get, tmp_path):
    interrupt(server, get)
    server.files["a.bin"] = BYTES[:5000]
    get()
    assert (tmp_path / "a.bin").read_bytes() == BYTES[:5000]


def test_no_version_no_resumption(server, get, tmp_path):
    server.tag = ""
    interrupt(server, get)
    assert get() == SHA
    assert server.ranges[-1] is None


def test_no_server(server, tmp_path):
    file = RemoteFile("a", "http://127.0.0.1:9/a", 1, 1, SHA)
    with pytest.raises(ValueError, match=r"connection broke .* 0 bytes are kept"):
        download(file, tmp_path / "a")


def test_another_length_than_published(get, tmp_path):
    with pytest.raises(ValueError, match=r"offers 102400 bytes, 5 are published"):
        get(5)
    assert names(tmp_path) == []


def test_wrong_bytes(server, get, tmp_path):
    server.plan = [{"content": BYTES[:-1] + b"x"}]
    with pytest.raises(ValueError, match=rf"SHA-256 is \w+, published is {SHA}"):
        get(len(BYTES), SHA)
    assert names(tmp_path) == []
    assert get(len(BYTES), SHA) == SHA


def test_no_length(server, get, tmp_path):
    server.plan = [{"no_length": 1}]
    with pytest.raises(ValueError, match="does not say how long the file is"):
        get()
    assert get(len(BYTES)) == SHA


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_refusals_are_final(server, get, tmp_path, status):
    server.plan = [{"status": status}]
    with pytest.raises(ValueError, match=f"the server answers {status}"):
        get()
    assert names(tmp_path) == []


def test_no_other_host_sees_the_authorization(server, get):
    server.files["b.bin"] = BYTES
    other = server.url("b.bin").replace("127.0.0.1", "localhost")
    server.plan = [{"redirect": other}]
    assert get(len(BYTES), SHA, headers={"authorization": "Bearer secret"}) == SHA
    assert server.tokens == ["Bearer secret", None]


def test_an_unsafe_redirect():
    url = SimpleNamespace(scheme="http")
    with _require_secure_redirects("https://x/a"):
        check = get_session().event_hooks["request"][-1]
        check(SimpleNamespace(url=SimpleNamespace(scheme="https")))
        with pytest.raises(ValueError, match=r"https://x/a: redirects to .*, which is not secure"):
            check(SimpleNamespace(url=url))
    assert check not in get_session().event_hooks["request"]


def test_redirects_to_nowhere(server, get):
    for target in ("file:///etc/passwd", server.url("a.bin"), "//", "ftp://x/y"):
        server.plan = [{"redirect": target}] * 30
        with pytest.raises(ValueError, match=r"a\.bin: .*"):
            get(len(BYTES), SHA)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", 0.5)


def test_a_server_of_a_byte_now_and_then(server, get, tmp_path, impatient):
    server.plan = [{"drip": 70_000}]
    with pytest.raises(ValueError, match=r"too slow .*\. [67]\d\.\d kB are kept: run"):
        get()
    received = (tmp_path / "a.bin.part").stat().st_size
    assert get() == SHA
    assert server.ranges[-1] == f"bytes={received}-"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_server_whose_headers_come_slowly(server, get, impatient):
    server.plan = [{"slow_headers": True}]
    with pytest.raises(ValueError, match=r"the server is too slow .* 0 bytes are kept"):
        get()


def test_a_server_that_never_stops(server, get, tmp_path):
    server.plan = [{"endless": True}]
    with pytest.raises(ValueError, match=r"the server sends more than 102400 bytes"):
        get(len(BYTES), SHA)
    assert names(tmp_path) == []


def test_a_length_of_many_digits(server, get):
    server.plan = [{"length": "9" * 5000}]
    with pytest.raises(ValueError, match=r"a\.bin: .*bad Content-Length"):
        get()


@pytest.mark.parametrize("name", ["a.bin.part", "a.bin.part.json"])
def test_a_pipe_in_place_of_what_was_received(server, get, tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert get() == SHA
    (tmp_path / "a.bin.part.json").write_text(
        json.dumps({"url": server.url("a.bin"), "version": SHA})
    )
    os.mkfifo(tmp_path / "a.bin.part")
    with pytest.raises(ValueError, match=r"a\.bin\.part: is a pipe, not a file"):
        get(len(BYTES), SHA)


@pytest.mark.parametrize("note", ["", "{}", "[]", '{"url": "other", "version": "1"}', None])
def test_bytes_of_unknown_origin_are_discarded(server, get, tmp_path, note):
    (tmp_path / "a.bin.part").write_bytes(b"nonsense")
    if note is not None:
        (tmp_path / "a.bin.part.json").write_text(note)
    assert get() == SHA
    assert server.ranges == [None]


def test_bytes_from_another_address_are_discarded(server, get, tmp_path):
    interrupt(server, get)
    assert json.loads((tmp_path / "a.bin.part.json").read_text())["url"] == server.url("a.bin")
    server.files["b.bin"] = bytes(reversed(BYTES))
    get(name="b.bin")
    assert (tmp_path / "a.bin").read_bytes() == server.files["b.bin"]


def test_a_full_disk(get, disk, tmp_path, monkeypatch):
    disk(50_000)
    with pytest.raises(ValueError, match=r"the rest of a\.bin needs 0\.00 GB, but only 0\.00 GB"):
        get()
    disk(10**9)
    (tmp_path / "a.bin.part").mkdir()
    with pytest.raises(ValueError, match=r"a\.bin\.part: cannot be written \(Is a directory\)"):
        get(len(BYTES), SHA)
