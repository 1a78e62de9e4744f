"""One file over HTTP: resumed after an interruption, verified, complete or absent.

`NAME.part` holds the bytes received so far, `NAME.part.json` the address and version of the file
that they belong to. The note is written first and removed last, so that the process may be killed
at any moment. Requests, retries and ranges are those of `huggingface_hub`.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from huggingface_hub import constants, errors, get_session
from huggingface_hub.file_download import http_get
from huggingface_hub.utils.tqdm import tqdm
from rich.filesize import decimal

from tff.atomic import write_json
from tff.data.download.extract import require_space
from tff.data.download.progress import track_bytes
from tff.foreign_files import open_regular, read_json

#: Base of all errors of connections; `huggingface_hub` imports it from its HTTP library.
HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
TIMEOUT = 60.0  # seconds to wait for an answer
LOWEST_RATE = 1000  # bytes a second, over the same time
_BLOCK = 1 << 20
# Otherwise `http_get` collects 10 MB before it hands any of them on.
constants.DOWNLOAD_CHUNK_SIZE = 1 << 14


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes:
        name: relative path of the file.
        url: its address.
        size: approximate size in bytes.
        bytes: exact size, if known.
        sha256: checksum in lower-case hex, if known.
        headers: of the requests, such as an authorization.
    """

    name: str
    url: str
    size: int
    bytes: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class SlowError(Exception):
    """A server sends next to nothing."""


@contextmanager
def bound_waits() -> Iterator[Callable[[int], None]]:
    """Interrupt requests whose answers come too slowly; yields a function that counts their bytes.

    The limits of `huggingface_hub` are for each read, so that a byte now and then would do. This
    one works in the main thread, where signals arrive, and does nothing in others.

    Raises:
        SlowError: fewer than `LOWEST_RATE` bytes a second were counted over `TIMEOUT` seconds.
    """
    received = 0

    def count(number: int) -> None:
        nonlocal received
        received += number

    def check(*_: object) -> None:
        nonlocal received
        if received < LOWEST_RATE * TIMEOUT:
            raise SlowError(f"less than {LOWEST_RATE:,} bytes a second for {TIMEOUT:.0f} seconds")
        received = 0

    if threading.current_thread() is not threading.main_thread():
        yield count
        return
    former = signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT, TIMEOUT)
    try:
        yield count
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


class RefusedError(ValueError):
    """The server does not give the file, or gives another one than published."""


def part_of(target: Path) -> Path:
    """File with the bytes received so far."""
    return target.with_name(target.name + ".part")


def note_of(target: Path) -> Path:
    """File that says where these bytes come from."""
    return target.with_name(target.name + ".part.json")


def download(file: RemoteFile, target: Path) -> str:
    """Download a file, resuming an earlier attempt, and verify it.

    Args:
        file: what to download.
        target: path of the complete file; its folder exists.

    Returns:
        SHA-256 of the file.

    Raises:
        ValueError: the server refuses, or gives another file than published (the bytes received
            are then removed), or the connection keeps breaking (they then stay).
    """
    part = part_of(target)
    try:
        with _explain_errors(file, part), _require_secure_redirects(file.url):
            size, version = file.bytes, file.sha256
            if size is None or version is None:
                size, version = _request_size_and_version(file)
            note = {"url": file.url, "version": version}
            if not version or _read_note(target) != note or _size(part) > size:
                _discard(target)
                write_json(note_of(target), note)
            have = _size(part)
            require_space(part.parent, size - have, f"the rest of {file.name}")
            headers = {"Accept-Encoding": "identity", **file.headers}
            if have and not file.sha256 and version and not version.startswith("W/"):
                headers["If-Range"] = version  # a file that changes now is sent from its beginning
            if have < size:
                with (
                    open_regular(part, "ab") as stream,
                    track_bytes(file.name, size, have) as advance,
                    bound_waits() as count,
                ):
                    bounded: Any = _Bounded(stream, size, file.url)
                    http_get(
                        file.url, bounded, resume_size=have, headers=headers, expected_size=size,
                        tqdm_class=_make_bar(advance, count),
                    )  # fmt: skip
        part.touch()  # an empty file has no bytes to receive
        sha256 = verify(part, file)
    except RefusedError:
        _discard(target)
        raise
    with open(part, "rb+") as complete:
        os.fsync(complete.fileno())
    part.replace(target)
    return sha256


