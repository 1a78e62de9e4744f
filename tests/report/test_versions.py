"""What the numbers depend on is named."""

from __future__ import annotations

import re

from tff.report.page import collect_versions


def test_versions_names_what_the_numbers_depend_on() -> None:
    found = collect_versions()
    assert {"python", "torch", "numpy", "scipy", "tff"} < set(found)
    assert all(re.match(r"\d|not installed", text) for text in found.values())
