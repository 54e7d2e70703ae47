"""One fit: a fresh Trainer, resumable from its last checkpoint, ending in a folder that plain transformers opens.

A second ``fit`` on the same Trainer trains no step and reports success, and callbacks keep state between fits; so each
fit builds both anew.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from mathse.backbones.base import Backbone, Row
from mathse.config.schema import Fit
from mathse.config.schema import Trainer as TrainerSettings
from mathse.data.batches import EpochStream, OnceStream, StepData, StepLoader, Stream
from mathse.errors import MathSEError
from mathse.manifest import SCRATCH
from mathse.modules.orm import ORMModule
from mathse.modules.sft import SFTModule
from mathse.store import publish_folder, write_jsonl

LAST = "last.ckpt"


@dataclass(frozen=True)
class FitJob:
    """What to fit: ``rows`` (or another ``stream`` over them), validated on ``val_rows``, in a stage's ``folder``."""

    folder: Path
    rows: Sequence[Row]
    seed: int
    settings: Fit
    trainer: TrainerSettings
    val_rows: Sequence[Row] = ()
    stream: Stream | None = None
    status_tokens: tuple[int, int] | None = None  # an ORM's fit

    @property
    def steps(self) -> int:
        if self.settings.max_steps is not None:
            return self.settings.max_steps
        return max(1, round((self.settings.epochs or 1.0) * len(self.rows) / self.settings.batch_size))

    @property
    def validation_every(self) -> int | None:
        """Steps between validations; None without rows to validate on."""
        return min(self.settings.val_every, self.steps) if self.val_rows[: self.settings.val_rows] else None


def fit(backbone: Backbone, job: FitJob, callbacks: Sequence[pl.Callback] = ()) -> Path:
    """Fit ``backbone.model`` in place and return the folder of the finished checkpoint.

    Where ``job.folder / "checkpoint"`` exists the fit is done and nothing is trained. Without a row it is an error:
    the caller decides what a stage without rows means.
    """
    done = job.folder / "checkpoint"
    if done.exists():
        return done
    if not job.rows:
        raise MathSEError(f"no row to fit on in {job.folder}")
    module = _module(backbone, job)
    scratch = job.folder / SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    last = scratch / LAST
    start = _steps_done(last)
    log = TrainLog(job.folder / "train_log.jsonl", start)
    loader = StepLoader(_data(backbone, job), start, job.trainer.workers)
    trainer = _trainer(job, [log, SaveLast(last, job.trainer.checkpoint_every, job.validation_every), *callbacks])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
            trainer.fit(
                module, loader, _val_loader(backbone, job), ckpt_path=last if start else None, weights_only=True
            )
    except SystemExit as e:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from e
    finally:
        log.close()
    if trainer.global_step != job.steps:
        raise MathSEError(f"the fit in {job.folder} made {trainer.global_step} of {job.steps} steps")
    module.eval()
    return save_checkpoint(backbone, done)


def device_of(settings: TrainerSettings) -> torch.device:
    """Where a model works outside a fit: the GPU of this process, if the trainer uses one."""
    if settings.accelerator == "cpu" or (settings.accelerator == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def save_checkpoint(backbone: Backbone, done: Path) -> Path:
    """Write a stage's checkpoint folder, all of it or nothing."""
    unfinished = done.parent / SCRATCH / "checkpoint"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    backbone.save(unfinished)
    publish_folder(unfinished, done)
    return done


def _module(backbone: Backbone, job: FitJob) -> SFTModule:
    options = {**asdict(job.settings.optimizer), "steps": job.steps, "seed": job.seed}
    if job.status_tokens is None:
        return SFTModule(backbone, **options)
    return ORMModule(backbone, status_tokens=job.status_tokens, **options)


def _data(backbone: Backbone, job: FitJob) -> StepData:
    stream = job.stream or EpochStream(job.rows, job.settings.batch_size, job.seed)
    return StepData(stream, backbone, job.settings.micro_batch_size, job.steps)


def _val_loader(backbone: Backbone, job: FitJob) -> StepLoader | None:
    rows = job.val_rows[: job.settings.val_rows]
    if not rows:
        return None
    size = job.settings.micro_batch_size
    stream = OnceStream(rows, size)
    return StepLoader(StepData(stream, backbone, size, len(stream.batches)), 0, 0)


def _trainer(job: FitJob, callbacks: list[pl.Callback]) -> pl.Trainer:
    settings = job.trainer
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    validation: dict[str, Any] = {"limit_val_batches": 0}
    if job.validation_every is not None:
        validation = {"val_check_interval": job.validation_every, "num_sanity_val_steps": 0}
    return pl.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=settings.strategy,
        precision=settings.precision,  # type: ignore[arg-type]
        max_steps=job.steps,
        max_epochs=-1,
        callbacks=callbacks,
        log_every_n_steps=settings.log_every,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **validation,
    )


def _steps_done(last: Path) -> int:
    if not last.exists():
        return 0
    return int(torch.load(last, map_location="cpu", weights_only=True, mmap=True)["global_step"])


class SaveLast(pl.Callback):
    """Writes the resume point every ``every`` optimiser steps, in one rename.

    Where a validation follows the step, after it: Lightning does not validate again on resume.
    """

    def __init__(self, path: Path, every: int, validation_every: int | None) -> None:
        self.path, self.every, self.validation_every = path, every, validation_every

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.validation_every is None or trainer.global_step % self.validation_every:
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        if trainer.global_step % self.every == 0 and trainer.global_step < trainer.max_steps:
            partial = self.path.with_suffix(".partial")
            trainer.save_checkpoint(partial, weights_only=False)
            os.replace(partial, self.path)


class TrainLog(pl.Callback):
    """``train_log.jsonl``: a line every ``log_every`` steps. A resumed fit drops the lines after its start."""

    def __init__(self, path: Path, start: int) -> None:
        kept = []
        if path.exists() and start:
            lines = path.read_bytes().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a full disk may tear the last one
            kept = [row for row in whole if row["step"] <= start]
        write_jsonl(path, kept)
        self.file = path.open("a")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        step = trainer.global_step
        if step == 1 or step % trainer.log_every_n_steps == 0 or step == trainer.max_steps:  # type: ignore[attr-defined]
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            self._write({"step": step, "loss": round(float(outputs["loss"]), 6), "lr": lr})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self._write({"step": trainer.global_step, **metrics})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
