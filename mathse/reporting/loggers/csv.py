"""``logger=csv``: metrics.csv has a row for each finished stage, fits.csv a row for each logged optimiser step.

Both files are rewritten from the run folder after each stage, so a resumed run never repeats a row.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mathse.reporting.loggers.figures import STAGE_KEYS, figures
from mathse.runs.ledger import add_costs
from mathse.runs.reader import read_stages
from mathse.runs.stage_cache import RunFolder, Stage


class CsvLogger:
    """Writes the two tables into the run folder."""

    def __init__(self, *, run: RunFolder, problem_of: object = None, image: object = None) -> None:
        """``problem_of`` and ``image`` are arguments of every logger; a table needs neither."""
        self._folder = run.path

    def fit_callback(self, stage: str) -> pl.Callback:
        """Return a callback that does nothing: the training writes its train_log.jsonl itself."""
        return pl.Callback()

    def stage_finished(self, stage: Stage) -> None:
        self._write()

    def finish(self, summary: Mapping[str, Any]) -> None:
        self._write()

    def close(self) -> None:
        """Do nothing: each stage's rows are written when the stage ends."""

    def _write(self) -> None:
        stages = read_stages(self._folder)
        scored = []
        for stage in stages:
            if "accuracy" in stage.summary:
                entry = add_costs({**stage.summary, "stage": stage.name}, stages)
                scored.append({"stage": stage.name, **figures(entry)})
        write_csv(self._folder / "metrics.csv", scored, ("stage", *STAGE_KEYS))

        # A training logs the loss of a step and the validation after it in two lines: here they are one row.
        steps: dict[tuple[str, int], dict[str, Any]] = {}
        for stage in stages:
            for line in sorted(stage.curve(), key=lambda line: line["step"]):
                steps.setdefault((stage.name, line["step"]), {"stage": stage.name}).update(line)
        write_csv(self._folder / "fits.csv", list(steps.values()), ("stage", "step", "loss", "lr", "val_loss"))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write ``rows`` at once. ``columns`` come first, other keys after them; a missing value is an empty cell."""
    names = list(dict.fromkeys(chain(columns, chain.from_iterable(rows))))
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    os.replace(aside, path)
