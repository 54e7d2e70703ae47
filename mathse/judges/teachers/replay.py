"""``teacher=replay``: each problem's own solution. It needs no API."""

from __future__ import annotations

from collections.abc import Sequence

from mathse.data.domains import final_answer, is_right
from mathse.scoring.answers import MARKER, announced_answer
from mathse.types import Draft, Problem, ReasoningPath, Verdict


class ReplayTeacher:
    """Writes each problem's own solution and the marker with the answer; without a solution, only that sentence.

    Its verdicts compare final answers, so they name no wrong step. Its rewrites are its solutions.
    """

    name = "replay"

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [_write_solution(problem) for problem in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        verdicts = []
        for problem, path in zip(problems, paths, strict=True):
            # The analysis does not reveal the reference answer.
            if final_answer(problem, path.text) is None:
                verdicts.append(Verdict(path.id, "unparsed", judge=self.name))
            elif is_right(problem, path.text):
                analysis = "The final answer matches the reference."
                verdicts.append(Verdict(path.id, "correct", error_analysis=analysis, judge=self.name))
            else:
                analysis = "The final answer differs from the reference."
                verdicts.append(Verdict(path.id, "wrong", error_analysis=analysis, judge=self.name))
        return verdicts

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        return self.solve([draft.problem for draft in drafts])


def _write_solution(problem: Problem) -> str | None:
    """Return the solution, followed by the marker with the reference answer.

    The sentence with the marker is returned by itself if there is no solution, or if the solution announces another
    answer. None: no sentence with the answer is read back as right by the problem's domain.
    """
    sentences = (f"{MARKER} {problem.answer}.", f"{MARKER} \\boxed{{{problem.answer}}}.")
    sentence = next((s for s in sentences if is_right(problem, s)), None)
    if problem.solution is None:
        return sentence
    # A rule cannot read the answer of most prose. Only an answer that the solution announces can contradict the
    # reference.
    reads_as_right = is_right(problem, problem.solution)
    if announced_answer(problem.solution) is not None and not reads_as_right:
        return sentence
    if reads_as_right and (MARKER in problem.solution or sentence is None):
        return problem.solution
    if sentence is None:
        return None
    return f"{problem.solution.rstrip()}\n{sentence}"
