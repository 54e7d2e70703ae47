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
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from mathse.config.fits import Fit
from mathse.config.schema import Trainer as TrainerSettings
from mathse.errors import MathSEError
from mathse.models import memory, modes
from mathse.models.base import Backbone
from mathse.models.model_spec import ModelSpec, close_shared, spec_of
from mathse.models.row import Row
from mathse.runs.layout import CHECKPOINT, SCRATCH, TRAIN_LOG, TRAINED
from mathse.runs.store import publish_folder, write_json, write_jsonl
from mathse.seeds import derive
from mathse.training import ranks, strategies
from mathse.training.batches import EpochStream, OnceStream, StepData, StepLoader, Stream, length
from mathse.training.divergence import Divergence
from mathse.training.orm import ORMModule
from mathse.training.sft import SFTModule
from mathse.training.watch import Watch, is_logged

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
        return self.settings.steps(len(self.rows))

    @property
    def validation_every(self) -> int | None:
        """Steps between validations; None without rows to validate on."""
        return min(self.settings.val_every, self.steps) if self.val_rows[: self.settings.val_rows] else None


def fit(
    backbone: Backbone,
    job: FitJob,
    callbacks: Sequence[pl.Callback] = (),
    announce: Callable[[memory.Trained], None] | None = None,
) -> Path:
    """Fit ``backbone.model`` in place and return the folder of the finished checkpoint.

    Where ``job.folder / "checkpoint"`` exists the fit is done and nothing is trained. Without a row it is an error:
    the caller decides what a stage without rows means. ``announce`` is called with what will train, before the first
    step.
    """
    done = job.folder / CHECKPOINT
    if done.exists():
        return done
    if not job.rows:
        raise MathSEError(f"no row to fit on in {job.folder}")
    last = job.folder / SCRATCH / LAST
    last.parent.mkdir(parents=True, exist_ok=True)
    before = _prepare(backbone, job)

    # What trains, what is frozen, and the memory it is expected to take.
    settings = job.settings
    estimated = memory.estimate(
        backbone,
        backbone.encode([max(job.rows, key=length)])[0],
        settings.micro_batch_size,
        job.trainer.precision,
        settings.activation_checkpointing,
        shards=job.trainer.devices if job.trainer.strategy == "fsdp2" else 1,
    )
    parts = memory.part_rows(backbone, settings.optimizer.lr, settings.vision_lr_scale)
    trained = memory.Trained(settings.method, parts, estimated)
    write_json(job.folder / TRAINED, trained.to_json())
    if announce is not None:
        announce(trained)

    # The steps, from the last resume point on, on all ranks.
    start = 0
    if last.exists():
        start = int(torch.load(last, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    log = TrainLog(job.folder / TRAIN_LOG, start)
    try:
        with closing(log):
            lead = partial(_train, backbone, job, start, log, callbacks)
            ranks.everywhere(lead, _train_along, spec_of(backbone), job, start)
    except SystemExit as e:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from e
    return save_checkpoint(backbone, done, lambda folder: modes.finish(backbone, settings, before, folder, done))


def _prepare(backbone: Backbone, job: FitJob) -> modes.State:
    return modes.prepare(backbone, job.settings, job.trainer.precision, derive(job.seed, "adapter") % 2**63)


def _train_along(spec: ModelSpec, job: FitJob, start: int) -> None:
    """The fit on a rank other than 0, which opens the model itself."""
    close_shared()
    backbone = spec.open()
    _prepare(backbone, job)
    _train(backbone, job, start)


def _train(
    backbone: Backbone, job: FitJob, start: int, log: TrainLog | None = None, callbacks: Sequence[pl.Callback] = ()
) -> None:
    """The steps of a fit from ``start`` on, on each of its ranks; rank 0 has the log and the callbacks."""
    settings, hardware = job.settings, job.trainer
    micro = settings.micro_batch_size
    options = {**asdict(settings.optimizer), "vision_lr_scale": settings.vision_lr_scale}
    options |= {"steps": job.steps, "seed": job.seed}
    if job.status_tokens is None:
        module = SFTModule(backbone, **options)
    else:
        module = ORMModule(backbone, status_tokens=job.status_tokens, **options)

    # Ranks see their share of each step's rows, in training and in validation.
    stream = job.stream or EpochStream(job.rows, settings.batch_size, job.seed)
    data = StepData(stream, backbone, micro, job.steps, ranks.rank(), ranks.size())
    watch = Watch(
        backbone,
        StepLoader(data, start, hardware.workers),
        divergence=Divergence(hardware.max_grad_norm_ratio, settings.optimizer.clip),
        advice=_advice(job),
        start=start,
    )
    val_loader = None
    validation: dict[str, Any] = {"limit_val_batches": 0}
    if job.validation_every is not None:
        val_stream = OnceStream(job.val_rows[: settings.val_rows], micro * ranks.size())
        val_data = StepData(val_stream, backbone, micro, len(val_stream.batches), ranks.rank(), ranks.size())
        val_loader = StepLoader(val_data, 0, 0)
        validation = {"val_check_interval": job.validation_every, "num_sanity_val_steps": 0}

    # Progress bars, checkpoints and logs of Lightning are off: ours write what a stage records.
    last = job.folder / SCRATCH / LAST
    ours: list[pl.Callback] = [watch]
    if log is not None:
        log.watch = watch
        ours.append(log)
    if strategies.keeps_resume_points(hardware):
        ours.append(SaveLast(last, hardware.checkpoint_every, job.validation_every))
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = pl.Trainer(
        **strategies.among_ranks(hardware, settings.optimizer.clip),
        # with bf16-true the weights are bfloat16 already: Lightning would round the rotary frequencies too
        precision="32-true" if hardware.precision == "bf16-true" else hardware.precision,
        max_steps=job.steps,
        max_epochs=-1,
        callbacks=[*ours, *callbacks],
        log_every_n_steps=hardware.log_every,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **validation,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
        trainer.fit(module, watch.loader, val_loader, ckpt_path=last if start else None, weights_only=True)
    if trainer.global_step != job.steps:
        raise MathSEError(f"the fit in {job.folder} made {trainer.global_step} of {job.steps} steps")
    module.eval()
    strategies.gather(module)


def _advice(job: FitJob) -> str:
    """What to try where the fit diverges. Another rate begins the fit anew; what only says when to stop does not."""
    section = "sft" if job.status_tokens is None else "orm.fit"
    optimizer, precision = job.settings.optimizer, job.trainer.precision
    remedies = [f"{section}.optimizer.lr below {optimizer.lr:g}", f"{section}.optimizer.clip below {optimizer.clip:g}"]
    if precision != "32-true":
        remedies.append(f"trainer.precision={'bf16-mixed' if precision == 'bf16-true' else '32-true'}")
    return (
        f"pass resume=branch and {', or '.join(remedies)}, or, to go on as it is, a higher trainer.max_grad_norm_ratio"
    )


def save_checkpoint(backbone: Backbone, done: Path, finish: Callable[[Path], object] = lambda folder: None) -> Path:
    """Write a stage's checkpoint folder, all of it or nothing. ``finish(folder)`` is called first, to write more."""
    unfinished = done.parent / SCRATCH / CHECKPOINT
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    finish(unfinished)
    backbone.save(unfinished)
    publish_folder(unfinished, done)
    return done


def device_of(settings: TrainerSettings) -> torch.device:
    """Where a model works outside a fit: the GPU of this process, if the trainer uses one."""
    return ranks.device(settings.accelerator)


def dtype_of(settings: TrainerSettings) -> str:
    """The numbers of a model that works outside a fit: on a GPU the fits' precision."""
    half = device_of(settings).type != "cpu" and settings.precision.startswith("bf16")
    return "bfloat16" if half else "float32"


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
            unfinished = self.path.with_suffix(".partial")
            trainer.save_checkpoint(unfinished, weights_only=False)  # rank 0 writes, and the others wait for it
            if trainer.is_global_zero:
                os.replace(unfinished, self.path)


class TrainLog(pl.Callback):
    """``train_log.jsonl``: a line every ``log_every`` steps, with the figures of ``watch``. A resumed fit drops the
    lines after its start."""

    watch: Watch | None = None

    def __init__(self, path: Path, start: int) -> None:
        rows = []
        if path.exists() and start:
            lines = path.read_bytes().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith(b"\n")]  # a full disk may tear the last one
            rows = [row for row in whole if row["step"] <= start]
        write_jsonl(path, rows)
        self.file = path.open("a")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        if is_logged(trainer):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            loss = round(float(outputs["loss"]), 6)
            figures = self.watch.figures if self.watch is not None else {}
            self._write({"step": trainer.global_step, "loss": loss, "lr": lr, **figures})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self._write({"step": trainer.global_step, **metrics})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
