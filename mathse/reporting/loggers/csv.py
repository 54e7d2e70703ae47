"""``logger=csv``: metrics.csv, a row a finished stage, and fits.csv, a row a logged optimiser step.

Both are written anew from the run folder after each stage, so a resumed run never repeats a row.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mathse.reporting.loggers.figures import STAGE_KEYS, figures
from mathse.runs.ledger import add_costs
from mathse.runs.reader import read_stages
from mathse.runs.stage_cache import RunFolder, Stage

METRICS, FITS = "metrics.csv", "fits.csv"
# First in this order; whatever else the stages report follows.
METRIC_COLUMNS = ("stage", *STAGE_KEYS)
FIT_COLUMNS = ("stage", "step", "loss", "lr", "val_loss")


class CsvLogger:
    """The two tables of a run, in its folder."""

    def __init__(self, *, run: RunFolder, problem_of: object = None, image: object = None) -> None:
        """The last two are what every logger is offered; a table needs neither."""
        self._folder = run.path

    def fit_callback(self, stage: str) -> pl.Callback:
        """One that does nothing: the fit's own train_log.jsonl grows step by step."""
        return pl.Callback()

    def stage_finished(self, stage: Stage) -> None:
        self._write()

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._write()

    def close(self) -> None:
        """Nothing is held back."""

    def _write(self) -> None:
        stages = read_stages(self._folder)
        entries = [add_costs({**s.summary, "stage": s.name}, stages) for s in stages if "accuracy" in s.summary]
        measured = [{"stage": entry["stage"], **figures(entry)} for entry in entries]
        write_csv(self._folder / METRICS, measured, METRIC_COLUMNS)
        # A fit logs the loss of a step and what it validated after it in two lines: here they are one row.
        steps: dict[tuple[str, int], dict[str, Any]] = {}
        for stage in stages:
            for line in sorted(stage.curve(), key=lambda line: line["step"]):
                steps.setdefault((stage.name, line["step"]), {"stage": stage.name}).update(line)
        write_csv(self._folder / FITS, list(steps.values()), FIT_COLUMNS)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write ``rows`` at once, ``columns`` first and other keys after them; what a row lacks stays empty."""
    names = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    os.replace(aside, path)
