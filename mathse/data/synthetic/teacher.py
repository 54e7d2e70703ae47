"""The teacher of synthetic problems, which solves by rule and is fallible by default.

Its errors are misreadings and miscalculations, concentrated on the hard kinds of question. It repeats them at a second
try, as a real teacher tends to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.teachers import SymbolicTeacherConfig
from mathse.data.synthetic.critique import check, near_miss
from mathse.data.synthetic.problems import facts
from mathse.data.synthetic.solution import KINDS, Numbers, compute_step, parse, write
from mathse.scoring.metrics import first_step
from mathse.seeds import rng
from mathse.types import Draft, Problem, ReasoningPath, Verdict


class SymbolicTeacher:
    """A teacher with a share ``error_rate`` of wrong solutions, on average over the four kinds of question."""

    name = "symbolic"

    def __init__(self, settings: SymbolicTeacherConfig) -> None:
        self.error_rate, self.seed = settings.error_rate, settings.seed

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [self._write(p, []) for p in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """Check each path against the teacher's own reading, which repeats its errors as a solver."""
        verdicts = []
        for problem, path in zip(problems, paths, strict=True):
            kind, _ = facts(problem)
            digits = parse(kind, self._write(problem, []))[0]  # as the teacher reads them
            verdicts.append(check(kind, digits, path.text).to_verdict(path.id, judge=self.name))
        return verdicts

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        """Keep the steps before the step that the feedback names, and write the rest again; without feedback, all."""
        revised: list[str | None] = []
        for problem, path, feedback in drafts:
            wrong = first_step(feedback.error_step) if feedback else None
            steps = parse(facts(problem)[0], path.text)[: wrong - 1] if wrong and 1 <= wrong <= 4 else []
            revised.append(self._write(problem, steps))
        return revised

    def _write(self, problem: Problem, steps: Sequence[Numbers]) -> str:
        """Write a solution that begins with ``steps``, with the teacher's usual error on this problem."""
        kind, digits = facts(problem)
        # The error depends only on the problem's id: whether there is one, its step, and its wrong number.
        draw = rng(self.seed, "teacher", problem.id)
        wrong_step = None
        if draw.random() < min(1.0, self.error_rate * KINDS[kind].hardness):
            wrong_step = draw.choice([0, 1, 2])  # reads, computes, computes
            any_digit = draw.randrange(3)
            position = any_digit if wrong_step == 0 else -1  # the wrong number in the step; -1 is a result
            near_miss_seed = draw.getrandbits(32)
        steps = list(steps)
        while len(steps) < 4:
            numbers = list(compute_step(kind, digits, steps))
            if len(steps) == wrong_step:
                numbers[position] = near_miss(numbers[position], rng(near_miss_seed), digit=wrong_step == 0)
            steps.append(tuple(numbers))
        return write(kind, steps)
