"""A network that is away, half there or lost on the way costs a run seconds, and nothing else.

Everything is done by a process of its own, since `wandb` reads its environment once.
"""

import gzip
import json
import os
import pty
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.helpers.wandb_file import kept_in

pytest.importorskip("wandb")
pytestmark = pytest.mark.slow
KEY = "f" * 40
JOB = """
import sys, time
from tff.training.wandb_logger import finish_loggers, WeightsAndBiases

mine = WeightsAndBiases("tff", sys.argv[1], [], None, init_timeout=5, finish_timeout=5)
for step in range(3):
    mine.log_metrics({"val/ap": step / 2}, step)
if len(sys.argv) > 2:
    import urllib.request
    urllib.request.urlopen(sys.argv[2] + "/now-be-silent")
finish_loggers([mine])
print("ended")
"""


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "NETRC"))}
    return {**kept, "OMP_WAIT_POLICY": "PASSIVE", **more}


def job(out, *arguments, **more):
    """Run the job; what it wrote to both streams, and the seconds it took."""
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", JOB, str(out), *arguments], env=environment(HOME=str(out), **more),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "ended" in run.stdout
    return run.stdout, time.monotonic() - start


class Server(BaseHTTPRequestHandler):
    """As much of the service as a run needs to begin; its manner is what the test is about."""

    manner = "kind"

    def log_message(self, *_):
        pass

    def _answer(self, code, content=None):
        body = json.dumps(content or {}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        command = self.path == "/now-be-silent"
        self._answer(200 if command else 404)
        if command:
            type(self).manner = "silent"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.manner == "silent":
            self.server.over.wait(300)
        elif self.manner == "refusing":
            self._answer(401)
        else:
            packed = self.headers.get("Content-Encoding") == "gzip"
            self._answer(200, _answer(gzip.decompress(body) if packed else body))


def _answer(body):
    if b"upsertBucket" in body:
        name = json.loads(body)["variables"]["name"]
        project = {"id": "UA==", "name": "tff", "entity": {"id": "RQ==", "name": "us"}}
        run = {"id": "Ug==", "name": name, "displayName": name, "config": "{}", "project": project}
        return {"data": {"upsertBucket": {"bucket": run, "inserted": True}}}
    return {"data": {"viewer": {"id": "Vg==", "entity": "us", "username": "us", "flags": "{}"}}}


@pytest.fixture
def server():
    """Makes a server of a manner; its address."""
    servers = []

    def start(manner):
        handler = type("Handler", (Server,), {"manner": manner})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads, server.over = True, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def deaf():
    """Address of a socket that takes connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def values(out):
    (kept,) = kept_in(out)
    return [row["val/ap"] for row in kept.history]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Seconds of the job with nobody to wait for."""
    out = tmp_path_factory.mktemp("usual")
    text, seconds = job(out)
    assert "offline" not in text  # without an account there is nothing to be warned of
    assert values(out) == [0, 0.5, 1]
    return seconds


def test_nobody_there(tmp_path, usual):
    url = "http://127.0.0.1:9"
    text, seconds = job(tmp_path, WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
    assert f"{url} does not answer; the run is kept offline" in text
    assert seconds < usual + 60
    assert values(tmp_path) == [0, 0.5, 1]


def test_somebody_there_who_never_answers(tmp_path, usual, deaf):
    text, seconds = job(tmp_path, WANDB_BASE_URL=deaf, WANDB_API_KEY=KEY)
    assert f"{deaf} does not answer; the run is kept offline" in text
    assert seconds < usual + 60
    assert values(tmp_path) == [0, 0.5, 1]


@pytest.mark.parametrize("manner", ["silent", "refusing"])
def test_a_server_that_lets_no_run_begin(tmp_path, usual, server, manner):
    text, seconds = job(tmp_path, WANDB_BASE_URL=server(manner), WANDB_API_KEY=KEY)
    assert "The run is kept offline." in text
    assert seconds < usual + 60
    assert values(tmp_path) == [0, 0.5, 1]


def test_a_server_that_falls_silent_does_not_hold_up_the_end(tmp_path, usual, server):
    url = server("kind")
    text, seconds = job(tmp_path, url, WANDB_BASE_URL=url, WANDB_API_KEY=KEY)
    assert "not all was sent in time; later: wandb sync" in text
    assert seconds < usual + 60
    assert json.loads((tmp_path / "wandb-run.json").read_text())["entity"] == "us"  # was online
    assert list(tmp_path.glob("wandb/run-*/run-*.wandb"))  # what can be sent later


@pytest.mark.parametrize("more", [{"WANDB_MODE": "online"}, {}])
def test_no_prompt_in_a_terminal(tmp_path, more):
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", JOB, str(tmp_path)], env=environment(HOME=str(tmp_path), **more),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        text = b""
        try:
            while part := os.read(master, 4096):
                text += part
        except OSError:  # Linux says so when the other side is closed
            pass
        assert process.wait(60) == 0, text.decode()
    os.close(master)
    assert b"ended" in text
    assert (b"offline" in text) == bool(more)  # told only if something else was said
    assert values(tmp_path) == [0, 0.5, 1]


@pytest.mark.parametrize("address", ["3-1-unix-/nowhere/socket", "3-1-tcp-localhost-9", "nonsense"])
def test_the_service_of_a_process_that_has_ended_is_left_alone(tmp_path, address):
    text, _ = job(tmp_path, WANDB_SERVICE=address)
    assert "The run is kept offline" in text
    assert values(tmp_path) == [0, 0.5, 1]


def test_other_processes_leave_no_trace(tmp_path):
    job(tmp_path, LOCAL_RANK="1")
    assert not list(tmp_path.glob("wandb*"))  # other libraries keep caches at home
