"""When did the top channels become what they are?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tff.analyses import emergence_tables as tables
from tff.analyses.emergence_steps import Step, read_steps
from tff.analyses.emergence_told import tell_shares, tell_stability
from tff.analyses.engine.analysis import Analysis
from tff.analyses.engine.subject import Subject
from tff.plots import curves
from tff.types import Result

ABOUT = """
While this detector was trained, its checkpoints were ranked by FF-RS (omega), each with the same
options. Here they are put in a row. "The final top {k}" are the top channels of the last analysed
checkpoint (step {last:,}); it need not be the best one.

How many of the top {k} of a checkpoint are in the final top {k}? Two rankings that know nothing of
each other share k²/n of them. But omega is a share of a layer, so narrow layers are on top in any
ranking: the second line of comparison keeps how many of the top lie in each layer and draws the
channels within the layers by chance. An untrained network has top channels too; that they stay is
no proof that training made them.

The color-conditional share is that of the top channels of each checkpoint itself, not of the final
ones. The paper's median test asks whether responses change without the cue, and is high for nearly
any filter; `separates worse` asks whether it matters for telling generated from real images.
"""
NAMED = 5


@dataclass(frozen=True)
class Emergence(Analysis):
    """Omega, rank stability and conditional share over the checkpoints of one training.

    Args:
        run: folder of the training.
        k: how many top channels; None: as many as the last analysed checkpoint took.

    Raises:
        ValueError: k is no whole number from 1; when asked: no run is named, or it has no analysed
            checkpoints of one detector.
    """

    rests_on_detection: ClassVar[bool] = False
    of_reports: ClassVar[bool] = True
    run: str | None
    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and (
            isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1
        ):
            raise ValueError(f"analysis.emergence.k={self.k}: expected a whole number from 1")

    def answer(self, subject: Subject) -> Result:
        """Tables `emergence`, `stability` and `conditional_over_time`."""
        if not self.run or not isinstance(self.run, str):
            raise ValueError(
                f"run={self.run}: analysis=emergence needs the folder of one training; pass run=DIR"
            )
        steps, problems = read_steps(self.run)
        k = self._k(steps[-1])
        about = ABOUT.format(k=k, last=steps[-1].number)
        result = Result("How the top channels came to be", about)
        result.warnings = [*problems, *tables.other_options(steps)]
        top = tables.top_channels(steps, k)
        stable, shares = tables.stability(steps, k), tables.conditional(steps)
        result.tables = {"emergence": top, "stability": stable, "conditional_over_time": shares}
        result.scalars = {"k": k, "checkpoints": len(steps)}
        things = top.assign(name=top["layer"] + " #" + top["channel"].astype(str))
        named = things.drop_duplicates("name").nsmallest(NAMED, "rank_final")["name"]
        result.figures["emergence"] = curves.many(
            things, "step", "name", "omega", "omega (share of the layer's relevance)", list(named)
        )
        result.captions["emergence"] = (
            f"Omega of the final top {k} channels. The {len(named)} strongest are named, with 95 % "
            "intervals over images."
        )
        few = [step.number for step in steps if step.ranking["images"].iloc[0] < 30]
        if few:
            result.warnings.append(
                f"At step {', '.join(f'{n:,}' for n in few)} omega rests on fewer than 30 "
                "generated images: part of the change is chance."
            )
        if len(steps) == 1:
            result.warnings.append(
                f"Only one checkpoint was analysed (step {steps[0].number:,}): there is no history "
                "to tell. Save checkpoints more often, with trainer.check_val_every_n_epoch=1 say."
            )
        else:
            tell_stability(result, stable, k)
        tell_shares(result, shares)
        return result

    def _k(self, last: Step) -> int:
        k, n = self.k if self.k is not None else last.k, len(last.ranking)
        if k is None:
            raise ValueError(
                f"run={self.run}: the summary.json of step {last.number} tells no k; pass "
                "analysis.emergence.k=..."
            )
        if k > n:
            raise ValueError(f"analysis.emergence.k={k}: the detector has {n} channels only")
        return k
