"""A published number beside ours: are they the same cell, and were they measured alike?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tff.published.tables import ROUNDING, Cell

#: The released set's folder for what its authors' table calls SITD.
_ALIASES = {"seeingdark": "sitd"}
#: Of the table that `compared` gives rows of.
COLUMNS = (
    "source", "what", "generator", "metric", "ours", "ours_low", "ours_high", "published",
    "difference", "inside_interval", "suspect", "protocol_matches", "protocol_differs",
)  # fmt: skip


@dataclass(frozen=True)
class Ours:
    """A number of ours and how it was measured.

    Attributes:
        value: a fraction in [0, 1].
        low: end of its interval, NaN where there is none; likewise `high`.
        threshold: empty where the metric needs none.
        k: channels dropped.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    threshold: str = ""
    k: int = 0


def plain_name(generator: str) -> str:
    """`StyleGAN-2` -> `stylegan2`: how generators are matched."""
    name = re.sub(r"[-_\s]", "", generator.lower())
    return _ALIASES.get(name, name)


def compared(
    cell: Cell, generator: str, several: Sequence[Ours], protocol: Mapping[str, object]
) -> dict[str, object]:
    """One row of the table, `COLUMNS`.

    Args:
        cell: the published number.
        generator: in our spelling.
        several: ours for this cell; the one that was measured most like it is taken.
        protocol: of our tables: `crop`, `resize`, `relevance`, perhaps `match_format`.
    """
    ours = min(several, key=lambda o: (o.threshold != cell.threshold, o.k != cell.k))
    differs = differences(cell, ours, protocol)
    inside = ours.low - ROUNDING <= cell.value <= ours.high + ROUNDING
    known = math.isfinite(ours.low) and math.isfinite(ours.high)
    return {
        "source": cell.source,
        "what": cell.what,
        "generator": generator,
        "metric": cell.metric,
        "ours": ours.value,
        "ours_low": ours.low,
        "ours_high": ours.high,
        "published": cell.value,
        "difference": ours.value - cell.value,
        "inside_interval": inside if known else None,
        "suspect": cell.suspect,
        "protocol_matches": not differs,
        "protocol_differs": "; ".join(differs),
    }


def differences(cell: Cell, ours: Ours, protocol: Mapping[str, object]) -> list[str]:
    """In what the two were measured differently: theirs, then ours."""
    pairs = [
        ("crop", cell.crop, str(protocol["crop"]).replace("centre", "center")),
        ("resize", "none", str(protocol["resize"])),
        ("format", "as it is", str(protocol.get("match_format", "as it is"))),
        ("threshold", cell.threshold, ours.threshold),
        ("k", str(cell.k), str(ours.k)),
    ]
    if cell.k:  # random channels, too: none of the top ones is among them
        rule = re.search(r"\brule=(\S+)", str(protocol["relevance"]))
        pairs.append(("relevance rule", "zplus", rule[1] if rule else "another"))
    return [f"{what} {theirs}, here {mine}" for what, theirs, mine in pairs if theirs != mine]
