"""A run of Algorithm 1 in progress: what it works with, and how far it is. Stages and callbacks read and change it.

It is the base class of ``EvolutionLoop``, apart from it so that the loop shows the algorithm alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mathse.evolution.context import RunContext
from mathse.evolution.models import RunModels
from mathse.evolution.problems import RunProblems
from mathse.evolution.state import EvolutionState, Judged
from mathse.evolution.student import Student
from mathse.judges.teachers.student import StudentTeacher
from mathse.runs.stage_cache import Stage


def round_name(number: int) -> str:
    """A round's stage: "round_01"."""
    return f"round_{number:02d}"


class EvolutionRun:
    """What each hook of a callback gets as ``loop``.

    ``context``, ``config``, ``problems``, ``models``: settings and folder, data, models.
    ``state``: D_SFT, D_remain, R_incorrect. ``stage``: the stage being made. ``student``: the last fitted model.
    ``judged``: the paths just judged, with their verdicts. ``round``: 1 to ``rounds`` (K), 0 before the first.
    """

    def __init__(
        self, context: RunContext, problems: RunProblems, models: RunModels, callbacks: Sequence[object]
    ) -> None:
        self.context, self.problems, self.models = context, problems, models
        self.config = context.config
        self.callbacks = list(callbacks)
        self.rounds: int = self.config.evolution.rounds
        self.round = 0
        self.state: EvolutionState
        self.judged: Sequence[Judged] = []
        self.stage: Stage
        self.student: Student
        self.base: Student  # before any training
        self.previous: Student  # before the current stage's fit
        self.state_stage: Stage | None = None  # the stage whose files hold the state
        self.orm_stages: list[Stage] = []
        self.entries: list[dict[str, Any]] = []  # the lines of summary.json
        if isinstance(models.teacher, StudentTeacher):
            models.teacher.learns_from(lambda: models.of(self.student), models.generator)

    @property
    def round_name(self) -> str:
        return round_name(self.round)

    @property
    def teacher_name(self) -> str:
        """The author of a teacher's rows: of a student that teaches itself, the checkpoint."""
        teacher = self.models.teacher
        return self.student.name if isinstance(teacher, StudentTeacher) else teacher.name

    def call(self, hook: str) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def finish(self, summary: dict[str, Any], inputs: Sequence[Path] = ()) -> None:
        """Write the manifest of the current stage, which is complete then, and tell the loggers."""
        self.stage.finish(summary, inputs)
        self.context.loggers.stage_finished(self.stage)

    def state_loaded_from(self, stage: Stage) -> None:
        """Go on from a stage's files: a resumed run and one that just made the stage then hold the same."""
        self.state = EvolutionState.load(stage.path, self.state.problems)
        self.state_stage = stage
