"""What an analysis is: one question about a subject, answered by a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from tff.analyses.doubts import raise_doubts
from tff.analyses.subject import Subject
from tff.types import Result


class Analysis(ABC):
    """Knows no trainer, no configuration, no path, no logger and no process rank.

    `analyze.py`, the callback and a notebook call the same object and get the same numbers.
    """

    #: Whether the answer needs the channels' responses, not the logits alone.
    needs_responses: ClassVar[bool] = False
    #: Whether the answer means nothing for a detector that detects nothing.
    rests_on_detection: ClassVar[bool] = True
    #: Whether it says itself what is wrong with the files.
    tells_of_files: ClassVar[bool] = False

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


def run(analyses: Mapping[str, Analysis], subject: Subject) -> dict[str, Result]:
    """Answer several questions about one subject, in the given order of results.

    Those that need most of a pass over the images go first, so that the others share it. What makes
    all of it doubtful stands in the first result.
    """
    order = sorted(analyses, key=lambda name: not analyses[name].needs_responses)
    done = {name: analyses[name](subject) for name in order}
    results = {name: done[name] for name in analyses}
    if results and not any(analysis.tells_of_files for analysis in analyses.values()):
        detection = any(analysis.rests_on_detection for analysis in analyses.values())
        raise_doubts(next(iter(results.values())), subject, detection)
    return results
