"""The embedded world's teacher: solves by rule, and is fallible by default.

Its errors are misreadings and miscalculations, concentrated on the hard kinds of question, and the same at a second
try, as with a real teacher: whoever fails on a problem tends to fail on it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mathse.config.actors import SymbolicTeacher as Settings
from mathse.data.synthetic.critique import check, near_miss
from mathse.data.synthetic.problems import facts
from mathse.data.synthetic.solution import KINDS, Numbers, expected, parse, write
from mathse.seeds import rng
from mathse.types import Problem, ReasoningPath, Verdict


@dataclass(frozen=True)
class Slip:
    """Where the teacher errs on a problem: the step, the position of the number in it, and what it writes there."""

    step: int  # 0 reads, 1 and 2 compute
    position: int
    draw: int  # seed of the wrong number


class SymbolicTeacher:
    """``error_rate``: share of its solutions that are wrong, over the four kinds of question alike."""

    name = "symbolic"

    def __init__(self, settings: Settings) -> None:
        self.error_rate, self.seed = settings.error_rate, settings.seed

    def solve(self, problems: Sequence[Problem]) -> list[str | None]:
        return [self._write(p, []) for p in problems]

    def annotate(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        """Checks each path against its own reading, so it errs where it would err as a solver."""
        return [self._annotate(p, path) for p, path in zip(problems, paths, strict=True)]

    def reflect(
        self,
        problems: Sequence[Problem],
        drafts: Sequence[ReasoningPath],
        feedback: Sequence[Verdict | None],
        attempt: int = 0,
    ) -> list[str | None]:
        """Keeps the steps before the one that the feedback names, and writes the rest anew (all, without feedback)."""
        return [
            self._write(p, _kept_steps(p, draft, word))
            for p, draft, word in zip(problems, drafts, feedback, strict=True)
        ]

    def _slip(self, problem: Problem) -> Slip | None:
        kind, _ = facts(problem)
        draw = rng(self.seed, "teacher", problem.id)
        if draw.random() >= min(1.0, self.error_rate * KINDS[kind].hardness):
            return None
        step = draw.choice([0, 1, 2])
        last = {0: draw.randrange(3), 1: -1, 2: -1}[step]
        return Slip(step, last, draw.getrandbits(32))

    def _write(self, problem: Problem, steps: list[Numbers]) -> str:
        kind, digits = facts(problem)
        slip = self._slip(problem)
        steps = list(steps)
        while len(steps) < 4:
            numbers = list(expected(kind, digits, steps))
            if slip and slip.step == len(steps):
                numbers[slip.position] = near_miss(numbers[slip.position], rng(slip.draw), digit=slip.step == 0)
            steps.append(tuple(numbers))
        return write(kind, steps)

    def _annotate(self, problem: Problem, path: ReasoningPath) -> Verdict:
        kind, digits = facts(problem)
        read = parse(kind, self._write(problem, []))[0]  # a misreading teacher checks against its misreading
        word = check(kind, read, path.text)
        if word.error_step is None:
            return Verdict(path.id, "correct", judge=self.name, error_analysis=word.analysis)
        return Verdict(path.id, "wrong", f"Step {word.error_step}", word.analysis, judge=self.name)


def _kept_steps(problem: Problem, draft: ReasoningPath, word: Verdict | None) -> list[Numbers]:
    from mathse.scoring.metrics import first_step

    wrong = first_step(word.error_step) if word else None
    return parse(facts(problem)[0], draft.text)[: wrong - 1] if wrong and 1 <= wrong <= 4 else []
