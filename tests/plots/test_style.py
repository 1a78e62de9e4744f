"""Colors and their counterparts on a dark page."""

from __future__ import annotations

from tff.plots.style import DARK, FAINT, HUES, INK, MUTED, PAPER


def test_every_color_has_its_own_for_the_dark_page() -> None:
    colors = [INK, MUTED, FAINT, PAPER, *HUES]
    assert list(DARK) == colors
    assert len(set(DARK.values())) == len(colors)
