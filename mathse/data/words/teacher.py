"""``teacher=fallible_replay``: the worked solutions of word problems, with errors in some of them.

The teacher repeats its error at a second try, as a real teacher does: the problems with an error, and the error,
depend only on seed and problem id.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.teachers import FallibleReplayTeacherConfig
from mathse.data.words.solution import check, write_wrong_solution
from mathse.data.words.source import operations
from mathse.scoring.answers import extract_answer, same_answer
from mathse.seeds import rng
from mathse.types import Draft, Problem, ReasoningPath, Status, Verdict


class FallibleReplayTeacher:
    """A teacher with a share ``error_rate`` of wrong solutions, for problems of any number of steps.

    Its verdicts compare a path's answer with its own answer; its rewrites are its solutions.
    """

    name = "fallible_replay"

    def __init__(self, settings: FallibleReplayTeacherConfig) -> None:
        self.error_rate, self.seed = settings.error_rate, settings.seed

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [self._write(problem) for problem in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        verdicts = []
        for problem, path in zip(problems, paths, strict=True):
            own_answer = extract_answer(self._write(problem)) or problem.answer
            result = check(operations(problem), path.text)
            status: Status = "correct" if same_answer(extract_answer(path.text), own_answer) else "wrong"
            step = None if status == "correct" else f"Step {result.error_step or 1}"
            verdicts.append(Verdict(path.id, status, step, result.analysis, judge=self.name))
        return verdicts

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        return self.solve([draft.problem for draft in drafts])

    def _write(self, problem: Problem) -> str:
        """Write the solution, wrong or right."""
        draw = rng(self.seed, "teacher", problem.id)
        if draw.random() >= self.error_rate:
            return problem.solution or write_wrong_solution(operations(problem), "none", draw)
        return write_wrong_solution(operations(problem), draw.choice(["operation", "operation", "sum"]), draw)
