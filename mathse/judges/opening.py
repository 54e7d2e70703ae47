"""Opens a judge from its settings and from the objects that only a run has: its ORM, its teacher, its seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mathse.config import build
from mathse.config.judges import OwnJudgeConfig, judge_named
from mathse.config.trust import locate
from mathse.judges import Judge
from mathse.judges.teachers import Teacher
from mathse.types import Problem, Verdict


@dataclass(frozen=True)
class RunGives:
    """Arguments that a run gives to a judge, as far as the judge's class has parameters of these names.

    ``orm`` opens the run's ORM, in this process or behind its server. ``check_steps`` is the data's check of steps.
    """

    orm: Callable[[], Judge]
    teacher: Teacher
    seed: int
    check_steps: Callable[[Problem, str], Verdict] | None = None


def open_judge(settings: Any, run: RunGives) -> Judge:
    """Open the judge of a section.

    A class of this package takes its settings object. A user's own class takes the settings that its signature names,
    each as an argument. Both also get the arguments of ``RunGives`` that they name, and ``open_judge(name)``, which
    opens another judge.
    """

    def open_part(name: str) -> Judge:
        return open_judge(judge_named(name, settings), run)

    from_run = {
        "orm": run.orm,
        "teacher": run.teacher,
        "seed": run.seed,
        "check_steps": run.check_steps,
        "open_judge": open_part,
    }
    parameters = inspect.signature(locate(settings._target_, "judge")).parameters
    section = settings
    if isinstance(settings, OwnJudgeConfig):
        section = {name: getattr(settings, name) for name in ("_target_", *settings.takes)}
    judge: Judge = build(section, **{name: value for name, value in from_run.items() if name in parameters})
    return judge
