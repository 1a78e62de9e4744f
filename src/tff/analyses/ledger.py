"""What is lost of the relevance on its way back: how far the ranking can be trusted."""

from __future__ import annotations

import pandas as pd

from tff.analyses.subject import Subject
from tff.plots.channels import losses
from tff.relevance.conservation import COLUMNS
from tff.types import Result


def table(subject: Subject) -> pd.DataFrame:
    """The relevance ledger, a row an operation and kind of images, from the logit to the image.

    Columns: `images` (generated, real), `operation`, `rule`, and means over the images in parts of
    the relevance laid on the logit: `arrives`, `leaves`, `lost_to_bias`, `lost_at_zero` (at units
    whose contributions add up to zero); `negative_share` is that of the sum of |R| that arrives.
    Where nothing is handed on, since a ranking needs no pixels, what leaves and is lost is missing.
    """
    names = pd.DataFrame(subject.network.accounts, columns=["operation", "rule"])
    parts = []
    for kind, name in (("fake", "generated"), ("real", "real")):
        found = subject.relevance[kind]
        means = pd.DataFrame(found.ledger, columns=list(COLUMNS))
        part = pd.concat([names, means], axis=1).iloc[::-1]
        part.insert(0, "images", name)
        parts.append(part.assign(n_images=found.images))
    return pd.concat(parts, ignore_index=True)


def leak(ledger: pd.DataFrame) -> pd.Series[float]:
    """How much relevance each operation loses, of that laid on the logit, whatever the sign."""
    return ledger["lost_to_bias"].abs().fillna(0) + ledger["lost_at_zero"].abs().fillna(0)


def add(result: Result, subject: Subject) -> None:
    """Add the ledger of a subject to a result, with a warning where too much was lost."""
    ledger = table(subject)
    of_generated = ledger[ledger["images"] == "generated"]
    lost, limit = leak(of_generated), subject.network.max_leak
    total = float(lost.sum())
    result.tables["ledger"] = ledger
    result.figures["relevance_lost"] = losses(of_generated, limit)
    result.captions["relevance_lost"] = (
        "Losses and gains of relevance on its way from the logit to the first layer add up to "
        f"{100 * total:.1f} % of it. The dashed line is the limit of {100 * limit:g} %."
    )
    result.scalars["relevance_leak"] = total
    if total > limit:
        worst = of_generated.loc[lost.nlargest(3).index, "operation"]
        result.warnings.append(
            "Relevance is not conserved: losses and gains on its way to the first layer add up to "
            f"{100 * total:.1f} % of what was laid on the logit (relevance.max_leak = "
            f"{100 * limit:g} %), most of it at {', '.join(worst)}. Omega is taken from what is "
            "left; see ledger.csv."
        )
