"""Loggers: what a run sends to the outside while it works. Each is a mirror of the run folder, which is the truth.

Every run writes the tables of ``logger=csv``; whatever else is chosen comes on top.

A logger has no state of the run of its own: what a killed process did not send, the next one reads in the run folder.
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
from mathse.reporting.loggers.lightning import NOTE, LightningLogger, is_lightnings
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.types import Problem

__all__ = ["CsvLogger", "LightningLogger", "RunLogger", "RunLoggers", "open_logger"]

Loader = Callable[[str], Image.Image]  # the picture behind an image reference of a problem


class RunLogger(Protocol):
    """``logger=``. Made once a process; a run that is killed and resumed makes it again in the same run folder."""

    def fit_callback(self, stage: str) -> pl.Callback:
        """A fresh Trainer callback for one fit of ``stage``; asked for before the fit opens its train_log.jsonl."""
        ...

    def stage_finished(self, stage: Stage) -> None:
        """The stage's stage.json has been written."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run has ended well; ``summary`` is summary.json's content."""
        ...

    def close(self) -> None:
        """The process is done with the run, well or not. May be called twice."""
        ...


@runtime_checkable
class LeavesWork(Protocol):
    """A logger that leaves something to the user once it is closed."""

    def left_to_do(self) -> str | None:
        """A sentence; None where nothing is left."""
        ...


class RunLoggers:
    """All loggers of a run: the tables, then those of ``settings`` in their order.

    ``problem_of``: the problem with an id; ``image``: the picture behind a reference.
    """

    def __init__(
        self,
        settings: schema.SeveralLoggersConfig,
        *,
        run: RunFolder,
        problem_of: Callable[[str], Problem],
        image: Loader,
    ) -> None:
        self._loggers: list[RunLogger] = [CsvLogger(run=run)]
        with ExitStack() as opened:  # one that cannot be opened closes those before it
            for name, section in settings.loggers.items():
                if not isinstance(section, schema.CsvLoggerConfig):
                    note = NOTE if len(settings.loggers) == 1 else f"logger.{name}.json"
                    logger = open_logger(section, run=run, problem_of=problem_of, image=image, note=note)
                    opened.callback(logger.close)
                    self._loggers.append(logger)
            self._opened = opened.pop_all()

    @classmethod
    def open(cls, section: Any, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader) -> Self:
        """Those of ``logger=``, one or several."""
        several = (
            section
            if isinstance(section, schema.SeveralLoggersConfig)
            else schema.SeveralLoggersConfig(loggers={"only": section})
        )
        return cls(several, run=run, problem_of=problem_of, image=image)

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

    def say_what_is_left(self, say: Callable[[str], None]) -> None:
        """What is left to the user once all are closed, a sentence each."""
        for logger in self._loggers:
            if isinstance(logger, LeavesWork) and (sentence := logger.left_to_do()) is not None:
                say(sentence)


def open_logger(
    section: Any, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader, note: str = NOTE
) -> RunLogger:
    """One logger: ours or of the user's own, or Lightning's behind a bridge, which notes in the file ``note`` what it
    has sent and needs neither ``problem_of`` nor ``image``."""
    if is_lightnings(section):
        return LightningLogger(section, run=run, note=note)
    logger: RunLogger = build(section, run=run, problem_of=problem_of, image=image)
    return logger
