"""A payload that leaves a file if it runs, hostile names, and a guarded folder."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.witness}'",)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Path]:
    """File created by a running payload; the test fails if it exists at the end."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "the payload has run"


@pytest.fixture
def payload(witness: Path) -> Payload:
    return Payload(witness)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """Folder for the files of a test, which fails if anything is written beside it."""
    folder = tmp_path / "inside"
    folder.mkdir()
    yield folder
    assert list(tmp_path.iterdir()) == [folder], "something was written outside"


@pytest.fixture(scope="session")
def hostile() -> list[str]:
    """Names of files, classes and generators that an attacker may choose."""
    return [
        "<img src=x onerror=alert(1)>",
        '"><script>alert(2)</script>',
        "' onmouseover='alert(3)",
        "javascript:alert(4)",
        "</style><style>*{display:none}",
        "{{ 7 * 7 }}{% include 'x' %}",
        "=cmd|' /C calc'!A0",
        "a;=cmd|' /C calc'!A0",
        "[red]markup[/red][/bold]",
        "\x1b[2Jcleared",
        "\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\",
        "\x9b31mred",
        "good\roverwritten",
        "one\ntwo",
        "exe.\u202egnp",
        "$\\frac{1}{0$ $x^2$",
        "&#x3c;b&#x3e;",
        "%s %(name)s {0}",
    ]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Limit the process to 600 MB more than it uses: a decompressed bomb raises MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 600_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
