"""One file from a web server, whatever happens on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from tff.data.download.bar import amount, counted
from tff.data.download.partial import Note, Partial
from tff.data.download.server import Answer, BrokenError, RefusedError, Remote, ask
from tff.data.download.space import require
from tff.data.download.verify import Checked, verify

log = logging.getLogger(__name__)

TRIES = 6  # in a row that bring no further byte
LONGEST = 60.0  # seconds between two of them
_BLOCK = 1 << 20


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
