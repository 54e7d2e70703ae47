"""A run of Algorithm 1 in progress: what it works with, and how far it is. Stages and callbacks read and change it.

It is the base class of ``EvolutionLoop``, apart from it so that the loop shows the algorithm alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mathse.config.fits import FitStage
from mathse.config.schema import TrainConfig
from mathse.evolution.state import EvolutionState, Judged
from mathse.inference.generate import Advance
from mathse.judges.teachers.student import StudentTeacher
from mathse.reporting.loggers import RunLoggers
from mathse.reporting.progress import Progress, Track
from mathse.reporting.progress.outlook import Outlook, Unit, fit_unit
from mathse.runs.meter import Account
from mathse.runs.reader import FinishedStage, read_stage
from mathse.runs.stage_cache import RunFolder, Stage, Work
from mathse.seeds import derive

if TYPE_CHECKING:
    from mathse.evolution.models import RunModels, Student
    from mathse.evolution.problems import RunProblems


def round_name(number: int) -> str:
    """A round's stage: "round_01"."""
    return f"round_{number:02d}"


REFLECTION = "reflection"  # the stage; of a round: round_01/reflection


def is_reflection(stage: Stage) -> bool:
    return Path(stage.name).name == REFLECTION


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
    def fit_stage(self) -> FitStage | None:
        """The section of ``sft`` that the current stage's fit follows; None: of task=sft."""
        name: Any = "round" if self.stage.name == self.round_name else self.stage.name
        return name if name in get_args(FitStage) else None

    @property
    def learns_from_pairs(self) -> bool:
        """Whether the current stage's fit follows ``evolution.update``: distillation has no paths of a student yet."""
        return self.config.task == "evolve" and self.stage.name != "distill"

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


# --- context ----------------------------------------------------------------------------------------------------------


class RunContext:
    """``notes``: sentences that summary.json has beside the run's figures."""

    def __init__(
        self, config: TrainConfig, run: RunFolder, progress: Progress, loggers: RunLoggers, notes: Sequence[str] = ()
    ) -> None:
        self.config, self.run, self.progress, self.loggers = config, run, progress, loggers
        self.notes = list(notes)

    def note(self, text: str) -> None:
        """Show a sentence now, and keep it for the summary."""
        self.progress.say(text)
        self.notes.append(text)

    def seed(self, stage: Stage, *key: object) -> int:
        return derive(self.config.seed, stage.name, *key)

    def begin(self, stage: Stage, description: str) -> None:
        """Announce a stage, and begin it where it is not finished."""
        outlook = self.progress.outlook
        if stage.done:
            position = outlook.position(stage.name)
            self.progress.say(f"{stage.name}: finished before, kept{f' ({position})' if position else ''}")
            self._learn_rates(read_stage(stage.path))
        else:
            self.progress.stage(stage.name, description)
            stage.begin()

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Track]:
        """A progress bar for a block."""
        track = self.progress.track(description, total)
        try:
            yield track
        finally:
            track.close()

    @contextmanager
    def work(
        self,
        stage: Stage,
        kind: Literal["sample", "judge"],
        description: str,
        total: int,
        unit: Unit | Literal["nothing"] | None = None,
        account: Account = "method",
    ) -> Iterator[Advance]:
        """Time a block as ``kind``, on an ``account`` of the stage's ledger, and show its rows. ``unit``: what they
        count as in the run's time left; None: as ``kind``."""
        with stage.time(kind, account), self.track(description, total) as track:
            counted = unit or kind
            yield track.advance if counted == "nothing" else TimedTrack(track, self.progress.outlook, counted).advance

    @contextmanager
    def fitting(self, stage: Stage, description: str, steps: int) -> Iterator[Track]:
        """The same for the optimiser steps of a fit."""
        with stage.time("fit"), self.track(description, steps) as track:
            yield TimedTrack(track, self.progress.outlook, fit_unit(stage.name))

    def _learn_rates(self, stage: FinishedStage) -> None:
        """How long a finished stage's fit took, and its answers or verdicts where it says how many they were."""
        seconds = stage.manifest.get("time_s") or {}
        steps = max((int(line["step"]) for line in stage.curve()), default=0)
        counts: list[tuple[Unit, Work, int]] = [(fit_unit(stage.name), "fit", steps)]
        if stage.name == "base":
            counts.append(("sample", "sample", int(stage.summary.get("n") or 0)))
        elif stage.name == "orm":
            counts.append(("judge", "judge", int(stage.summary.get("n") or 0)))
        for unit, kind, count in counts:
            if seconds.get(kind):
                self.progress.outlook.measured(unit, count, float(seconds[kind]))


class TimedTrack(Track):
    """A track whose rows or steps also count for the run's time left."""

    def __init__(self, track: Track, outlook: Outlook, unit: Unit) -> None:
        self._track, self._outlook, self._unit = track, outlook, unit
        outlook.start_work()

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._outlook.did(self._unit, n)
        self._track.advance(n, **info)

    def resume(self, n: int) -> None:
        self._track.resume(n)

    def close(self) -> None:
        self._track.close()
