"""The teacher of synthetic problems: solves by rule, and is fallible by default.

Its errors are misreadings and miscalculations, concentrated on the hard kinds of question, and the same at a second
try, as with a real teacher: whoever fails on a problem tends to fail on it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from mathse.config.teachers import SymbolicTeacher as Settings
from mathse.data.synthetic.critique import check, near_miss
from mathse.data.synthetic.problems import facts
from mathse.data.synthetic.solution import KINDS, Numbers, expected, parse, write
from mathse.scoring.metrics import first_step
from mathse.seeds import rng
from mathse.types import Draft, Problem, ReasoningPath, Status, Verdict


class SymbolicTeacher:
    """``error_rate``: share of its solutions that are wrong, over the four kinds of question alike."""

    name = "symbolic"

    def __init__(self, settings: Settings) -> None:
        self.error_rate, self.seed = settings.error_rate, settings.seed

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [self._write(p, []) for p in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """Checks each path against its own reading, so it errs where it would err as a solver."""
        verdicts = []
        for problem, path in zip(problems, paths, strict=True):
            kind, _ = facts(problem)
            digits = parse(kind, self._write(problem, []))[0]  # as the teacher reads them
            result = check(kind, digits, path.text)
            status: Status = "correct" if result.error_step is None else "wrong"
            step = None if result.error_step is None else f"Step {result.error_step}"
            verdicts.append(Verdict(path.id, status, step, result.analysis, judge=self.name))
        return verdicts

    def reflect(self, drafts: Sequence[Draft], attempt: int = 0) -> list[str | None]:
        """Keeps the steps before the one that the feedback names, and writes the rest anew (all, without feedback)."""
        revised: list[str | None] = []
        for problem, path, feedback in drafts:
            wrong = first_step(feedback.error_step) if feedback else None
            steps = parse(facts(problem)[0], path.text)[: wrong - 1] if wrong and 1 <= wrong <= 4 else []
            revised.append(self._write(problem, steps))
        return revised

    def _write(self, problem: Problem, steps: Sequence[Numbers]) -> str:
        """A solution that begins with ``steps``, in which the teacher errs where it always errs on this problem."""
        kind, digits = facts(problem)
        # Drawn from the problem's id alone: whether the teacher errs on it, in which step, and what it writes there.
        draw = rng(self.seed, "teacher", problem.id)
        wrong_step = None
        if draw.random() < min(1.0, self.error_rate * KINDS[kind].hardness):
            wrong_step = draw.choice([0, 1, 2])  # reads, computes, computes
            any_digit = draw.randrange(3)
            position = any_digit if wrong_step == 0 else -1  # which number of the step: of a computation its result
            near_miss_seed = draw.getrandbits(32)
        steps = list(steps)
        while len(steps) < 4:
            numbers = list(expected(kind, digits, steps))
            if len(steps) == wrong_step:
                numbers[position] = near_miss(numbers[position], rng(near_miss_seed), digit=wrong_step == 0)
            steps.append(tuple(numbers))
        return write(kind, steps)
