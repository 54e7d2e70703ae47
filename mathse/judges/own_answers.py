"""``orm.own_answer``: what an ORM answers to a problem before it sees a path of it stands where the reference would.

A judge that reads an answer has to compare; one that reads none has to solve. A small model that should do both in one
response (``orm.order=solve_first``) writes down the path that it was given. So it solves in a turn of its own, once a
problem, whatever number of paths there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from mathse.data.domains import final_answer
from mathse.inference import prompts
from mathse.inference.rows import solve_row
from mathse.judges import Batch
from mathse.models.row import Row
from mathse.types import Problem, PromptStyle

TOGETHER = 16  # batches whose problems are solved before any of their paths is judged: work for several ranks
KEPT = 100_000  # answers in memory

Write = Callable[[Iterable[Sequence[Row]]], Iterator[Sequence[str]]]


class OwnAnswers:
    """The answers of one ORM.

    Args:
        style: of its prompts.
        write: its response to each row, batch by batch, greedily.
    """

    def __init__(self, style: PromptStyle, write: Write) -> None:
        self.style, self.write = style, write
        self.by_problem: dict[tuple[str, tuple[str, ...]], str] = {}  # by prompt and images

    def shown(self, batches: Sequence[Batch]) -> Iterator[list[Batch]]:
        """The batches, some at a time, whose problems have this ORM's answer for their reference answer; "" where it
        gives none, and the path is judged without."""
        for k in range(0, len(batches), TOGETHER):
            together = batches[k : k + TOGETHER]
            self._solve(together)
            yield [
                ([replace(problem, answer=self.by_problem[self._key(problem)]) for problem in problems], paths)
                for problems, paths in together
            ]

    def _solve(self, batches: Sequence[Batch]) -> None:
        if len(self.by_problem) > KEPT:
            self.by_problem.clear()
        asked = {self._key(problem): problem for problems, _ in batches for problem in problems}
        unsolved = [(key, problem) for key, problem in asked.items() if key not in self.by_problem]
        size = max((len(problems) for problems, _ in batches), default=1)
        parts = [unsolved[k : k + size] for k in range(0, len(unsolved), size)]
        written = self.write([solve_row(self.style, problem) for _, problem in part] for part in parts)
        for part, responses in zip(parts, written, strict=True):
            for (key, problem), response in zip(part, responses, strict=True):
                self.by_problem[key] = final_answer(problem, response) or ""

    def _key(self, problem: Problem) -> tuple[str, tuple[str, ...]]:
        return prompts.generation_prompt(problem, self.style), tuple(map(str, problem.images))
