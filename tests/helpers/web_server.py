"""A web server that can go wrong, and that answers as the Hugging Face hub does."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class WebServer(ThreadingHTTPServer):
    """Serves `files`; each GET of one takes the first of `plan`, which says what goes wrong.

    `repos` maps OWNER/NAME to a commit, files and whether access is gated.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        self.reset()

    def reset(self):
        self.files, self.plan, self.repos, self.tag = {}, [], {}, '"1"'
        self.ranges, self.tags, self.tokens, self.asked = [], [], [], []

    def url(self, name=""):
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def add_repo(self, name, files, commit="c" * 40, gated=False):
        self.repos[name] = {"files": files, "commit": commit, "gated": gated}
        for path, content in files.items():
            self.files[f"datasets/{name}/resolve/{commit}/{path}"] = content


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path.strip("/"))
        self.server.asked.append(f"{self.command} {path}")
        self.server.tokens.append(self.headers.get("Authorization"))
        if path.startswith("api/datasets/"):
            return self._answer_api(*path.split("/", 5)[2:])
        content = self.server.files.get(path)
        if content is None:
            return self._send(404)
        if self.command == "HEAD":
            wrong = self.server.plan[0] if self.server.plan else {}
            if wrong.get("slow_headers"):
                return self._drip(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 1000)
            if "length" in wrong:
                return self._send(200, {"Content-Length": wrong["length"]}, close=True)
            if wrong.get("no_length"):
                return self._send(200, close=True)
            return self._send(200, {"ETag": wrong.get("tag", self.server.tag)}, content)
        self.server.ranges.append(self.headers.get("Range"))
        self.server.tags.append(self.headers.get("If-Range"))
        return self._send_file(content, self.server.plan.pop(0) if self.server.plan else {})

    def _answer_api(self, owner, name, what="", revision=""):
        repo = self.server.repos.get(f"{owner}/{name}")
        if repo is None:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if what == "auth-check":
            if self.headers.get("Authorization") == "Bearer good":
                return self._send(200, body=b"{}")
            return self._send(403, {"X-Error-Code": "GatedRepo"})
        if revision not in ("main", repo["commit"]):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        siblings = [
            {"rfilename": path, "size": len(content), "blobId": "b",
             "lfs": {"size": len(content), "pointerSize": 9,
                     "sha256": hashlib.sha256(content).hexdigest()}}
            for path, content in repo["files"].items()
        ]  # fmt: skip
        info = {"id": f"{owner}/{name}", "sha": repo["commit"], "siblings": siblings,
                "gated": "manual" if repo["gated"] else False}  # fmt: skip
        return self._send(200, body=json.dumps(info).encode())

    def _send_file(self, content, wrong):
        if "status" in wrong:
            return self._send(wrong["status"])
        if "drip" in wrong:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
            return self._drip(content[wrong["drip"] :], head + content[: wrong["drip"]])
        if "endless" in wrong:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with suppress(ConnectionError):
                while True:
                    self.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        if "redirect" in wrong:
            return self._send(302, {"Location": wrong["redirect"]})
        content, tag = wrong.get("content", content), wrong.get("tag", self.server.tag)
        wish, first = self.headers.get("Range"), 0
        if wish and not wrong.get("no_range") and self.headers.get("If-Range", tag) == tag:
            first = int(wish.removeprefix("bytes=").removesuffix("-"))
        if first and first >= len(content):
            return self._send(416)
        body = content[first:]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: wrong.get("cut", len(body))]
        step = 4096 if "pause" in wrong else max(1, len(body))
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
                time.sleep(wrong.get("pause", 0))
        except ConnectionError:
            pass
        self.close_connection = True

    def _drip(self, content, before=b""):
        """A byte now and then, for ever."""
        self.close_connection = True
        with suppress(ConnectionError):
            self.wfile.write(before)
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)

    def _send(self, status, headers=None, body=b"", close=False):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if close:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass
