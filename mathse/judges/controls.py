"""Controls: ``judge=random``, which knows nothing, and ``judge=noisy``, whose quality is known.

A verdict depends on the run's seed and the path's id alone, so it is the same in whatever order paths come.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.judges import NoisyJudge as NoisySettings
from mathse.config.judges import RandomJudge as RandomSettings
from mathse.judges.answer import AnswerJudge
from mathse.seeds import rng
from mathse.types import Problem, ReasoningPath, Verdict


class RandomJudge:
    """Accepts a share ``rate`` of all paths by chance: the control that any judge has to beat."""

    name = "random"

    def __init__(self, settings: RandomSettings, seed: int) -> None:
        self.rate, self.seed = settings.rate, seed

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdict(path) for path in paths]

    def _verdict(self, path: ReasoningPath) -> Verdict:
        lucky = rng(self.seed, "judge", path.id).random() < self.rate
        return Verdict(path.id, "correct" if lucky else "wrong", judge=self.name)


class NoisyJudge:
    """Compares with the reference, and then turns a share ``rate`` of its verdicts round, by chance. At 0 it is
    ``AnswerJudge``, at 0.5 it knows nothing."""

    name = "noisy"

    def __init__(self, settings: NoisySettings, seed: int) -> None:
        self.rate, self.seed, self.answer = settings.rate, seed, AnswerJudge()

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdict(verdict) for verdict in self.answer.judge(problems, paths)]

    def _verdict(self, by_answer: Verdict) -> Verdict:
        correct = by_answer.status == "correct"
        if rng(self.seed, "judge", by_answer.path_id).random() < self.rate:
            correct = not correct
        analysis = None if correct else "The final answer is wrong."
        return Verdict(by_answer.path_id, "correct" if correct else "wrong", error_analysis=analysis, judge=self.name)
