"""``teacher=fallible_replay``: the worked solutions of word problems, some of them wrong.

Wherever it errs it errs at a second try too, as with a real teacher: which problems these are, and what it writes
there, follows from seed and problem id alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.teachers import FallibleReplayTeacher as Settings
from mathse.data.words.solution import check, written_wrongly
from mathse.data.words.source import operations
from mathse.scoring.answers import extract_answer, same_answer
from mathse.seeds import rng
from mathse.types import Draft, Problem, ReasoningPath, Status, Verdict


class FallibleReplayTeacher:
    """``error_rate``: share of its solutions that are wrong, the same share of problems of one step as of several.

    Its verdicts go by what it would answer itself; its rewrites are its solutions.
    """

    name = "fallible_replay"

    def __init__(self, settings: Settings) -> None:
        self.error_rate, self.seed = settings.error_rate, settings.seed

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [self._solution(problem) for problem in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        verdicts = []
        for problem, path in zip(problems, paths, strict=True):
            believed = extract_answer(self._solution(problem)) or problem.answer
            result = check(operations(problem), path.text)
            status: Status = "correct" if same_answer(extract_answer(path.text), believed) else "wrong"
            step = None if status == "correct" else f"Step {result.error_step or 1}"
            verdicts.append(Verdict(path.id, status, step, result.analysis, judge=self.name))
        return verdicts

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        return self.solve([draft.problem for draft in drafts])

    def _solution(self, problem: Problem) -> str:
        draw = rng(self.seed, "teacher", problem.id)
        if draw.random() >= self.error_rate:
            return problem.solution or written_wrongly(operations(problem), "none", draw)
        return written_wrongly(operations(problem), draw.choice(["operation", "operation", "sum"]), draw)
