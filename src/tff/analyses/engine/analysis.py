"""An analysis: one question about a subject, answered by a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from tff.analyses.engine.sanity_checks import add_sanity_checks
from tff.analyses.engine.subject import Subject
from tff.analyses.engine.top_channels import TooFewImagesError
from tff.distributed import guard_collectives
from tff.types import Result

#: Result in place of an analysis that failed, from its name and error; may raise the error.
OnError = Callable[[str, Exception], Result]


class Analysis(ABC):
    """One question about a subject: a detector and its images.

    An analysis is independent of trainer, configuration, paths, loggers and rank: `analyze.py`, the
    callback and a notebook call the same object and get the same numbers.
    """

    #: Whether it needs responses of channels besides logits. Such analyses run first: their pass
    #: over the images gives the logits too, so that images are read once.
    needs_responses: ClassVar[bool] = False
    #: Sanity checks that its results need: only of the files if the results hold for any detector,
    #: and of the number of images if the results have intervals; none if the analysis itself
    #: reports on the files.
    sanity_checks: ClassVar[Literal["files and detector", "files and number", "files", "none"]] = (
        "files and detector"
    )

    def __call__(self, subject: Subject) -> Result:
        """Result of the analysis; each row of its tables carries the protocol of the subject."""
        result = self.answer(subject)
        for name, table in result.tables.items():
            new: Any = {key: value for key, value in subject.protocol.items() if key not in table}
            result.tables[name] = table.assign(**new)
        return result

    @abstractmethod
    def answer(self, subject: Subject) -> Result:
        """Result of the analysis; its tables lack the protocol."""


def report_unanswered(name: str, error: Exception) -> Result:
    """Result that explains that the detector recognizes too few images; re-raises other errors."""
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

    def attempt(name: str, function: Callable[..., Result | None], *args: object) -> Result | None:
        try:
            with guard_collectives():
                return function(*args)
        except Exception as error:
            if on_error is None:
                raise
            return on_error(name, error)

    done = {}
    for name in sorted(analyses, key=lambda name: not analyses[name].needs_responses):
        if before:
            before()
        done[name] = attempt(name, analyses[name], subject)
    results = {name: result for name in analyses if (result := done[name])}
    first = next(iter(results.values()), None)
    if first:
        discovery, test = subject.images.discovery, subject.images.test
        first.alarms += [f"Discovery images: {alarm}" for alarm in discovery.alarms]
        first.alarms += [f"Test images: {alarm}" for alarm in test.alarms]
    checks = {analysis.sanity_checks for analysis in analyses.values()}
    if checks and "none" not in checks:
        arguments = next(iter(results.values())), subject, checks
        if failure := attempt("sanity_checks", add_sanity_checks, *arguments):
            results["sanity_checks"] = failure
    return results
