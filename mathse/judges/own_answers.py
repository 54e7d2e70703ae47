"""``orm.own_answer``: the ORM first solves each problem itself; its answer takes the reference's place in the prompt.

A judge that reads an answer has to compare; a judge that reads none has to solve. A small model that does both in one
response (``orm.order=solve_first``) copies the path that it judges instead of solving. Therefore it solves in a
separate prompt, once per problem, whatever the number of paths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from mathse.data.domains import final_answer
from mathse.inference import prompts
from mathse.inference.rows import solve_row
from mathse.inference.work import Payment
from mathse.judges import Batch
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle, Verdict

MAX_KEPT_SOLUTIONS = 100_000  # in memory


class Solution(NamedTuple):
    """A solution by the ORM. ``cost`` is paid once a stage, by the first batch that is judged with the solution."""

    text: str
    cost: Sequence[Payment]


SolveAll = Callable[[Iterable[Sequence[Row]]], Iterator[Sequence[Solution]]]
JudgeAll = Callable[[Sequence[Batch]], Iterator[list[Verdict]]]


class OwnAnswers:
    """The solutions of one ORM.

    Args:
        style: of its prompts.
        solve_all: returns its greedy response to each row, batch by batch.
        together: number of batches whose problems are solved before any of their paths is judged; a kill may lose the
            solutions of as many batches.
    """

    def __init__(self, style: PromptStyle, solve_all: SolveAll, together: int) -> None:
        self.style, self.solve_all, self.together = style, solve_all, together
        self.solutions: dict[tuple[str, tuple[str, ...]], Solution] = {}  # by prompt and images

    def judge_with(self, batches: Sequence[Batch], judge_all: JudgeAll) -> Iterator[list[Verdict]]:
        """Judge batches with this ORM's own answers in the place of the references; "" where it gives no answer.

        ``raw`` of a verdict begins with the ORM's solution.
        """
        for k in range(0, len(batches), self.together):
            next_batches = batches[k : k + self.together]
            self._solve(next_batches)

            # Put the ORM's answers into the problems.
            solutions, with_answers = [], []
            for problems, paths in next_batches:
                texts = [self.solutions[self._key(problem)].text for problem in problems]
                solutions.append(texts)
                answered = [
                    replace(problem, answer=final_answer(problem, text) or "")
                    for problem, text in zip(problems, texts, strict=True)
                ]
                with_answers.append((answered, paths))

            judged = judge_all(with_answers)
            for (problems, _), texts, verdicts in zip(next_batches, solutions, judged, strict=True):
                # A solution is paid for also if an earlier stage has made it. Whether it is still in memory depends on
                # the machine and on kills, and the account must not.
                for problem in problems:
                    key = self._key(problem)
                    for payment in self.solutions[key].cost:
                        payment.pay(once=f"own answer {hashlib.sha256(repr(key).encode()).hexdigest()}")
                yield [
                    replace(verdict, raw="\n".join(filter(None, (text, verdict.raw))))
                    for text, verdict in zip(texts, verdicts, strict=True)
                ]

    def _solve(self, batches: Sequence[Batch]) -> None:
        """Solve the problems of these batches that have no solution yet, in batches of the same size."""
        if len(self.solutions) > MAX_KEPT_SOLUTIONS:
            self.solutions.clear()
        unsolved: dict[tuple[str, tuple[str, ...]], Problem] = {}
        for problems, _ in batches:
            for problem in problems:
                key = self._key(problem)
                if key not in self.solutions:
                    unsolved[key] = problem
        size = max((len(problems) for problems, _ in batches), default=1)
        keys = list(unsolved)
        parts = [keys[k : k + size] for k in range(0, len(keys), size)]
        solved = self.solve_all([solve_row(self.style, unsolved[key]) for key in part] for part in parts)
        for part, solutions in zip(parts, solved, strict=True):
            self.solutions.update(zip(part, solutions, strict=True))

    def _key(self, problem: Problem) -> tuple[str, tuple[str, ...]]:
        return prompts.generation_prompt(problem, self.style), tuple(map(str, problem.images))
