"""An analysis: one question about a subject, answered by a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from tff.analyses.engine.sanity_checks import add_sanity_checks
from tff.analyses.engine.subject import Subject, TooFewImagesError
from tff.distributed import guard_collectives
from tff.types import Result

#: Result in place of an analysis that failed, from its name and error; may raise the error.
OnError = Callable[[str, Exception], Result]


class Analysis(ABC):
    """One question about a subject: a detector and its images.

    It knows no trainer, configuration, path, logger or process rank: `analyze.py`, the callback and
    a notebook call the same object and get the same numbers.
    """

    #: Whether it needs the responses of channels, not the logits alone. Such analyses run first:
    #: their pass over the images gives the logits too, so that images are read once.
    needs_responses: ClassVar[bool] = False
    #: Sanity checks that its results need: of the files alone if they hold for any detector; none
    #: if the analysis itself reports on the files.
    sanity_checks: ClassVar[Literal["files and detector", "files", "none"]] = "files and detector"

    def __call__(self, subject: Subject) -> Result:
        """Result of the analysis; each row of its tables carries the protocol of the subject."""
        result = self.answer(subject)
        for name, table in result.tables.items():
            new: dict[str, Any] = {
                key: value for key, value in subject.protocol.items() if key not in table
            }
            result.tables[name] = table.assign(**new)
        return result

    @abstractmethod
    def answer(self, subject: Subject) -> Result:
        """Result of the analysis, its tables without the protocol."""


def report_unanswered(name: str, error: Exception) -> Result:
    """Result that says why an analysis has none: the detector recognizes too few images.

    Raises:
        Exception: the error itself, if it is another one.
    """
    if not isinstance(error, TooFewImagesError):
        raise error
    return Result(f"{name}: not answered", warnings=[f"{name}: {error}"])


def run(
    analyses: Mapping[str, Analysis],
    subject: Subject,
    on_error: OnError | None = None,
    before: Callable[[], None] | None = None,
) -> dict[str, Result]:
    """Run several analyses of one subject; results in the order of the analyses.

    Analyses share the passes over the images. Warnings of the sanity checks are added to the first
    result. If an analysis fails on one of several processes, it fails on all.

    Args:
        on_error: makes a result of an error; None: the first error ends the run.
        before: called before each analysis on all processes; its errors end the run.
    """

    def attempt(name: str, analyze: Callable[[], Result]) -> Result:
        if before:
            before()
        try:
            with guard_collectives():
                return analyze()
        except Exception as error:
            if on_error is None:
                raise
            return on_error(name, error)

    order = sorted(analyses, key=lambda name: not analyses[name].needs_responses)
    done = {name: attempt(name, partial(analyses[name], subject)) for name in order}
    results = {name: done[name] for name in analyses}
    checks = {analysis.sanity_checks for analysis in analyses.values()}
    if checks and "none" not in checks:
        detection = "files and detector" in checks
        try:
            with guard_collectives():
                add_sanity_checks(next(iter(results.values())), subject, detection)
        except Exception as error:
            if on_error is None:
                raise
            results["sanity_checks"] = on_error("sanity_checks", error)
    return results
