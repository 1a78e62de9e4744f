"""Which detector, trained how, detects generators that it never saw?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.analyses.runs_of import runs_of
from tff.analyses.sweep_doubts import tell_doubts, tell_lost, tell_missing
from tff.analyses.sweep_job import DONE
from tff.analyses.sweep_tables import association, jobs_table, summary
from tff.analyses.sweep_told import tell_association, tell_groups
from tff.types import Result

ABOUT = """
Each job is one training, with the report of its best checkpoint. Jobs that differ in nothing but
the seed are a group. AP on unseen generators is the mean over those that were not seen in training.

The spread of a group is the standard deviation over its trainings (n - 1), and there is none of one
training. It is not the interval in a report: that is over images, of one trained detector. With
three seeds a standard deviation is itself known only within a factor of about two or three. The
best of several groups was chosen on the test images, so its AP is somewhat too good.

Do detectors with more color-conditional channels detect unseen generators better, or worse? The
rank correlation (Spearman) over trainings is given with a 95 % bootstrap interval over trainings;
with fewer than about ten it is rough. Trainings of one group are not independent, so the
correlation of group means stands beside it. Neither says that one causes the other.

Only jobs that finished and were analysed count in means and correlations.
"""


@dataclass(frozen=True)
class Sweep(Analysis):
    """Tables of jobs, of groups and of what goes together, over the trainings of a sweep.

    Args:
        runs: as `runs_of.runs_of` takes them.

    Raises:
        ValueError, FileNotFoundError: no training is named, or none is there.
    """

    rests_on_detection: ClassVar[bool] = False
    of_reports: ClassVar[bool] = True
    runs: str | Sequence[str] | None

    def answer(self, subject: Subject) -> Result:
        """Tables `sweep` (a row a job), `sweep_summary` (a group) and `sweep_association`."""
        runs = runs_of(self.runs)
        table, options = jobs_table(runs)
        groups = summary(table, options)
        together = association(table, subject.draws, subject.seed)
        result = Result("Trainings side by side", ABOUT)
        result.tables = {
            "sweep": table,
            "sweep_summary": groups,
            "sweep_association": together.assign(seed=subject.seed),
        }
        states = table["state"].value_counts()
        counted = ", ".join(f"{n} {state}" for state, n in states.items())
        result.findings = [f"{len(table)} jobs in {len(groups)} groups: {counted}."]
        result.scalars = {"jobs": len(table), "groups": len(groups)}
        result.scalars |= {f"jobs {state}": int(n) for state, n in states.items()}
        if DONE not in states:
            result.warnings.append("No job finished and was analysed, so there is nothing to set "
                                   "side by side yet.")  # fmt: skip
        tell_lost(result, table)
        tell_missing(result, runs)
        tell_groups(result, table, groups)
        tell_association(result, table, together)
        tell_doubts(result, table, groups)
        return result
