"""Public sets downloaded: resumed, verified, unpacked.

What has come stands in `NAME.part`, what the server said of the file in `NAME.part.json`. The note
is written first and removed last, so that a process may be killed at any moment.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from io import FileIO
from pathlib import Path
from ssl import SSLCertVerificationError
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tff.atomic import lock, write_json
from tff.data.download.extract import MARK, amount, counted, library, require, unpack
from tff.data.download.sources import File, Source, Split

RECORD = ".tff-download.json"
LOCK = ".tff-download.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other processes out until this one ends, however it ends.

    Raises:
        ValueError: another process downloads into it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            ours = stack.enter_context(lock(folder / LOCK))
        except OSError as error:
            raise ValueError(
                f"to={folder}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        if not ours:
            raise ValueError(
                f"to={folder}: another process downloads into this folder; wait for its end, or "
                "choose another folder"
            )
        yield


def recorded(folder: Path) -> dict[str, Any]:
    """What is known of the files: name -> url, bytes, sha256, against, time."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def record(folder: Path, name: str, told: dict[str, Any]) -> None:
    """Add what is known of a file."""
    write_json(folder / RECORD, recorded(folder) | {name: told})


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


class Note(NamedTuple):
    """Where the bytes come from."""

    url: str
    remote: Remote


class Partial:
    """The part of a file that has come.

    Args:
        target: the name of the file once it is complete.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = self.path.with_name(self.path.name + ".json")

    def size(self) -> int:
        """How many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    def note(self) -> Note | None:
        """What the server said; None: nothing is known."""
        try:
            told = json.loads(self._note.read_text())
            return Note(told["url"], Remote(told["size"], told["sha256"], told["tag"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def usable(self, url: str) -> Note | None:
        """The note to go on from; None, and nothing is left, if that is not possible."""
        note = self.note()
        if (
            note is not None
            and note.url == url
            and (note.remote.tag or note.remote.sha256)
            and 0 < self.size() <= (note.remote.size or float("inf"))
        ):
            return note
        self.discard()
        return None

    def discard(self) -> None:
        """Remove all."""
        self.path.unlink(missing_ok=True)  # first, so that no bytes stand there without their note
        self._note.unlink(missing_ok=True)

    def start(self, url: str, remote: Remote) -> None:
        """Begin anew."""
        self.discard()
        write_json(self._note, {"url": url, **remote._asdict()})

    def forget(self) -> None:
        """Remove the note, once what it says is known otherwise."""
        self._note.unlink(missing_ok=True)

    def append(self) -> Appending:
        """The part, open for more bytes."""
        return Appending(self.path, "ab")


class Appending(FileIO):
    """An unbuffered file: what is written is there, even if the process is killed."""

    def put(self, block: bytes, told: Callable[[int], None]) -> None:
        """Write all of a block.

        Raises:
            ValueError: the disk does not take it.
        """
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[self.write(rest) :]
        except OSError as error:
            raise ValueError(
                f"{self.name!s}: cannot be written ({error.strerror}); what has come is kept: mend "
                "that and run the same command again to go on"
            ) from None
        told(len(block))


_BLOCK = 1 << 20


class Checked(NamedTuple):
    """A file that is there completely.

    Attributes:
        bytes: its size.
        sha256: of what is there, in hex.
        against: where the checksum comes from that it was held against: `published` with the set,
            `host`, or `nothing`.
    """

    bytes: int
    sha256: str
    against: str


def verify(part: Path, target: Path, size: int | None, sha256: str | None, url: str) -> Checked:
    """Hold a complete file against what is known of it, and give it its name.

    Args:
        part: the file, which may be `target` itself.
        target: the name that it gets.
        size: published size in bytes, if any.
        sha256: published checksum, if any; else the one that the server named counts.
        url: where it comes from.

    Raises:
        RefusedError: it is another file.
    """
    note = Partial(target).note()
    named = note.remote.sha256 if note is not None else None
    there = part.stat().st_size
    if size not in (None, there):
        raise RefusedError(f"{url}: {there} bytes have come, {size} are published")
    digest = digest_of(part)
    if (sha256 or named) not in (None, digest):
        raise RefusedError(
            f"{url}: what has come is not the file: its SHA-256 is {digest}, "
            f"{'published is' if sha256 else 'the server names'} {sha256 or named}. Run the same "
            "command again; if it happens again, the server or something on the way is broken"
        )
    if part != target:
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    return Checked(there, digest, "published" if sha256 else "host" if named else "nothing")


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    name = path.name.removesuffix(".part")
    with open(path, "rb") as file, counted(f"verify {name}", path.stat().st_size) as advance:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


log = logging.getLogger(__name__)

TRIES = 6  # in a row that bring no further byte
LONGEST = 60.0  # seconds between two of them


def transfer(
    url: str,
    target: Path,
    size: int | None = None,
    sha256: str | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Checked:
    """Download a file, going on where an earlier process was, and verify it.

    Args:
        url: of the file, http or https.
        target: where it shall be; its folder exists.
        size: in bytes, where published.
        sha256: in hex, where published.
        wait: sleeps that many seconds.

    Raises:
        ValueError: the server does not give the file, gives another one than published or
            announced (what has come is then removed), or the connection breaks again and again
            (what has come is then kept).
    """
    partial = Partial(target)
    best, failures = 0, 0
    while True:
        try:
            _receive(url, partial, size, sha256)
            return verify(partial.path, target, size, sha256, url)
        except RefusedError:
            partial.discard()
            raise
        except BrokenError as error:
            if error.anew:
                partial.discard()
            have = partial.size()
            failures = 0 if have > best else failures + 1
            best = max(best, have)
            if failures >= TRIES:
                raise ValueError(
                    f"{url}: {error}; given up after {failures} tries that brought nothing new. "
                    f"{amount(have)} are kept: run the same command again to go on"
                ) from None
            log.info("%s: %s; going on at %s", target.name, error, amount(have))
            wait(min(LONGEST, max(error.after, 2.0 ** max(0, failures - 1))))


def _receive(url: str, partial: Partial, size: int | None, sha256: str | None) -> None:
    """Ask once, and add what comes."""
    note = partial.usable(url)
    have = partial.size()
    if note is not None and have == note.remote.size:
        return
    # A host that tells the checksum gives other tags from one of its machines to the next.
    tag = note.remote.tag if note is not None and note.remote.sha256 is None else ""
    with ask(url, have, tag) as answer:
        remote = answer.remote
        _require_published(url, remote, size, sha256)
        if remote.size is None and not (answer.delimited or size):
            raise RefusedError(
                f"{url}: the server does not say how long the file is, so that a broken connection "
                "could not be told from its end"
            )
        if note is not None and answer.first:
            _require_same(note, remote)
            remote = note.remote
        else:
            partial.start(url, remote)
        total = remote.size if remote.size is not None else size
        if total is not None:
            name = partial.path.stem
            require(partial.path.parent, total - answer.first, f"the rest of {name}")
        _append(url, partial, answer, total)


def _require_published(url: str, remote: Remote, size: int | None, sha256: str | None) -> None:
    if None not in (size, remote.size) and size != remote.size:
        raise RefusedError(
            f"{url}: the server offers {remote.size} bytes, {size} are published; the file has "
            "been replaced, or this is another one"
        )
    if None not in (sha256, remote.sha256) and sha256 != remote.sha256:
        raise RefusedError(
            f"{url}: the server names the SHA-256 {remote.sha256}, published is {sha256}; the file "
            "has been replaced"
        )


def _require_same(note: Note, remote: Remote) -> None:
    same = (remote.sha256 or remote.tag) == (note.remote.sha256 or note.remote.tag)
    if not same or remote.size not in (None, note.remote.size):
        raise BrokenError("the file has changed on the server", anew=True)


def _append(url: str, partial: Partial, answer: Answer, total: int | None) -> None:
    """Write the body behind what there is, up to its end."""
    at, response = answer.first, answer.response
    if response.length is not None:
        response.length += 1  # to notice a server that sends more than it announces
    name = partial.path.stem
    with partial.append() as file, counted(name, total, at) as advance:
        while True:
            try:
                block = response.read1(_BLOCK)
            except TimeoutError:
                if at == total:  # the server leaves the connection open: nothing more will come
                    break
                raise BrokenError("no byte for a long time") from None
            except (OSError, HTTPException, ValueError) as error:
                raise BrokenError(f"the connection broke off ({error!r})") from None
            if not block:
                break
            at += len(block)
            if total is not None and at > total:
                raise RefusedError(
                    f"{url}: the server sends more than the {total} bytes that it announces"
                )
            file.put(block, advance)
    if total is not None and at < total:
        raise BrokenError(f"the connection broke off after {at:,} of {total:,} bytes")


def fetch(
    source: Source, name: str, to: Path, keep_archives: bool = False, mirror: str = ""
) -> Path:
    """Bring a part of a set into `to`, going on where an earlier process was.

    Args:
        source: the set.
        name: of the part, a key of `source.splits`.
        to: the folder; the part becomes a folder in it.
        keep_archives: whether the archives stay once they are unpacked; those that were put there
            by hand always do.
        mirror: a folder on another server that holds the files; "": where the set is published.

    Returns:
        The folder with the images.

    Raises:
        ValueError: it could not be had; the message says why and what to do.
    """
    split = source.splits[name]
    target = to / split.into
    mark = json.dumps({"set": source.name, "split": name})
    with locked(to):
        if _marked(target, mark):
            log.info("%s is there already", target)
        elif split.unpack and target.exists():
            raise ValueError(
                f"{target}: is there already, and this command did not make it; move or remove it"
            )
        else:
            _bring(split, to, target, mark, keep_archives, mirror)
        if split.unpack:
            _tidy(split, to, keep_archives)
    return target


def _bring(split: Split, to: Path, target: Path, mark: str, keep: bool, mirror: str) -> None:
    if "7z" in split.unpack:
        library()  # its lack is better told before hours of downloading than after
    inner = _inner(to, split)
    if split.unpack and inner.exists():
        log.info("%s: the archive in the archive is there already", split.into)
    else:
        where = to if split.unpack else target
        where.mkdir(exist_ok=True)
        _require_space(split, where, keep)
        paths = [_have(file, where, mirror) for file in split.files]
        if not split.unpack:
            (target / MARK).write_text(mark)
            return
        if len(split.unpack) == 1:
            unpack(paths, split.unpack[0], target, split.holds, mark)
            return
        unpack(paths, split.unpack[0], inner)
    if not keep:
        _remove(split, to)  # before the second unpacking, which needs the room
    found = [path for path in inner.rglob("*") if path.is_file()]
    if len(found) != 1:
        raise ValueError(f"{inner}: one archive was expected in the archive, {len(found)} came")
    unpack(found, split.unpack[1], target, split.holds, mark)


def _have(file: File, folder: Path, mirror: str) -> Path:
    """The file, downloaded unless it is there."""
    path = folder / file.name
    url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
    known = recorded(folder).get(file.name, {})
    if path.exists():
        # A file that was put there by hand has no note, and is never removed.
        ours = known.get("ours", Partial(path).note() is not None)
        state = path.stat()
        if [known.get("bytes"), known.get("time")] == [state.st_size, state.st_mtime_ns]:
            return path
        try:  # it was put there by hand, or the process was killed before it was recorded
            checked = verify(path, path, file.bytes, file.sha256, url)
        except RefusedError as error:
            raise ValueError(f"{path}: is there already, but {error}; remove it") from error
    else:
        host = urlsplit(url).hostname
        log.info("%s: about %s from %s", file.name, amount(file.about), host)
        checked, ours = transfer(url, path, file.bytes, file.sha256), True
    line = {"url": url, **checked._asdict(), "time": path.stat().st_mtime_ns, "ours": ours}
    record(folder, file.name, line)
    Partial(path).forget()
    if checked.against == "nothing":
        log.info(
            "%s: no checksum is published; the SHA-256 of what came is %s, recorded in %s",
            file.name, checked.sha256, folder / RECORD,
        )  # fmt: skip
    else:
        whose = "published" if checked.against == "published" else "named by the host"
        log.info("%s: its SHA-256 is the one %s", file.name, whose)
    return path


def _require_space(split: Split, folder: Path, keep: bool) -> None:
    """Room for what is still to come and for what it is unpacked into.

    Images hardly shrink in an archive, so that the archives' size stands for that of the images.
    """
    whole = sum(file.about for file in split.files)
    there = 0
    for file in split.files:
        path = folder / file.name
        there += path.stat().st_size if path.exists() else Partial(path).size()
    copies = len(split.unpack) if keep else min(1, len(split.unpack))
    require(folder, max(0, whole - there) + copies * whole, f"{split.into} with its archives")


def _tidy(split: Split, to: Path, keep: bool) -> None:
    shutil.rmtree(_inner(to, split), ignore_errors=True)
    if not keep:
        _remove(split, to)


def _remove(split: Split, to: Path) -> None:
    known = recorded(to)
    for file in split.files:
        if known.get(file.name, {}).get("ours"):
            (to / file.name).unlink(missing_ok=True)


def _inner(to: Path, split: Split) -> Path:
    return to / f".{split.into}.inner"


def _marked(target: Path, mark: str) -> bool:
    try:
        return (target / MARK).read_text() == mark
    except OSError:
        return False
