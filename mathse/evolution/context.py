"""What every part of a run needs, whatever its problems and models: settings, run folder, seeds, progress, loggers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mathse.config.schema import TrainConfig
from mathse.inference.generate import Advance
from mathse.reporting.loggers import RunLogger
from mathse.reporting.progress import Progress, Track
from mathse.runs.stage_cache import RunFolder, Stage, Work
from mathse.seeds import derive


class RunContext:
    """``notes``: sentences that summary.json has beside the run's figures."""

    def __init__(
        self, config: TrainConfig, run: RunFolder, progress: Progress, logger: RunLogger, notes: Sequence[str] = ()
    ) -> None:
        self.config, self.run, self.progress, self.logger = config, run, progress, logger
        self.notes = list(notes)

    def note(self, text: str) -> None:
        """Show a sentence now, and keep it for the summary."""
        self.progress.say(text)
        self.notes.append(text)

    def seed(self, stage: Stage, *key: object) -> int:
        return derive(self.config.seed, stage.name, *key)

    def begin(self, stage: Stage, description: str) -> None:
        """Announce a stage, and begin it where it is not finished."""
        if stage.done:
            self.progress.say(f"{stage.name}: finished before, kept")
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
    def work(self, stage: Stage, kind: Work, description: str, total: int) -> Iterator[Advance]:
        """Time a block as ``kind`` and show its rows."""
        with stage.time(kind), self.track(description, total) as track:
            yield track.advance
