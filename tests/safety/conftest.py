"""A payload that leaves a file behind if it ever runs, and a folder that nothing may leave."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.witness}'",)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Path]:
    """Is there once a payload has run; at the end of each test it must not be."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "code of a stranger has run"


@pytest.fixture
def payload(witness: Path) -> Payload:
    return Payload(witness)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Path]:
    """A folder for the test; at its end nothing else lies beside it."""
    folder = tmp_path / "inside"
    folder.mkdir()
    yield folder
    assert list(tmp_path.iterdir()) == [folder], "something was written outside"


@pytest.fixture(scope="session")
def hostile() -> list[str]:
    """Names that a stranger may give to files, classes and generators."""
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
    """No more than 600 MB above what there is: a bomb that goes off ends in a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 600_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
