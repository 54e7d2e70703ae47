"""A teacher for real problems without an API: each problem's own solution."""

from __future__ import annotations

from collections.abc import Sequence

from mathse.data.domains import final_answer, is_right
from mathse.scoring.answers import MARKER, announced_answer
from mathse.types import Problem, ReasoningPath, Verdict


class ReplayTeacher:
    """Writes each problem's own solution and the answer behind the marker, or that sentence alone where there is none.

    Its verdicts compare answers, so they name no wrong step; its reflections are its solutions.
    """

    name = "replay"

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [_replay(problem) for problem in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [_compare(problem, path) for problem, path in zip(problems, paths, strict=True)]

    def reflect(
        self,
        problems: Sequence[Problem],
        drafts: Sequence[ReasoningPath],
        feedback: Sequence[Verdict | None],
        attempt: int = 0,
    ) -> list[str | None]:
        return self.solve(problems)


def _replay(problem: Problem) -> str | None:
    """The solution, ending in the marker and the reference answer; the answer alone where there is no solution, or one
    that announces another answer. None where the answer cannot be written so that the problem's domain reads it."""
    sentences = (f"{MARKER} {problem.answer}.", f"{MARKER} \\boxed{{{problem.answer}}}.")
    sentence = next((s for s in sentences if is_right(problem, s)), None)
    if problem.solution is None:
        return sentence
    # Prose seldom says its answer so that a rule can read it, so only an answer that is announced can be another.
    answers = is_right(problem, problem.solution)
    if announced_answer(problem.solution) is not None and not answers:
        return sentence
    if answers and MARKER in problem.solution or sentence is None:
        return problem.solution if answers else None
    return f"{problem.solution.rstrip()}\n{sentence}"


def _compare(problem: Problem, path: ReasoningPath) -> Verdict:
    """A verdict by answer match; its analysis does not reveal the answer."""
    if final_answer(problem, path.text) is None:
        return Verdict(path.id, "unparsed", judge="replay")
    if is_right(problem, path.text):
        return Verdict(path.id, "correct", error_analysis="The final answer matches the reference.", judge="replay")
    return Verdict(path.id, "wrong", error_analysis="The final answer differs from the reference.", judge="replay")
