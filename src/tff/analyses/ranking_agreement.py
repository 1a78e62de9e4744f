"""Agreement with another ranking of the same channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import rank_channels
from tff.options import PATH, checked, each, number, whole
from tff.plots.channels import layer_correlations, ranking_overlap
from tff.published.rankings import TITLES, published_omega, read_omega, recognize_architecture
from tff.statistics.rank_agreement import (
    chance_overlap,
    chance_overlap_within_groups,
    mean_overlap_within_groups,
    rank,
    rank_biased_overlap,
    spearman,
    top_k_overlap,
)
from tff.types import Floats, Ints, Result

ABOUT = """
Two rankings of the same channels are compared: that of this detector, and {other}. How many of the
top k do they share? Two unrelated rankings share k²/n of them.

Omega is a share of a layer, so channels of narrow layers are on top in any ranking of any detector.
The second baseline therefore keeps how many of each top k lie in each layer, and draws the channels
within the layers at random: only an overlap above it says that the same channels were found.
Detectors trained from different initializations have no reason to give a channel the same number.
"""
#: Column of a curve -> its label.
LABELS = {
    "share": "observed",
    "share_by_chance": "expected by chance",
    "share_within_layers": "expected by chance within layers",
}
#: Of the table `ranking_agreement`.
COLUMNS = (
    "k", "overlap", "share", "by_chance", "p_by_chance", "within_layers", "p_within_layers",
)  # fmt: skip
_POINTS = 160  # of a curve: a figure resolves no more


@dataclass(frozen=True)
@checked("analysis.ranking_agreement")
class RankingAgreement(Analysis):
    """Overlap at k, Spearman and rank-biased overlap with another ranking, and layer by layer.

    Args:
        other: `published` for the authors' ranking of this architecture, or a CSV file in their
            format (`key,mean_relevance`) or ours (`layer,channel,omega`).
        ks: the overlap is reported at these and at the subject's k; values above the number of
            channels are skipped.
        p: persistence of the rank-biased overlap, see `statistics.rank_agreement`.
    """

    other: Literal["published"] | Annotated[str, PATH] = "published"
    ks: Annotated[Sequence[int], each(whole(least=1))] = (10, 50, 100, 500, 1000, 5000)
    p: Annotated[float, number(above=0, below=1, hint=", such as 0.99")] = 0.99

    def answer(self, subject: Subject) -> Result:
        """Tables `ranking_agreement` (one row per k), `..._layers` and `..._top`."""
        name = recognize_architecture(subject.detector)
        published = self.other == "published"
        word = "the authors' published one" if published else f"that of {self.other}"
        result = Result("Do two rankings agree?", ABOUT.format(other=word))
        if published and name is None:
            result.findings = [
                "No ranking was published for this architecture, only for "
                f"{' and '.join(TITLES.values())}: nothing was compared. Another ranking can be "
                "given with analysis.ranking_agreement.other=FILE."
            ]
            result.tables = {"ranking_agreement": pd.DataFrame(columns=COLUMNS)}
            return result
        theirs = (
            published_omega(name, subject.channels)
            if published and name
            else read_omega(self.other, subject.channels)
        )
        ours = subject.relevance["fake"].omega

        def order(scores: Floats) -> Ints:
            return rank_channels(scores, subject.info.twins, kinds=subject.kinds).numpy()

        first, second = subject.ranking.numpy(), order(theirs)
        n, counts = len(first), top_k_overlap(first, second)
        channels = subject.channels.table()
        groups = pd.factorize(channels["layer"])[0].astype(np.int64)
        kinds = subject.channels.kind_numbers
        ks = sorted({k for k in self.ks if k <= n} | {subject.k})
        table = overlap_table(ks, counts, first, second, groups, kinds)
        along = np.unique(np.geomspace(1, n, _POINTS).round().astype(np.int64))
        within = mean_overlap_within_groups(along, first, second, groups)
        unrelated_counts = mean_overlap_within_groups(np.arange(1, n + 1), first, second, kinds)
        curves = {
            "k": along, "share": counts[along - 1] / along,
            "share_by_chance": unrelated_counts[along - 1] / along,
            "share_within_layers": within / along,
        }  # fmt: skip
        tops = first[: subject.k], second[: subject.k]
        top = np.union1d(*tops)
        rbo = rank_biased_overlap(counts, self.p)
        by_chance = rank_biased_overlap(unrelated_counts, self.p)
        everywhere, among_top = spearman(ours, theirs), spearman(ours[top], theirs[top])
        unrelated = spearman_of_unrelated(ours, theirs, tops[0], groups, subject.seed, order)
        row = table[table["k"] == subject.k].iloc[0]
        layers = layer_table(subject.channels.layers, groups, ours, theirs, *tops)
        both = channels.iloc[top].assign(
            rank=np.argsort(first)[top] + 1, rank_other=np.argsort(second)[top] + 1,
            omega=ours[top], omega_other=theirs[top],
        )  # fmt: skip
        result.tables = {
            "ranking_agreement": table,
            "ranking_agreement_layers": layers,
            "ranking_agreement_top": both.sort_values("rank", ignore_index=True),
        }
        verdict = (
            "the same channels are on top significantly more often than by chance"
            if row["p_within_layers"] < 0.05
            else "no evidence that the same channels, rather than the same layers, are on top"
        )
        result.findings = [
            f"Of the top {subject.k} of {n:,} channels, {int(row['overlap'])} are in the top "
            f"{subject.k} of {word} as well ({100 * row['share']:.0f} %). Chance gives "
            f"{row['by_chance']:.1f}, and {row['within_layers']:.1f} with the same layers "
            f"(p = {row['p_within_layers']:.1g}): {verdict}.",
            f"Rank correlation (Spearman) over all channels: {everywhere:.3f}; over the "
            f"{len(top)} channels in the top {subject.k} of either: {among_top:.3f}, where two "
            f"rankings that share only the layers have {unrelated:.3f}, since what one of them "
            "puts there is rarely as high in the other. "
            f"Rank-biased overlap (p = {self.p:g}): {rbo:.3f}, by chance {by_chance:.3f}.",
        ]
        result.scalars = {
            "k": subject.k,
            "overlap_at_k": float(row["overlap"]),
            "overlap_at_k_by_chance": float(row["by_chance"]),
            "overlap_at_k_within_layers": float(row["within_layers"]),
            "p_within_layers": float(row["p_within_layers"]),
            "spearman": everywhere,
            "spearman_top": among_top,
            "spearman_top_by_chance": unrelated,
            "rank_biased_overlap": rbo,
            "rank_biased_overlap_by_chance": by_chance,
            "zeros_ours": int((ours == 0).sum()),
            "zeros_other": int((theirs == 0).sum()),
        }
        result.figures = {
            "ranking_agreement": ranking_overlap(pd.DataFrame(curves), LABELS, subject.k),
            "ranking_agreement_layers": layer_correlations(layers),
        }
        result.captions = {
            "ranking_agreement": "Share of the top k that is in both rankings.",
            "ranking_agreement_layers": "Rank correlation of omega within each layer. A cross "
            "marks a layer without one, because all its omegas are equal.",
        }
        return result


def spearman_of_unrelated(
    ours: Floats,
    theirs: Floats,
    top: Ints,
    groups: Ints,
    seed: int,
    order: Callable[[Floats], Ints] = rank,
    draws: int = 20,
) -> float:
    """Mean Spearman correlation over the top k of either of two rankings that share only layers.

    Args:
        ours: (n,) scores.
        theirs: (n,) other scores, which are permuted within the layers.
        top: (k,) the top channels by our ranking.
        groups: (n,) index of each channel's layer.
        seed: of the permutations.
        order: ranks channels by their scores.
        draws: number of permutations.
    """
    generator, by_group = np.random.default_rng(seed), np.argsort(groups, kind="stable")
    found, shuffled = [], np.empty_like(theirs)
    for _ in range(draws):
        shuffled[by_group] = theirs[np.lexsort((generator.random(len(theirs)), groups))]
        either = np.union1d(top, order(shuffled)[: len(top)])
        found.append(spearman(ours[either], shuffled[either]))
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def overlap_table(
    ks: Sequence[int],
    counts: Ints,
    first: Ints,
    second: Ints,
    groups: Ints,
    kinds: Ints,
) -> pd.DataFrame:
    """Number of channels in the top k of both rankings, and the number by chance, for each k.

    Args:
        ks: those of the rows.
        counts: (n,) overlap at k = 1 ... n.
        first: (n,) ranking of all channels, best first.
        second: (n,) the other ranking.
        groups: (n,) index of each channel's layer.
        kinds: (n,) number of each channel's kind; rankings hold a fixed number of each on top.

    Returns:
        One row per k, `COLUMNS`; p-values are of an overlap at least as large.
    """
    rows = []
    for k in ks:
        found = int(counts[k - 1])
        if len(np.unique(kinds)) > 1:
            chance = chance_overlap_within_groups(found, k, first, second, kinds)
        else:
            chance = chance_overlap(found, k, len(counts))
        within = chance_overlap_within_groups(found, k, first, second, groups)
        rows.append((k, found, found / k, *chance, *within))
    return pd.DataFrame(rows, columns=COLUMNS)


def layer_table(
    layers: Sequence[str], groups: Ints, ours: Floats, theirs: Floats, top: Ints, other: Ints
) -> pd.DataFrame:
    """Rank correlation, and number of channels in the top k of each ranking, per layer."""
    rows: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        at = np.flatnonzero(groups == i)
        in_ours, in_other = np.isin(at, top), np.isin(at, other)
        rows.append(
            {
                "layer": layer,
                "channels": len(at),
                "spearman": spearman(ours[at], theirs[at]),
                "top": int(in_ours.sum()),
                "top_other": int(in_other.sum()),
                "overlap": int((in_ours & in_other).sum()),
                "by_chance": float(in_ours.sum() * in_other.sum() / len(at)),
                "omega": float(ours[at].sum()),
                "omega_other": float(theirs[at].sum()),
            }
        )
    return pd.DataFrame(rows)
