"""What every part of a run needs, whatever its problems and models: settings, run folder, seeds, progress, loggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from mathse.config.schema import TrainConfig
from mathse.inference.generate import Advance
from mathse.reporting.loggers import RunLoggers
from mathse.reporting.progress import Progress, Track
from mathse.reporting.progress.outlook import Outlook, Unit, fit_unit
from mathse.runs.meter import Account
from mathse.runs.reader import FinishedStage, read_stage
from mathse.runs.stage_cache import RunFolder, Stage, Work
from mathse.seeds import derive


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
                self.progress.outlook.record_time(unit, count, float(seconds[kind]))


class TimedTrack(Track):
    """A track whose rows or steps also count for the run's time left."""

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