def verify(path: Path, file: RemoteFile) -> str:
    """SHA-256 of a complete file.

    Raises:
        RefusedError: size or checksum differ from the published ones.
    """
    size = _size(path)
    if file.bytes not in (None, size):
        raise RefusedError(f"{file.url}: received {size} bytes, {file.bytes} are published")
    digest = hashlib.sha256()
    with open_regular(path) as stream, track_bytes(f"verify {file.name}", size) as advance:
        while block := stream.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    sha256 = digest.hexdigest()
    if file.sha256 not in (None, sha256):
        raise RefusedError(
            f"{file.url}: the file received is not the published one: its SHA-256 is {sha256}, "
            f"published is {file.sha256}. Run the same command again; if that does not help, the "
            "file on the server is damaged or has been replaced"
        )
    return sha256


def _request_size_and_version(file: RemoteFile) -> tuple[int, str]:
    """Size in bytes, and a text that changes when the file does; "" if the server gives none."""
    headers = {"Accept-Encoding": "identity", **file.headers}
    with bound_waits():
        answer = get_session().head(file.url, headers=headers, timeout=TIMEOUT)
    answer.raise_for_status()
    length = answer.headers.get("Content-Length", "")
    size = int(length) if re.fullmatch("[0-9]{1,18}", length) else file.bytes
    if size is None:
        raise RefusedError(
            f"{file.url}: the server does not say how long the file is, so a broken connection "
            "could not be distinguished from its end; declare its size (bytes)"
        )
    if file.bytes not in (None, size):
        raise RefusedError(
            f"{file.url}: the server offers {size} bytes, {file.bytes} are published; the file has "
            "been replaced, or this is another one"
        )
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return size, file.sha256 or tag


@contextmanager
def _require_secure_redirects(url: str) -> Iterator[None]:
    """Refuse to follow a redirection from a secure address to another one."""

    def check(request: Any) -> None:
        if url.startswith("https:") and request.url.scheme != "https":
            raise RefusedError(f"{url}: redirects to {request.url}, which is not secure")

    client = get_session()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "request": [*hooks["request"], check]}
    try:
        yield
    finally:
        client.event_hooks = hooks


class _Bounded:
    """A file that takes no more bytes than expected, however many a server sends."""

    def __init__(self, file: IO[bytes], size: int, url: str) -> None:
        self._file, self._size, self._url = file, size, url

    def write(self, data: bytes) -> int:
        if self._file.tell() + len(data) > self._size:
            raise RefusedError(f"{self._url}: the server sends more than {self._size} bytes")
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _explain_errors(file: RemoteFile, part: Path) -> Iterator[None]:
    resume = "run the same command again to resume"
    try:
        yield
    except SlowError as error:
        raise ValueError(
            f"{file.url}: the server is too slow ({error}). {decimal(_size(part))} are kept: "
            f"{resume} when it is faster, or name a mirror"
        ) from None
    except HTTPError as error:
        if (response := getattr(error, "response", None)) is not None:
            raise _explain_status(file.url, response.status_code, response.reason_phrase) from None
        raise ValueError(
            f"{file.url}: the connection broke ({error or type(error).__name__}). "
            f"{decimal(_size(part))} are kept: {resume}"
        ) from None
    except OSError as error:
        if error.errno is None:  # huggingface_hub counts the bytes
            raise RefusedError(f"{file.url}: the server sends another number of bytes") from error
        raise ValueError(
            f"{part}: cannot be written ({os.strerror(error.errno)}). The bytes "
            f"received are kept: fix the problem and {resume}"
        ) from None


def _explain_status(url: str, status: int, reason: str) -> ValueError:
    answer = f"{url}: the server answers {status} {reason}"
    if status in (408, 425, 429) or status >= 500:
        return ValueError(f"{answer}; run the same command again later to resume")
    hint = {
        401: "an account is needed; see the page of the set",
        403: "an account or consent is needed; see the page of the set",
        404: "the file has been moved; see the page of the set",
        410: "the file has been removed; see the page of the set",
    }.get(status, "it cannot be downloaded from there")
    return RefusedError(f"{answer}: {hint}")


def _make_bar(*advance: Callable[[int], None]) -> type[tqdm]:
    """A silent bar for `http_get` that reports progress to functions."""

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            for function in advance:
                function(int(n or 0))

    return Bar


def _read_note(target: Path) -> Any:
    try:
        return read_json(note_of(target))
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(target: Path) -> None:
    part_of(target).unlink(missing_ok=True)  # first: no bytes may remain without their note
    note_of(target).unlink(missing_ok=True)
