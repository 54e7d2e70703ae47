"""Loggers: what a run tells the outside while it works. Each is a mirror of the run folder, which is the truth.

A logger holds nothing back: whatever the kill of a process kept from it, the next process finds in the run folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pytorch_lightning as pl

from mathse.reporting.loggers.table import CsvLogger
from mathse.reporting.loggers.wandb import WandbLogger
from mathse.runs.stage_cache import Stage

__all__ = ["CsvLogger", "RunLogger", "WandbLogger"]


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
