"""A judge from its settings, together with what only a run has: its ORM, its teacher, its seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mathse.config import build
from mathse.config.judges import OwnJudge, judge_named
from mathse.config.trust import locate
from mathse.judges import Judge
from mathse.judges.teachers import Teacher
from mathse.types import Problem, Verdict


@dataclass(frozen=True)
class RunGives:
    """What a judge gets from the run, as far as its class has a parameter of that name.

    ``orm``: opens the run's ORM, in this process or where it is served. ``check_steps``: the data's check of steps.
    """

    orm: Callable[[], Judge]
    teacher: Teacher
    seed: int
    check_steps: Callable[[Problem, str], Verdict] | None = None


def open_judge(settings: Any, run: RunGives) -> Judge:
    """The judge of a section. A class of ours takes its settings object; a user's own takes the settings that its
    signature names, each as an argument; both are given what they name of what a run has."""

    def open_part(name: str) -> Judge:
        return open_judge(judge_named(name, settings), run)

    gives = {"orm": run.orm, "teacher": run.teacher, "seed": run.seed, "open_judge": open_part}
    gives["check_steps"] = run.check_steps
    parameters = inspect.signature(locate(settings._target_, "judge")).parameters
    section = settings
    if isinstance(settings, OwnJudge):
        section = {name: getattr(settings, name) for name in ("_target_", *settings.takes)}
    judge: Judge = build(section, **{name: value for name, value in gives.items() if name in parameters})
    return judge
