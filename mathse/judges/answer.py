"""``judge=answer``: compares the final answer with the reference. Where references are right, it is the upper bound.

It loads no torch, so commands that only read a run can use it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.judges import AnswerJudgeConfig
from mathse.data.domains import final_answer, has_answer
from mathse.types import Problem, ReasoningPath, Verdict


class AnswerJudge:
    name = "answer"

    def __init__(self, settings: AnswerJudgeConfig | None = None) -> None:
        """It has no settings of its own; every judge is opened with its section."""

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        verdicts = []
        for problem, path in zip(problems, paths, strict=True):
            prediction = final_answer(problem, path.text)
            if prediction is None:
                verdicts.append(Verdict(path.id, "unparsed", judge=self.name))
            elif has_answer(problem, prediction):
                verdicts.append(Verdict(path.id, "correct", judge=self.name))
            else:
                analysis = "The final answer is wrong."
                verdicts.append(Verdict(path.id, "wrong", error_analysis=analysis, judge=self.name))
        return verdicts
