"""Rankings of all channels by FF-RS (omega) and other criteria, and the relevance ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.sanity_checks import few_confident_alarm
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import CHOICES, CRITERIA, SIDES, Stability
from tff.options import checked, some_of
from tff.plots import channels
from tff.published.rankings import to_published_format
from tff.relevance.conservation import COLUMNS
from tff.types import KIND_WORDS, Result

ABOUT = """
The detector gives one number per image. Layer-wise relevance propagation (LRP) walks back from that
number through the network and distributes it: every channel of every layer gets the part that it
contributed. Omega (FF-RS) of a channel is its share of the positive relevance of its layer,
averaged over images of which the detector is sure.

The paper averages over generated images. Such an omega finds channels that respond to traces which
generated images have. A detector may as well go by details that photographs have and generated
images lack; then omega of real images finds its channels. The side of a channel says on which of
the two its omega is larger.

Contrast asks for the decision directly: how much of the gap between the mean logits of generated
and real images goes through the channel? It is the mean of gradient times activation, summed over
positions, over generated images minus that over real ones.

Channels are ranked on images of the seen generator, so no ranking has seen the test images. Whether
the detector needs the channels that a ranking puts first is tested by dropping them.
"""
ABOUT_KINDS = """
Channels of a transformer are of several kinds: neurons (outputs of a linear layer before an
activation), attention heads (what each passes to the output projection) and channels of the patch
embedding. A head is named by the layer that reads it, such as blocks.0.attn.proj #1, the second
head of the first block. Omega is a share of the layer, as for convolutions, with relevance summed
over all tokens, and for a head over the numbers of its output. A share of six heads is larger than
one of a thousand neurons, so each kind is ranked by itself; the rankings are merged such that the
first k hold the same share of each kind, unless subject.k gives a number for each.
"""


@dataclass(frozen=True)
@checked("analysis.ranking")
class Ranking(Analysis):
    """Scores of all channels by several criteria, their stability, and lost relevance.

    Args:
        rankings: criteria, see `engine.top_channels.CRITERIA`; that by which the subject ranks is
            added.
    """

    rankings: Annotated[Sequence[str], some_of(CHOICES)] = (
        "omega", "omega_real", "both", "contrast",
    )  # fmt: skip

    def answer(self, subject: Subject) -> Result:
        """Tables `ranking`, `rankings`, `ledger`, and in the authors' format `omega_KIND`."""
        by, k = subject.criterion, subject.k
        shown = list(dict.fromkeys([by, *self.rankings]))
        if subject.options.ranking.by == "auto":
            shown = [*subject.candidates.index]
        if by == "random":
            shown.remove(by)
        shown, missing = subject.usable_criteria(shown)
        stable = {name: subject.stability(name) for name in shown}
        table = self._table(subject, shown, stable)
        compared = _compare(subject, shown, stable)
        about = ABOUT + (ABOUT_KINDS if subject.channels.kinds else "")
        result = Result("Which channels matter: rankings by FF-RS (omega) and others", about)
        _add_findings(result, subject, table, compared)
        _add_warnings(result, subject, table)
        result.warnings += missing
        result.tables = {"rankings": compared, "ranking": table} | {
            f"omega_{name}": to_published_format(found.omega, subject.channels)
            for name, found in subject.relevance.items()
        }
        result.figures = {
            "omega_distribution": channels.omega_distribution(table, k),
            "top_channels": channels.top_channels(table),
            "top_layers": channels.channels_per_layer(table, k, subject.channels.layers),
        }
        result.captions = {
            "omega_distribution": "Omega of every channel, largest first; few channels hold most.",
            "top_channels": f"The first channels by {CRITERIA[by]}, and their omegas.",
            "top_layers": f"Where the top {k} channels lie in the network.",
        }
        fake, real = subject.relevance["fake"], subject.relevance["real"]
        result.scalars = {
            "k": k,
            "omega_top1": float(table["omega"].iloc[0]),
            "omega_at_k": float(table["omega"].head(k).min()),
            "zero_channels": int((fake.omega == 0).sum()),
            "images_fake": fake.images,
            "images_real": real.images,
        }
        add_conservation(result, subject)
        return result

    def _table(
        self, subject: Subject, shown: Sequence[str], stable: dict[str, Stability]
    ) -> pd.DataFrame:
        """One row per channel, best first."""
        fake, real = subject.relevance["fake"], subject.relevance["real"]
        table = subject.channels.table()
        table["omega"], table["omega_error"] = fake.omega, fake.error
        table["omega_low"] = fake.omega - 1.96 * fake.error
        table["omega_high"] = fake.omega + 1.96 * fake.error
        table["omega_real"], table["omega_real_error"] = real.omega, real.error
        larger = np.where(real.omega > fake.omega, SIDES["real"], SIDES["fake"])
        table["side"] = np.where(np.fmax(real.omega, fake.omega) > 0, larger, "")
        table["lift"] = subject.score_channels("lift")
        for name in shown:
            if name not in table:
                table[name] = subject.score_channels(name)
                if name != "both":
                    table[f"{name}_error"] = stable[name].error
        if subject.criterion in stable:
            table["in_top"] = stable[subject.criterion].in_top
        twins = subject.info.twins.numpy()
        names = (table["layer"] + " #" + table["channel"].astype(str)).to_numpy(object)
        table["same_as"] = np.where(twins >= 0, names[twins], "")
        table = table.iloc[subject.ranking.numpy()].reset_index(drop=True)
        table.insert(0, "rank", np.arange(1, len(table) + 1))
        return table.assign(images=fake.images, images_real=real.images, ranking=subject.criterion)


