"""Loggers: what a run sends to the outside while it works. Each is a mirror of the run folder, which is the truth.

A logger has no state of the run of its own: what a killed process did not send, the next one reads in the run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pytorch_lightning as pl

from mathse.config.parse import build
from mathse.reporting.loggers.csv import CsvLogger
from mathse.reporting.loggers.lightning import LightningLogger, is_lightnings
from mathse.reporting.loggers.sample_table import Loader
from mathse.reporting.loggers.wandb import WandbLogger
from mathse.runs.stage_cache import RunFolder, Stage
from mathse.types import Problem

__all__ = ["CsvLogger", "LightningLogger", "RunLogger", "WandbLogger", "open_logger"]


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


def open_logger(section: Any, *, run: RunFolder, problem_of: Callable[[str], Problem], image: Loader) -> RunLogger:
    """The logger of ``logger=``: one of ours or of the user's own, or Lightning's behind a bridge.

    ``problem_of``: the problem with an id; ``image``: the picture behind a reference. A Lightning logger needs neither.
    """
    if is_lightnings(section):
        return LightningLogger(section, run=run)
    logger: RunLogger = build(section, run=run, problem_of=problem_of, image=image)
    return logger
