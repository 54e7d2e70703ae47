"""``judge=checked``: the data's own check of a path's steps, which needs no reference answer.

Word problems: every equation in the path holds, and its answer is the result of the last equation
(``mathse.data.words.solution.check_sums``). The synthetic task: its step checker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mathse.config.judges import CheckedJudgeConfig
from mathse.errors import ConfigError
from mathse.types import Problem, ReasoningPath, Verdict

CheckSteps = Callable[[Problem, str], Verdict]


class CheckedJudge:
    name = "checked"

    def __init__(self, settings: CheckedJudgeConfig, check_steps: CheckSteps | None) -> None:
        """Raises ConfigError if the data has no check of steps."""
        if check_steps is None:
            raise ConfigError(
                "judge = checked: this data has no check of steps (a method check_steps of its source); pass "
                "judge=majority, or data=word_problems or data=synthetic"
            )
        self._check = check_steps

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [
            replace(self._check(problem, path.text), path_id=path.id, judge=self.name)
            for problem, path in zip(problems, paths, strict=True)
        ]
