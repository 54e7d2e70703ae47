"""``orm.own_answer``: what an ORM answers to a problem before it sees a path of it stands where the reference would.

A judge that reads an answer has to compare; one that reads none has to solve. A small model that should do both in one
response (``orm.order=solve_first``) writes down the path that it was given. So it solves in a turn of its own, once a
problem, whatever number of paths there are.
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

KEPT = 100_000  # solutions in memory


class Solution(NamedTuple):
    """``cost``: of a solution, paid once a stage, by the first batch that is judged with it."""

    text: str
    cost: Sequence[Payment]


Write = Callable[[Iterable[Sequence[Row]]], Iterator[Sequence[Solution]]]
JudgeAll = Callable[[Sequence[Batch]], Iterator[list[Verdict]]]


class OwnAnswers:
    """The solutions of one ORM.

    Args:
        style: of its prompts.
        write: its response to each row, batch by batch, greedily.
        together: batches whose problems are solved before any of their paths is judged; what a kill may lose.
    """

    def __init__(self, style: PromptStyle, write: Write, together: int) -> None:
        self.style, self.write, self.together = style, write, together
        self.solutions: dict[tuple[str, tuple[str, ...]], Solution] = {}  # by prompt and images

    def judged(self, batches: Sequence[Batch], judge_all: JudgeAll) -> Iterator[list[Verdict]]:
        """The verdicts of ``judge_all`` on problems that have this ORM's answer for their reference answer, "" where it
        gives none. What it wrote begins with its solution."""
        for k in range(0, len(batches), self.together):
            next_batches = batches[k : k + self.together]
            self._solve(next_batches)
            own = [[self.solutions[self._key(problem)].text for problem in problems] for problems, _ in next_batches]
            shown = [
                (
                    [replace(p, answer=final_answer(p, text) or "") for p, text in zip(problems, texts, strict=True)],
                    paths,
                )
                for (problems, paths), texts in zip(next_batches, own, strict=True)
            ]
            for (problems, _), texts, verdicts in zip(next_batches, own, judge_all(shown), strict=True):
                # also where it is known from an earlier stage, or a kill has lost it: that depends on the machine
                for key in map(self._key, problems):
                    for payment in self.solutions[key].cost:
                        payment.pay(once=f"own answer {hashlib.sha256(repr(key).encode()).hexdigest()}")
                yield [
                    replace(verdict, raw="\n".join(filter(None, (text, verdict.raw))))
                    for text, verdict in zip(texts, verdicts, strict=True)
                ]

    def _solve(self, batches: Sequence[Batch]) -> None:
        if len(self.solutions) > KEPT:
            self.solutions.clear()
        asked = {self._key(problem): problem for problems, _ in batches for problem in problems}
        unsolved = [(key, problem) for key, problem in asked.items() if key not in self.solutions]
        size = max((len(problems) for problems, _ in batches), default=1)
        parts = [unsolved[k : k + size] for k in range(0, len(unsolved), size)]
        written = self.write([solve_row(self.style, problem) for _, problem in part] for part in parts)
        for part, responses in zip(parts, written, strict=True):
            for (key, _), solution in zip(part, responses, strict=True):
                self.solutions[key] = solution

    def _key(self, problem: Problem) -> tuple[str, tuple[str, ...]]:
        return prompts.generation_prompt(problem, self.style), tuple(map(str, problem.images))