def _compare(subject: Subject, shown: Sequence[str], stable: dict[str, Stability]) -> pd.DataFrame:
    """One row per ranking: how stable its top k is, and how much of it others share.

    `in_top` is the mean share of resamples of the images in which a channel of the top k is there
    again, `halves` the share of the top k that two halves of the images have in common, and
    `halves_chance` what random rankings would have. With `subject.ranking.by=auto`,
    `discovery_ap` is AP on the discovery images without the top k, by which a ranking was chosen.
    """
    k, rows = subject.k, []
    chosen = set(subject.top.tolist())
    auto = subject.options.ranking.by == "auto"
    for by in shown:
        top = subject.rank(by)[:k].numpy()
        rows.append(
            {
                "ranking": by,
                "criterion": CRITERIA[by],
                "chosen": by == subject.criterion,
                "k": k,
                "in_top": stable[by].in_top[top].mean(),
                "halves": stable[by].halves,
                "halves_chance": stable[by].chance,
                "shared_with_chosen": len(chosen & set(top.tolist())) / k,
            }
        )
        if auto:
            rows[-1]["discovery_ap"] = subject.candidates["ap"][by]
    return pd.DataFrame(rows)


def _add_findings(
    result: Result, subject: Subject, table: pd.DataFrame, compared: pd.DataFrame
) -> None:
    k, by = subject.k, subject.criterion
    if alarms := few_confident_alarm(subject):
        result.alarms += alarms
    else:
        top = table.head(k)
        share = f"the top {k} of {len(table):,} channels ({100 * k / len(table):.2f} %)"
        result.findings.append(
            f"Candidates for transferable forensic features: {share} by {CRITERIA[by]}; their "
            f"omega is {top['omega'].min():.3f} or more. Whether the detector needs them is tested "
            "by dropping them."
        )
        missing = int((top["side"] == SIDES["real"]).sum())
        result.findings.append(
            f"{k - missing} of them weigh more on generated images (an added trace), {missing} "
            "more on real ones (a detail that generated images lack)."
        )
    if subject.channels.kinds:
        numbers = subject.channels.count_kinds(subject.top.numpy())
        each = [f"{n:,} of {of:,} {KIND_WORDS[kind]}" for kind, (n, of) in numbers.items()]
        listed = " and ".join(filter(None, [", ".join(each[:-1]), each[-1]]))
        result.findings.append(
            f"Among the top {k} are {listed}. Scores of different kinds do not compare, so each "
            "kind is ranked by itself."
        )
    own = compared[compared["ranking"] == by]
    if len(own) and not np.isnan(own["halves"].iloc[0]):
        row = own.iloc[0]
        result.findings.append(
            f"Ranked on two halves of the images, {100 * row['halves']:.0f} % of the top {k} are "
            f"the same (by chance: {100 * row['halves_chance']:.1f} %); on resamples of the images "
            f"a channel of the top {k} stays there in {100 * row['in_top']:.0f} % of cases."
        )
    if "discovery_ap" in compared:
        best = compared.sort_values("discovery_ap")
        others = ", ".join(
            f"{row.ranking} {row.discovery_ap:.3f}" for row in best.iloc[1:].itertuples()
        )
        result.findings.append(
            f"The ranking by {CRITERIA[by]} was chosen among {len(best)}, because AP on the "
            f"discovery images is lowest without its top {k}: "
            f"{best['discovery_ap'].iloc[0]:.3f} ({others}). The test images took no part."
        )


def _add_warnings(result: Result, subject: Subject, table: pd.DataFrame) -> None:
    k = subject.k
    if subject.relevance["real"].images == 0:
        result.warnings.append(
            "No real image is recognized with the requested confidence, so omega of real images is "
            "missing."
        )
    if repeated := int((table["same_as"].head(k) != "").sum()):
        result.warnings.append(
            f"{repeated} of the top {k} are depthwise convolutions, which carry the same relevance "
            "as the channels before them (column `same_as`); subject.ranking.duplicates=merge "
            "counts each such feature once."
        )


def leak(ledger: pd.DataFrame) -> pd.Series[float]:
    """Absolute loss of relevance at each operation, as a fraction of that at the logit."""
    return _kept(ledger) + ledger["lost_at_zero"].abs().fillna(0)


def _kept(ledger: pd.DataFrame) -> pd.Series[float]:
    """What constants keep at each operation: biases, position embeddings, class tokens."""
    return ledger["lost_to_constants"].abs().fillna(0)


def add_conservation(result: Result, subject: Subject) -> None:
    """Add the ledger of a subject to a result, and a warning if too much relevance is lost.

    Table `ledger` has one row per kind of images and operation, from the logit to the image, with
    means over the images as a fraction of the relevance at the logit: `arrives`, `leaves`,
    `lost_to_constants`, `lost_at_zero` (at units whose contributions add up to zero); and
    `negative_share` of the sum of |R| that arrives. `leaves` and losses are NaN where nothing is
    passed on, since a ranking needs no pixels.

    Position embeddings and class tokens of a transformer keep their share by definition, so what
    constants keep is told there, and does not count as lost.
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
    kept, limit = _kept(of_generated), subject.info.max_leak
    lost = leak(of_generated) - kept if subject.channels.kinds else leak(of_generated)
    total = float(lost.sum())
    result.tables["ledger"] = ledger
    result.figures["relevance_lost"] = channels.relevance_losses(of_generated, limit)
    result.captions["relevance_lost"] = (
        "Losses and gains of relevance on its way from the logit to the first layer add up to "
        f"{100 * total:.1f} % of it. The dashed line is the limit of {100 * limit:g} %."
    )
    if subject.channels.kinds:
        result.captions["relevance_lost"] += (
            " What biases, position embeddings and class tokens keep adds up to "
            f"{100 * float(kept.sum()):.1f} %, and does not count as lost."
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
