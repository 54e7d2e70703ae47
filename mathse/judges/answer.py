"""``judge=answer``: the final answer against the reference. Perfect labels where references are right: the ceiling.

It loads no torch, so that what only reads runs can ask it too.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.judges import AnswerJudge as Settings
from mathse.data.domains import final_answer, has_answer
from mathse.types import Problem, ReasoningPath, Verdict


class AnswerJudge:
    name = "answer"

    def __init__(self, settings: Settings | None = None) -> None:
        """It has no settings of its own; every judge is opened with its section."""

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdict(problem, path) for problem, path in zip(problems, paths, strict=True)]

    def _verdict(self, problem: Problem, path: ReasoningPath) -> Verdict:
        prediction = final_answer(problem, path.text)
        if prediction is None:
            return Verdict(path.id, "unparsed", judge=self.name)
        if has_answer(problem, prediction):
            return Verdict(path.id, "correct", judge=self.name)
        return Verdict(path.id, "wrong", error_analysis="The final answer is wrong.", judge=self.name)
