"""A run of Algorithm 1 in progress: its settings, data and models, and its position. Stages and callbacks read and
change it.

``EvolutionRun`` is the base class of ``EvolutionLoop``. It is a separate file so that loop.py shows only the algorithm.
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
from mathse.training.updates.rows import SFTUpdate

if TYPE_CHECKING:
    from mathse.evolution.models import RunModels, Student
    from mathse.evolution.problems import RunProblems

REFLECTION = "reflection"  # name of the last reflection stage; after each round: round_01/reflection


def name_round(number: int) -> str:
    """Return the stage name of a round, such as "round_01"."""
    return f"round_{number:02d}"


def is_reflection(stage: Stage) -> bool:
    return Path(stage.name).name == REFLECTION


class EvolutionRun:
    """The run that each hook of a callback receives as ``loop``.

    Attributes:
        context: settings, run folder, seeds, progress, loggers.
        config: the settings, ``context.config``.
        problems: the splits of the run.
        models: the student, the teacher and the judges.
        state: D_SFT, D_remain and R_incorrect.
        stage: the current stage.
        student: the student of the last finished fit.
        judged: the paths of the current stage with their verdicts.
        rounds: K, the number of rounds.
        round: the current round, 1 to K; 0 before the first.
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
        self.previous: Student  # before the fit of the current stage
        self.state_stage: Stage | None = None  # the stage that has the files of the state
        self.orm_stages: list[Stage] = []
        self.entries: list[dict[str, Any]] = []  # the stages of summary.json
        if isinstance(models.teacher, StudentTeacher):
            models.teacher.learns_from(lambda: models.open_student(self.student), models.generator)

    @property
    def round_name(self) -> str:
        return name_round(self.round)

    @property
    def fit_stage(self) -> FitStage | None:
        """The section of ``sft`` that applies to the fit of the current stage; None in task=sft."""
        name: Any = "round" if self.stage.name == self.round_name else self.stage.name
        return name if name in get_args(FitStage) else None

    @property
    def update(self) -> Any:
        """The update of the current stage's fit. No student has written a path before distillation, so distillation is
        always SFT."""
        follows = self.config.task == "evolve" and self.stage.name != "distill"
        return self.models.update if follows else SFTUpdate()

    @property
    def teacher_name(self) -> str:
        """The model in the lineage of a teacher's paths. A student that teaches itself is named by its checkpoint."""
        teacher = self.models.teacher
        return self.student.name if isinstance(teacher, StudentTeacher) else teacher.name

    def call(self, hook: str) -> None:
        """Call a hook of all callbacks, in the order of the settings."""
        for callback in self.callbacks:
            getattr(callback, hook)(self)

    def finish(self, summary: dict[str, Any], inputs: Sequence[Path] = ()) -> None:
        """Write the manifest of the current stage, which makes the stage complete, and notify the loggers."""
        self.stage.finish(summary, inputs)
        self.context.loggers.stage_finished(self.stage)

    def load_state(self, stage: Stage) -> None:
        """Read the state from the files of a stage. A new stage is read back too, so that a resumed run and a run
        without interruption hold the same rows."""
        self.state = EvolutionState.load(stage.path, self.state.problems)
        self.state_stage = stage


# --- context ----------------------------------------------------------------------------------------------------------


class RunContext:
    """Settings, run folder, seeds, progress and loggers of a run.

    Args:
        notes: remarks for a reader of the figures; summary.json has them.
    """

    def __init__(
        self, config: TrainConfig, run: RunFolder, progress: Progress, loggers: RunLoggers, notes: Sequence[str] = ()
    ) -> None:
        self.config, self.run, self.progress, self.loggers = config, run, progress, loggers
        self.notes = list(notes)

    def note(self, text: str) -> None:
        """Show a sentence now, and keep it for summary.json."""
        self.progress.say(text)
        self.notes.append(text)

    def derive_seed(self, stage: Stage, *key: object) -> int:
        """Return the random seed of a draw in a stage; ``key`` names the draw."""
        return derive(self.config.seed, stage.name, *key)

    def begin(self, stage: Stage, description: str) -> None:
        """Announce a stage, and begin it unless it is finished."""
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
        """Show a progress bar during a block."""
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
        """Measure the time of a block, and show its progress.

        Args:
            kind: the kind of work in the stage's ledger.
            total: rows of the block.
            unit: the unit of the rows in the estimate of the remaining time. None: ``kind``; "nothing": not counted.
            account: whether the method needs the work, or it only measures.

        Yields:
            The function to call with the number of finished rows.
        """
        with stage.time(kind, account), self.track(description, total) as track:
            if unit == "nothing":
                yield track.advance
            else:
                yield TimedTrack(track, self.progress.outlook, unit or kind).advance

    @contextmanager
    def track_fit(self, stage: Stage, description: str, steps: int) -> Iterator[Track]:
        """Measure the time of a fit, and show its optimiser steps."""
        with stage.time("fit"), self.track(description, steps) as track:
            yield TimedTrack(track, self.progress.outlook, fit_unit(stage.name))

    def _learn_rates(self, stage: FinishedStage) -> None:
        """Give the speed of a finished stage to the estimate of the remaining time."""
        seconds = stage.manifest.get("time_s") or {}
        steps = max((int(line["step"]) for line in stage.curve()), default=0)
        counts: list[tuple[Unit, Work, int]] = [(fit_unit(stage.name), "fit", steps)]
        # Only the summaries of these two stages have the number of answers or verdicts.
        if stage.name == "base":
            counts.append(("sample", "sample", int(stage.summary.get("n") or 0)))
        elif stage.name == "orm":
            counts.append(("judge", "judge", int(stage.summary.get("n") or 0)))
        for unit, kind, count in counts:
            if seconds.get(kind):
                self.progress.outlook.record_time(unit, count, float(seconds[kind]))


class TimedTrack(Track):
    """A progress bar that also counts its rows or steps for the estimate of the remaining time."""

    def __init__(self, track: Track, outlook: Outlook, unit: Unit) -> None:
        self._track, self._outlook, self._unit = track, outlook, unit
        outlook.start_work()

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._outlook.record_work(self._unit, n)
        self._track.advance(n, **info)

    def resume(self, n: int) -> None:
        self._track.resume(n)

    def close(self) -> None:
        self._track.close()
