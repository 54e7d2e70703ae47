"""What a run is about, whatever its problems and models are: settings, run folder, seeds, and what it says and logs."""

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
    """``notes``: what summary.json says of the run beside its figures."""

    def __init__(
        self, config: TrainConfig, run: RunFolder, progress: Progress, logger: RunLogger, notes: Sequence[str] = ()
    ) -> None:
        self.config, self.run, self.progress, self.logger = config, run, progress, logger
        self.notes = list(notes)

    def note(self, text: str) -> None:
        """Say it now, and in the summary."""
        self.progress.say(text)
        self.notes.append(text)

    def seed(self, stage: Stage, *key: object) -> int:
        return derive(self.config.seed, stage.name, *key)

    def begin(self, stage: Stage, what: str) -> None:
        """Announce a stage, and begin it where it is not finished."""
        if stage.done:
            self.progress.say(f"{stage.name}: finished before, kept")
        else:
            self.progress.stage(stage.name, what)
            stage.begin()

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Track]:
        track = self.progress.track(what, total)
        try:
            yield track
        finally:
            track.close()

    @contextmanager
    def work(self, stage: Stage, kind: Work, what: str, total: int) -> Iterator[Advance]:
        """Time a block as ``kind`` and show its rows."""
        with stage.time(kind), self.track(what, total) as track:
            yield track.advance
