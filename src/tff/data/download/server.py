"""One question to a web server: give me this file from that byte on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from ssl import SSLCertVerificationError
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

TIMEOUT = 60.0  # seconds without a byte after which a connection counts as broken
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RefusedError(ValueError):
    """What the server says or sends cannot be the file; asking again would not help."""


class BrokenError(ConnectionError):
    """The connection broke, or the server is busy; asking again may help.

    Attributes:
        after: seconds that the server asks for before the next question.
        anew: whether what was received so far has to be thrown away.
    """

    def __init__(self, message: str, after: float = 0.0, anew: bool = False) -> None:
        super().__init__(message)
        self.after, self.anew = after, anew


class Remote(NamedTuple):
    """What a server says of a file.

    Attributes:
        size: in bytes; None: unsaid.
        sha256: in lower-case hex, where the host tells it, as Hugging Face does of large files in
            `X-Linked-ETag`; else None.
        tag: changes when the file does: its ETag or time of change; "" if neither is told.
    """

    size: int | None
    sha256: str | None
    tag: str


@dataclass(frozen=True)
class Answer:
    """The body that follows, and which part of the file it is.

    Attributes:
        first: position in the file of the body's first byte; 0 where the server ignored the wish.
        delimited: whether the end of the body can be told from a broken connection.
    """

    response: HTTPResponse
    first: int
    remote: Remote
    delimited: bool


@contextmanager
def ask(url: str, first: int = 0, tag: str = "") -> Iterator[Answer]:
    """Ask for a file from byte `first` on, but for all of it if it no longer has this tag.

    Raises:
        RefusedError: the file is not to be had.
        BrokenError: no answer, for now.
    """
    headers = {"User-Agent": "tff", "Accept-Encoding": "identity"}
    if first:
        headers["Range"] = f"bytes={first}-"
        if tag and not tag.startswith("W/"):  # a weak tag would always give the whole file
            headers["If-Range"] = tag
    redirects = _Redirects()
    try:
        request = Request(url, headers=headers)
        response = build_opener(redirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            raise _told(url, error) from None
    except URLError as error:
        if isinstance(error.reason, SSLCertVerificationError):
            raise RefusedError(f"{url}: its certificate is not valid ({error.reason})") from None
        raise BrokenError(f"no connection ({error.reason})") from None
    except (OSError, HTTPException) as error:
        raise BrokenError(f"no answer ({error!r})") from None
    with response:
        yield _answer(url, response, first, redirects.headers)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to safe places, and keeps the headers of the pages that redirect."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        safe = ("https",) if urlsplit(req.full_url).scheme == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in safe:
            raise RefusedError(f"{req.full_url}: leads to {newurl}, which is not secured")
        self.headers |= {key.lower(): value for key, value in headers.items()}
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _answer(url: str, response: HTTPResponse, wanted: int, redirects: dict[str, str]) -> Answer:
    head = response.headers
    if head.get("Content-Encoding", "identity") != "identity":
        raise RefusedError(f"{url}: the server compresses what it sends, though asked not to")
    length = head.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    first = 0
    if response.status == 206:
        match = _RANGE.fullmatch(head.get("Content-Range", ""))
        if match is None or int(match[1]) != wanted:
            raise BrokenError("it sends another part of the file than was asked for", anew=True)
        first, size = wanted, None if match[3] == "*" else int(match[3])
    elif response.status != 200:
        raise RefusedError(f"{url}: the server says {response.status} {response.reason}")
    linked = redirects | {key.lower(): value for key, value in head.items()}
    told = _SHA256.fullmatch(linked.get("x-linked-etag", ""))
    announced = linked.get("x-linked-size", "")
    if announced.isdecimal() and size not in (None, int(announced)):
        raise RefusedError(f"{url}: {size} bytes are offered, {announced} were announced")
    size = int(announced) if announced.isdecimal() else size
    tag = head.get("ETag") or head.get("Last-Modified") or ""
    remote = Remote(size, told[1] if told else None, tag)
    return Answer(response, first, remote, bool(length) or bool(response.chunked))


def _told(url: str, error: HTTPError) -> Exception:
    said = f"the server says {error.code} {error.reason}"
    if error.code == 416:
        return BrokenError(f"{said}: the file is shorter than it was", anew=True)
    if error.code in (408, 425, 429) or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return BrokenError(said, after=float(after) if after.isdecimal() else 0.0)
    hint = {
        401: "it asks for an account",
        403: "it asks for an account or consent; look at the page of the set",
        404: "the file has been moved; look at the page of the set",
        410: "the file is gone; look at the page of the set",
    }.get(error.code, "it cannot be downloaded from there")
    return RefusedError(f"{url}: {said}: {hint}")
