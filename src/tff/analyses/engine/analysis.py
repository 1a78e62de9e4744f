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

#: Makes a result of the name of an analysis and its error.
Failed = Callable[[str, Exception], Result]


class Analysis(ABC):
    """Knows no trainer, no configuration, no path, no logger and no process rank.

    `analyze.py`, the callback and a notebook call the same object and get the same numbers.
    """

    #: Whether the answer needs the channels' responses, not the logits alone.
    needs_responses: ClassVar[bool] = False
    #: What must be sound for the answer to mean something: the files alone where it holds for any
    #: detector; "none" where the analysis reports on the files itself.
    sanity_checks: ClassVar[Literal["files and detector", "files", "none"]] = "files and detector"

    def __call__(self, subject: Subject) -> Result:
        """Answer the question; every row of every table says how it was measured."""
        result = self.answer(subject)
        for name, table in result.tables.items():
            new: dict[str, Any] = {
                key: value for key, value in subject.protocol.items() if key not in table
            }
            result.tables[name] = table.assign(**new)
        return result

    @abstractmethod
    def answer(self, subject: Subject) -> Result:
        """The result, its tables without the subject's protocol."""


def unanswered(name: str, error: Exception) -> Result:
    """A result that says why there is none, for a detector that recognises too few images.

    Raises:
        Exception: the error itself, if it is another one.
    """
    if not isinstance(error, TooFewImagesError):
        raise error
    return Result(f"{name}: not answered", warnings=[f"{name}: {error}"])


def run(
    analyses: Mapping[str, Analysis],
    subject: Subject,
    failed: Failed | None = None,
    before: Callable[[], None] | None = None,
) -> dict[str, Result]:
    """Answer several questions about one subject, in the given order of results.

    Those that need most of a pass over the images go first, so that the others share it. What makes
    all of it doubtful stands in the first result. Of several processes, all answer a question or
    none does.

    Args:
        failed: makes a result of an error; None: the first error ends all.
        before: called before each question, on all processes; its errors end all.
    """

    def answer(name: str, question: Callable[[], Result]) -> Result:
        if before:
            before()
        try:
            with guard_collectives():
                return question()
        except Exception as error:
            if failed is None:
                raise
            return failed(name, error)

    order = sorted(analyses, key=lambda name: not analyses[name].needs_responses)
    done = {name: answer(name, partial(analyses[name], subject)) for name in order}
    results = {name: done[name] for name in analyses}
    checks = {analysis.sanity_checks for analysis in analyses.values()}
    if checks and "none" not in checks:
        detection = "files and detector" in checks
        try:
            with guard_collectives():
                add_sanity_checks(next(iter(results.values())), subject, detection)
        except Exception as error:
            if failed is None:
                raise
            results["doubts"] = failed("doubts", error)
    return results
