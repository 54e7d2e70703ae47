"""Loggers send a run's figures to tables, TensorBoard, MLflow or W&B. Each is a mirror of the run folder.

Every run writes the tables of ``logger=csv``; the chosen loggers are added to them.

A logger holds no state of the run. The figures that a killed process did not send are read from the run folder by the
next process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol, Self, runtime_checkable

import pytorch_lightning as pl
from PIL import Image

from mathse.config import schema
from mathse.config.parse import build
from mathse.reporting.loggers.csv import CsvLogger
from mathse.reporting.loggers.lightning import NOTE_FILE, LightningLogger, is_lightning_logger
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.types import Problem

__all__ = ["CsvLogger", "LightningLogger", "RunLogger", "RunLoggers", "open_logger"]

Loader = Callable[[str], Image.Image]  # the picture behind an image reference of a problem


class RunLogger(Protocol):
    """The interface of ``logger=``. Each process makes it once; a resumed run makes it again in the same run folder."""

    def fit_callback(self, stage: str) -> pl.Callback:
        """Return a new Trainer callback for a training of ``stage``, before the training opens train_log.jsonl."""
        ...

    def stage_finished(self, stage: Stage) -> None:
        """React to a finished stage. Its stage.json exists."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """React to the successful end of the run. ``summary``: the content of summary.json."""
        ...

    def close(self) -> None:
        """End the logger, after success or failure. A second call does nothing."""
        ...


@runtime_checkable
class LeavesWork(Protocol):
    """A logger that leaves a task to the user once it is closed."""

    def left_to_do(self) -> str | None:
        """Return the task as a sentence; None if there is none."""
        ...


class RunLoggers:
    """All loggers of a run: the tables, then the loggers of ``settings`` in their order.

    Args:
        settings: the chosen loggers by name.
        run: the run folder.
        problem_of: returns the problem with an id.
        image: returns the picture behind an image reference.
    """

    def __init__(
        self,
        settings: schema.SeveralLoggers,
        *,
        run: RunFolder,
        problem_of: Callable[[str], Problem],
        image: Loader,
    ) -> None:
        self._loggers: list[RunLogger] = [CsvLogger(run=run)]
        # If a logger cannot be opened, the stack closes the loggers before it.
        with ExitStack() as opened:
            for name, section in settings.loggers.items():
                if not isinstance(section, schema.CsvLogger):
                    note = NOTE_FILE if len(settings.loggers) == 1 else f"logger.{name}.json"
                    logger = open_logger(section, run=run, problem_of=problem_of, image=image, note=note)
                    opened.callback(logger.close)
                    self._loggers.append(logger)
            self._opened = opened.pop_all()

    @classmethod
    def open(cls, section: Any, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader) -> Self:
        """Open the loggers of ``logger=``: a single logger, or several by name."""
        settings = section
        if not isinstance(section, schema.SeveralLoggers):
            settings = schema.SeveralLoggers(loggers={"only": section})
        return cls(settings, run=run, problem_of=problem_of, image=image)

    def fit_callbacks(self, stage: str) -> list[pl.Callback]:
        return [logger.fit_callback(stage) for logger in self._loggers]

    def stage_finished(self, stage: Stage) -> None:
        for logger in self._loggers:
            logger.stage_finished(stage)

    def finish(self, summary: Mapping[str, Any]) -> None:
        for logger in self._loggers:
            logger.finish(summary)

    def close(self) -> None:
        self._opened.close()

    def say_remaining_tasks(self, say: Callable[[str], None]) -> None:
        """Pass the user's task of each closed logger to ``say``, as a sentence."""
        for logger in self._loggers:
            if isinstance(logger, LeavesWork) and (sentence := logger.left_to_do()) is not None:
                say(sentence)


def open_logger(
    section: Any, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader, note: str = NOTE_FILE
) -> RunLogger:
    """Open a logger: an option of MathSE, the user's class, or a logger of Lightning behind a bridge.

    The bridge records in the file ``note`` which stages it has sent. It needs neither ``problem_of`` nor ``image``.
    """
    if is_lightning_logger(section):
        return LightningLogger(section, run=run, note=note)
    logger: RunLogger = build(section, run=run, problem_of=problem_of, image=image)
    return logger
