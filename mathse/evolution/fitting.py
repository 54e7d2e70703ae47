"""One fit in a stage's folder: rows that are too long are listed and left out, steps are shown and logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from mathse.config import build
from mathse.config.evolution import DPOConfig
from mathse.config.fits import FitConfig
from mathse.errors import ConfigError, DataError
from mathse.evolution.context import RunContext
from mathse.models.base import Backbone
from mathse.models.memory import Trained
from mathse.models.row import Row, paths_of
from mathse.reporting.progress import Track
from mathse.reporting.progress.wording import aligned, fit_info
from mathse.runs.layout import TOO_LONG
from mathse.runs.reader import GrowingLog
from mathse.runs.stage_cache import Stage
from mathse.runs.store import write_jsonl
from mathse.training.batches import Stream
from mathse.training.fit import FitJob, fit


class Fitting:
    """The fits of a run. ``make_room`` frees what memory holds of other models before each."""

    def __init__(self, context: RunContext, make_room: Callable[[], None]) -> None:
        self.context, self.make_room = context, make_room
        self._announced: set[str] = set()

    def fit(
        self,
        backbone: Backbone,
        stage: Stage,
        rows: Sequence[Row],
        settings: FitConfig,
        *,
        label: str,
        val_rows: Sequence[Row] = (),
        stream: Callable[[Sequence[Row]], Stream] | None = None,
        status_tokens: tuple[int, int] | None = None,
        kept_in: torch.dtype | None = None,
        dpo: DPOConfig | None = None,
        folder: Path | None = None,
    ) -> None:
        """Fit ``backbone`` on ``rows`` and write the stage's checkpoint.

        Args:
            label: the fit as the progress display has it.
            stream: gives the rows in another order than epochs, or more of them.
            status_tokens: of an ORM, the tokens of CORRECT and WRONG (see mathse/judges/orm.py).
            kept_in: of the checkpoint after a full fit (see FitJob).
            dpo: where the rows are pairs to prefer by.
            folder: where checkpoint and log go, of a fit that comes before the stage's own; None: the stage's.
        """
        context = self.context
        target = folder or stage.path
        target.mkdir(parents=True, exist_ok=True)

        # rows that fit into max_length and the model's context; the others are listed
        limit = min(settings.max_length or backbone.context, backbone.context)  # tokens
        reasons = [next(filter(None, (backbone.too_long(path, limit) for path in paths_of(row))), None) for row in rows]
        numbered = enumerate(zip(rows, reasons, strict=True), 1)
        too_long = [{"row": k, "id": row.get("id"), "reason": why} for k, (row, why) in numbered if why]
        if too_long:
            file = target / TOO_LONG
            write_jsonl(file, too_long)
            if len(too_long) == len(rows):
                raise DataError(f"{file}: every row is too long ({too_long[0]['reason']}); raise max_length")
            context.progress.say(
                f"{stage.name}: {len(too_long)} of {len(rows)} rows are too long, and are left out: {TOO_LONG}"
            )
            rows = [row for row, why in zip(rows, reasons, strict=True) if not why]

        for line in backbone.findings():
            if line not in self._announced:
                self._announced.add(line)
                context.progress.say(line)
        self.make_room()
        job = FitJob(
            target,
            rows,
            context.seed(stage, "fit"),
            settings,
            context.config.trainer,
            val_rows,
            stream(rows) if stream else None,
            status_tokens,
            dpo,
            kept_in,
        )
        with context.fitting(stage, label, job.steps) as track:
            callbacks: list[pl.Callback] = [ShowSteps(track, target)]
            callbacks += [self._built(name, section) for name, section in context.config.lightning_callbacks.items()]
            if folder is None:
                callbacks += context.loggers.fit_callbacks(stage.name)
            fit(backbone, job, callbacks, self._announce, context.progress.say)

    def _built(self, name: str, section: Mapping[str, Any]) -> pl.Callback:
        if not isinstance(callback := build(section), pl.Callback):
            raise ConfigError(
                f"lightning_callbacks.{name}._target_ = {section['_target_']!r}: makes a {type(callback).__name__}; "
                "name a class that extends pytorch_lightning.Callback"
            )
        return callback

    def _announce(self, trained: Trained) -> None:
        """Show what a fit trains and what it leaves frozen, once a run for all fits that are alike in it."""
        parts = "\n".join(f"  {line}" for line in aligned(trained.cells()))
        if parts not in self._announced:
            self._announced.add(parts)
            for line in (str(trained), *parts.splitlines()):
                self.context.progress.say(line)


class ShowSteps(pl.Callback):
    """Optimiser steps on the progress display, with the figures of the log's last lines: these are read in the file, so
    that no GPU is waited for after each step."""

    def __init__(self, track: Track, stage_folder: Path) -> None:
        self.track, self.shown = track, 0
        self.lines = GrowingLog(stage_folder)  # Lightning sets a callback's ``log`` itself

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.shown = trainer.global_step
        if self.shown:
            self.track.resume(self.shown)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        info = fit_info(line for line in self.lines.read() if line["step"] <= trainer.global_step)
        self.track.advance(trainer.global_step - self.shown, **info)
        self.shown = trainer.global_step
