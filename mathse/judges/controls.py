"""Controls: ``judge=random`` (chance), ``judge=noisy`` (a known error rate) and ``judge=accept`` (accepts all).

Random draws are keyed by the run's seed and the path's id, so the order of the paths does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.judges import AcceptJudgeConfig, NoisyJudgeConfig, RandomJudgeConfig
from mathse.judges.answer import AnswerJudge
from mathse.seeds import rng
from mathse.types import Problem, ReasoningPath, Verdict


class RandomJudge:
    """Accepts a share ``rate`` of all paths by chance. Every judge has to beat this control."""

    name = "random"

    def __init__(self, settings: RandomJudgeConfig, seed: int) -> None:
        self.rate, self.seed = settings.rate, seed

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        verdicts = []
        for path in paths:
            is_accepted = rng(self.seed, "judge", path.id).random() < self.rate
            verdicts.append(Verdict(path.id, "correct" if is_accepted else "wrong", judge=self.name))
        return verdicts


class AcceptJudge:
    """Accepts every path that is not empty: for the solutions of a trusted teacher."""

    name = "accept"

    def __init__(self, settings: AcceptJudgeConfig) -> None:
        """It has no settings of its own; every judge is opened with its section."""

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [Verdict(p.id, "correct" if p.text.strip() else "unparsed", judge=self.name) for p in paths]


class NoisyJudge:
    """Compares with the reference, then reverses a share ``rate`` of its verdicts by chance. At 0 it equals
    ``AnswerJudge``, at 0.5 it is no better than chance."""

    name = "noisy"

    def __init__(self, settings: NoisyJudgeConfig, seed: int) -> None:
        self.rate, self.seed, self.answer = settings.rate, seed, AnswerJudge()

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        verdicts = []
        for by_answer in self.answer.judge(problems, paths):
            path_id, is_correct = by_answer.path_id, by_answer.status == "correct"
            if rng(self.seed, "judge", path_id).random() < self.rate:
                is_correct = not is_correct
            if is_correct:
                verdicts.append(Verdict(path_id, "correct", judge=self.name))
            else:
                verdicts.append(Verdict(path_id, "wrong", error_analysis="The final answer is wrong.", judge=self.name))
        return verdicts
