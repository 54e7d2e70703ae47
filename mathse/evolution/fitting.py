"""One fit in a stage's folder: the rows that are short enough, the steps shown and logged."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl

from mathse.config.fits import Fit
from mathse.errors import DataError
from mathse.evolution.context import RunContext
from mathse.models.base import Backbone
from mathse.models.memory import Trained
from mathse.models.row import Row
from mathse.reporting.progress import Track
from mathse.reporting.progress.wording import aligned
from mathse.runs.layout import TOO_LONG
from mathse.runs.stage_cache import Stage
from mathse.runs.store import write_jsonl
from mathse.training.batches import Stream
from mathse.training.fit import FitJob, fit


class Fitting:
    """The fits of a run. ``make_room``: frees what memory holds of other models before one."""

    def __init__(self, context: RunContext, make_room: Callable[[], None]) -> None:
        self.context, self.make_room = context, make_room
        self._announced: set[str] = set()

    def fit(
        self,
        backbone: Backbone,
        stage: Stage,
        rows: Sequence[Row],
        settings: Fit,
        *,
        what: str,
        val_rows: Sequence[Row] = (),
        stream: Callable[[Sequence[Row]], Stream] | None = None,
        status_tokens: tuple[int, int] | None = None,
    ) -> None:
        """``stream``: another order of the rows."""
        rows = self._short_enough(backbone, stage, rows, settings)
        self.make_room()
        context = self.context
        job = FitJob(
            stage.path,
            rows,
            context.seed(stage, "fit"),
            settings,
            context.config.trainer,
            val_rows,
            stream(rows) if stream else None,
            status_tokens,
        )
        with stage.time("fit"), context.track(what, job.steps) as track:
            fit(backbone, job, [Shown(track), context.logger.fit_callback(stage.name)], self._announce)
        gc.collect()  # Trainer and module refer to each other, and hold the fit's rows

    def _short_enough(self, backbone: Backbone, stage: Stage, rows: Sequence[Row], settings: Fit) -> Sequence[Row]:
        """The rows that fit into ``max_length`` and the model's context; ``too_long.jsonl`` lists the others."""
        limit = min(settings.max_length or backbone.context, backbone.context)
        reasons = [backbone.too_long(row, limit) for row in rows]
        numbered = enumerate(zip(rows, reasons, strict=True), 1)
        listed = [{"row": k, "id": row.get("id"), "reason": why} for k, (row, why) in numbered if why]
        if not listed:
            return rows
        file = stage.path / TOO_LONG
        write_jsonl(file, listed)
        if len(listed) == len(rows):
            raise DataError(f"{file}: every row is too long ({listed[0]['reason']}); raise max_length")
        self.context.progress.say(
            f"{stage.name}: {len(listed)} of {len(rows)} rows are too long, and are left out: {TOO_LONG}"
        )
        return [row for row, why in zip(rows, reasons, strict=True) if not why]

    def _announce(self, trained: Trained) -> None:
        """Say what a fit trains and what it leaves frozen, once a run for all fits that are alike in it."""
        parts = "\n".join(f"  {line}" for line in aligned(trained.cells()))
        if parts not in self._announced:
            self._announced.add(parts)
            for line in (str(trained), *parts.splitlines()):
                self.context.progress.say(line)


class Shown(pl.Callback):
    """Optimiser steps on the progress display."""

    def __init__(self, track: Track) -> None:
        self.track, self.done = track, 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.track.advance(trainer.global_step - self.done, loss=round(float(outputs["loss"]), 3))
        self.done = trainer.global_step
