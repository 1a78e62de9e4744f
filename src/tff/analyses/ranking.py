"""Which channels carry the decision: FF-RS of every channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tff.analyses import ledger
from tff.analyses.base import Analysis
from tff.analyses.criteria import CRITERIA
from tff.analyses.records import Floats
from tff.analyses.subject import Subject
from tff.plots import channels
from tff.types import Channels, Result

ABOUT = """
The detector gives one number for an image. Layer-wise relevance propagation (LRP) walks back from
that number through the network and shares it out: every channel of every layer gets the part that
it contributed. Omega (FF-RS) of a channel is its share of the positive relevance of its layer,
averaged over images that the detector is sure about. The channels with the largest omega are
candidates for transferable forensic features (T-FF).

Channels are ranked by generated images of the seen generator; the values of real images stand
beside them.
"""


@dataclass(frozen=True)
class Ranking(Analysis):
    """Omega of all channels, best first, from generated and from real images.

    With it comes the relevance ledger: what was lost on the way.
    """

    def answer(self, subject: Subject) -> Result:
        """Tables `ranking` and, in the authors' published format, `omega_fake` and `omega_real`."""
        fake, real = subject.relevance["fake"], subject.relevance["real"]
        table = subject.channels.table()
        table["omega"], table["omega_error"] = fake.omega, fake.error
        table["omega_low"] = fake.omega - 1.96 * fake.error
        table["omega_high"] = fake.omega + 1.96 * fake.error
        table["omega_real"] = real.omega
        table["lift"] = subject.scores("lift")
        twins = subject.network.twins.numpy()
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
            f"The strongest is channel {best['channel']} of {best['layer']}: it alone holds "
            f"{100 * best['omega']:.0f} % of the relevance of its layer.",
        ]
        if real.images == 0:
            result.warnings.append(
                "No real image is recognised with the confidence asked for, so omega of real "
                "images is missing."
            )
        if repeated := int((top["same_as"] != "").sum()):
            result.warnings.append(
                f"{repeated} of the top {subject.k} are depthwise convolutions, which carry the "
                "same as the channels before them (column `same_as`); "
                "subject.ranking.duplicates=merge counts each such feature once."
            )
        if fake.images < 30:
            result.warnings.append(f"Omega rests on {fake.images} generated images only.")
        result.tables = {"ranking": table} | {
            f"omega_{name}": published_format(found.omega, subject.channels)
            for name, found in subject.relevance.items()
        }
        result.figures = {
            "omega_distribution": channels.omega_distribution(table, subject.k),
            "top_channels": channels.top_channels(table),
            "top_layers": channels.layers(table, subject.k, subject.channels.layers),
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
        ledger.add(result, subject)
        return result


def published_format(omega: Floats, channels: Channels) -> pd.DataFrame:
    """The ranking as the authors publish it: `key` such as `layer1.0.conv1.#63(T=64)`, sorted."""
    table = channels.table()
    width = table["layer"].map(channels.widths)
    keys = table["layer"] + ".#" + table["channel"].astype(str) + "(T=" + width.astype(str) + ")"
    order = np.argsort(-omega, kind="stable")
    return pd.DataFrame({"key": keys, "mean_relevance": omega}).iloc[order].reset_index(drop=True)


def from_published(table: pd.DataFrame, channels: Channels) -> np.ndarray:
    """The inverse of `published_format`: omega in the order of the channels, (n_channels,).

    Raises:
        ValueError: a key that is not of that form, or channels that are missing or named twice.
        KeyError: a channel that this network has not.
    """
    parts = table["key"].str.extract(r"^(?P<layer>.+)\.#(?P<channel>\d+)\(T=(?P<width>\d+)\)$")
    if parts.isna().any(axis=None):
        odd = table["key"][parts.isna().any(axis=1)].iloc[0]
        raise ValueError(f"ranking key {odd!r}: expected LAYER.#CHANNEL(T=WIDTH)")
    flat = [
        channels.flat(layer, int(channel))
        for layer, channel in zip(parts["layer"], parts["channel"], strict=True)
    ]
    if len(set(flat)) != len(flat) or len(flat) != len(channels):
        raise ValueError(
            f"ranking names {len(set(flat))} different channels in {len(flat)} rows; "
            f"the network has {len(channels)}"
        )
    omega = np.empty(len(channels))
    omega[flat] = table["mean_relevance"]
    return omega
