"""Ranking of all channels by FF-RS (omega), and the relevance ledger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import CRITERIA
from tff.plots import channels
from tff.published.rankings import to_published_format
from tff.relevance.conservation import COLUMNS
from tff.types import Result

ABOUT = """
The detector gives one number per image. Layer-wise relevance propagation (LRP) walks back from that
number through the network and distributes it: every channel of every layer gets the part that it
contributed. Omega (FF-RS) of a channel is its share of the positive relevance of its layer,
averaged over images of which the detector is sure. The channels with the largest omega are
candidates for transferable forensic features (T-FF).

Channels are ranked on generated images of the seen generator; the table also has their omega on
real images.
"""


@dataclass(frozen=True)
class Ranking(Analysis):
    """Omega of all channels, best first, on generated and on real images, and lost relevance."""

    def answer(self, subject: Subject) -> Result:
        """Tables `ranking`, `ledger`, and in the authors' format `omega_fake` and `omega_real`."""
        fake, real = subject.relevance["fake"], subject.relevance["real"]
        table = subject.channels.table()
        table["omega"], table["omega_error"] = fake.omega, fake.error
        table["omega_low"] = fake.omega - 1.96 * fake.error
        table["omega_high"] = fake.omega + 1.96 * fake.error
        table["omega_real"] = real.omega
        table["lift"] = subject.score_channels("lift")
        twins = subject.info.twins.numpy()
        names = (table["layer"] + " #" + table["channel"].astype(str)).to_numpy(object)
        table["same_as"] = np.where(twins >= 0, names[twins], "")
        table = table.iloc[subject.ranking.numpy()].reset_index(drop=True)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        table["images"], table["images_real"] = fake.images, real.images
        top, best = table.head(subject.k), table.iloc[0]
        share, by = subject.k / len(table), subject.options.ranking.by
        result = Result("Which channels matter: the ranking by FF-RS (omega)", ABOUT)
        result.findings = [
            f"The transferable forensic features: the top {subject.k} of {len(table):,} channels "
            f"({100 * share:.2f} %), those with omega of {top['omega'].min():.3f} or more."
            if by == "omega"
            else f"The top {subject.k} of {len(table):,} channels ({100 * share:.2f} %) by "
            f"{CRITERIA[by]}, their omega is {top['omega'].min():.3f} or more.",
            f"The strongest is channel {best['channel']} of {best['layer']}: it holds "
            f"{100 * best['omega']:.0f} % of the relevance of its layer.",
        ]
        if real.images == 0:
            result.warnings.append(
                "No real image is recognized with the requested confidence, so omega of real "
                "images is missing."
            )
        if repeated := int((top["same_as"] != "").sum()):
            result.warnings.append(
                f"{repeated} of the top {subject.k} are depthwise convolutions, which carry the "
                "same relevance as the channels before them (column `same_as`); "
                "subject.ranking.duplicates=merge counts each such feature once."
            )
        if fake.images < 30:
            result.warnings.append(f"Omega rests on only {fake.images} generated images.")
        result.tables = {"ranking": table} | {
            f"omega_{name}": to_published_format(found.omega, subject.channels)
            for name, found in subject.relevance.items()
        }
        result.figures = {
            "omega_distribution": channels.omega_distribution(table, subject.k),
            "top_channels": channels.top_channels(table),
            "top_layers": channels.channels_per_layer(table, subject.k, subject.channels.layers),
        }
        result.captions = {
            "omega_distribution": "Omega of every channel, largest first; few channels hold most.",
            "top_channels": "The channels with the largest omega.",
            "top_layers": f"Where the top {subject.k} channels lie in the network.",
        }
        result.scalars = {
            "k": subject.k,
            "omega_top1": float(best["omega"]),
            "omega_at_k": float(top["omega"].min()),
            "zero_channels": int((fake.omega == 0).sum()),
            "images_fake": fake.images,
            "images_real": real.images,
        }
        add_conservation(result, subject)
        return result


def leak(ledger: pd.DataFrame) -> pd.Series[float]:
    """Absolute loss of relevance at each operation, as a fraction of that at the logit."""
    return ledger["lost_to_bias"].abs().fillna(0) + ledger["lost_at_zero"].abs().fillna(0)


def add_conservation(result: Result, subject: Subject) -> None:
    """Add the ledger of a subject to a result, and a warning if too much relevance is lost.

    Table `ledger` has one row per kind of images and operation, from the logit to the image, with
    means over the images as a fraction of the relevance at the logit: `arrives`, `leaves`,
    `lost_to_bias`, `lost_at_zero` (at units whose contributions add up to zero); and
    `negative_share` of the sum of |R| that arrives. `leaves` and losses are NaN where nothing is
    passed on, since a ranking needs no pixels.
    """
    names = pd.DataFrame(subject.info.leaky_operations, columns=["operation", "rule"])
    parts = []
    for kind, name in (("fake", "generated"), ("real", "real")):
        found = subject.relevance[kind]
        means = pd.DataFrame(found.conservation, columns=list(COLUMNS))
        part = pd.concat([names, means], axis=1).iloc[::-1]
        part.insert(0, "images", name)
        parts.append(part.assign(n_images=found.images))
    ledger = pd.concat(parts, ignore_index=True)
    of_generated = ledger[ledger["images"] == "generated"]
    lost, limit = leak(of_generated), subject.info.max_leak
    total = float(lost.sum())
    result.tables["ledger"] = ledger
    result.figures["relevance_lost"] = channels.relevance_losses(of_generated, limit)
    result.captions["relevance_lost"] = (
        "Losses and gains of relevance on its way from the logit to the first layer add up to "
        f"{100 * total:.1f} % of it. The dashed line is the limit of {100 * limit:g} %."
    )
    result.scalars["relevance_leak"] = total
    if total > limit:
        worst = of_generated.loc[lost.nlargest(3).index, "operation"]
        result.warnings.append(
            "Relevance is not conserved: losses and gains on its way to the first layer add up to "
            f"{100 * total:.1f} % of what starts at the logit (relevance.max_leak = "
            f"{100 * limit:g} %), most of it at {', '.join(worst)}. Omega is taken from what is "
            "left; see ledger.csv."
        )
