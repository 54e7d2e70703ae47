"""The models of a run: the student, the teacher and the judges; which of them are in memory; how they are trained.

Memory holds one student or the ORM. Opening one frees the other, which is opened again when it is needed. A fit has the
memory for itself: the model that sampled or judged is freed, and engines that serve it are stopped or sent to sleep.
(Both stay only if a student that is its own teacher and the ORM judge the same paths.)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytorch_lightning as pl
import torch

from mathse.config import build
from mathse.config.fits import Fit
from mathse.config.judges import judge_named
from mathse.errors import CheckpointError, ConfigError, DataError
from mathse.evolution.evolution_run import RunContext
from mathse.inference.generate import Writer
from mathse.inference.serving.student import ServedStudents, ServingGenerator
from mathse.judges import Batch, Judge
from mathse.judges.opening import RunGives, open_judge
from mathse.judges.orm import ORMJudge, open_orm
from mathse.judges.orm_rows import read_orm
from mathse.judges.served_orm import ServedORM
from mathse.judges.teachers import Teacher
from mathse.models.base import Backbone
from mathse.models.checkpoint import find_stored_dtype, is_packaged, is_published_layout, read_headers, resolve
from mathse.models.feature_store import FeatureStore
from mathse.models.flops import count_forward_flops
from mathse.models.memory import TrainingSummary
from mathse.models.model_spec import make_spec
from mathse.models.needs import find_frozen_parts
from mathse.models.operations import Operations
from mathse.models.placement import META
from mathse.models.precision import choose_precision
from mathse.models.row import Row, list_row_paths
from mathse.reporting.progress import Track
from mathse.reporting.progress.wording import align_columns, fit_info
from mathse.runs.layout import CHECKPOINT, TOO_LONG
from mathse.runs.reader import GrowingLog
from mathse.runs.stage_cache import Stage
from mathse.runs.store import write_jsonl
from mathse.scoring.metrics import accepted
from mathse.seeds import derive
from mathse.training.batches import Stream
from mathse.training.fit import FitJob, device_of, dtype_of, fit
from mathse.training.groups import Sampling
from mathse.training.online import OnlineBatches
from mathse.training.updates.opening import open_update
from mathse.types import Problem, ReasoningPath, Verdict


@dataclass(frozen=True)
class Student:
    """The student at the end of a stage.

    Attributes:
        stage: the stage with the checkpoint.
        carried_on: whether the stage had nothing to train on and reused the last student.
    """

    stage: Stage
    carried_on: bool = False

    @property
    def checkpoint(self) -> Path:
        return self.stage.path / CHECKPOINT

    @property
    def name(self) -> str:
        """The model in lineage, such as "round_01/checkpoint"."""
        return f"{self.stage.name}/{CHECKPOINT}"


class RunModels:
    """Opens, frees and trains the models of a run.

    Args:
        teacher: built by the caller.
        source: the run's data, which may have a step checker.
    """

    def __init__(self, context: RunContext, teacher: Teacher, source: Any) -> None:
        self.source = source
        self.context, self.config, self.teacher = context, context.config, teacher
        self.generator = build(self.config.generator)
        self.update = open_update(self.config.evolution.update)
        self._in_memory: tuple[Hashable, Any] | None = None  # key and model of the student or the ORM
        self._opened_models: WeakSet[Any] = WeakSet()  # transformers models that are still in memory
        self._announced: set[str] = set()  # lines about fits that the progress display has shown
        # Engines of the student and the ORM. None: this process samples and judges.
        self.served: ServedStudents | None = None
        self.served_orm: ServedORM | None = None
        folder, say = context.run.path, context.progress.say
        # A packaged model is unpacked into a cache, which may be cleared between two starts. The checkpoint of the base
        # has links to it.
        for section in (self.config.backbone, self._orm_section):
            path = section.get("path") if isinstance(section, Mapping) else section.path
            if path is not None and is_packaged(path):
                resolve(path)
        if isinstance(self.generator, ServingGenerator):
            self.served = ServedStudents(self.generator, self.config.backbone, folder, self.config.trainer, say)
        if self.config.judge.engine == "vllm" and self.served is not None:
            self.served_orm = ServedORM(self.config.judge, self._orm_section, folder, self.served.engine)
        elif self.config.judge.server is not None:
            self.served_orm = ServedORM.at_server(self.config.judge, self._orm_section, folder, say)

    # --- backbones ---

    @property
    def _orm_section(self) -> Any:
        section = self.config.orm.backbone
        return section if section is not None else self.config.backbone

    def open_for_training(self, path: Path | str | None = None, orm: bool = False) -> Backbone:
        """Open the backbone of the student or the ORM for a fit.

        Args:
            path: a checkpoint. None: the weights that the settings name.
            orm: the ORM instead of the student.
        """
        self.free()
        method = (self.config.orm.fit if orm else self.config.sft).method
        # Full fits need float32: a bfloat16 weight of 1 loses each update below 1/256, and lr is 1e-5. Adapters have
        # float32 weights beside the bfloat16 weights of the model.
        return self._open(path, orm, "float32" if method == "full" else "bfloat16")

    def open_for_inference(self, path: Path | str, orm: bool = False) -> Backbone:
        """Open a checkpoint that samples or judges: on the trainer's device, on a GPU in the precision of the fits."""
        trainer = self.config.trainer
        return self._open(path, orm, dtype_of(trainer), device_of(trainer))

    def _open(self, path: Path | str | None, orm: bool, dtype: str, device: torch.device | None = None) -> Backbone:
        section = self._orm_section if orm else self.config.backbone
        settings = section if isinstance(section, Mapping) else vars(section)
        seeded: dict[str, Any] = {}
        if path is None and settings.get("path") is None:  # random weights
            seeded["init_seed"] = derive(self.config.seed, "init", "orm" if orm else "student")
        spec = make_spec(section, path, dtype, **seeded)
        fit_settings, trainer = self.config.orm.fit if orm else self.config.sft, self.config.trainer
        if fit_settings.tower_features:
            store = FeatureStore.of(trainer.tower_features_folder, trainer.tower_features_gb)
            spec = replace(spec, features=store, frozen=find_frozen_parts(fit_settings))
        backbone = spec.open(device)
        self._opened_models.add(backbone.model)
        return backbone

    def _count_operations(self, path: Path, orm: bool = False) -> Operations:
        """Return the operations of a forward pass. The model is opened without its weights."""
        return count_forward_flops(self._open(path, orm, "bfloat16", META))

    def find_stored_dtype(self, orm: bool = False) -> torch.dtype | None:
        """Return the dtype of the model's published weights: the checkpoint of a full fit is stored in it if no later
        fit starts from it.

        In mixed precision every step computes with weights rounded to bfloat16, so the rounded weights are the trained
        model. None: the checkpoint keeps float32.
        """
        section = self._orm_section if orm else self.config.backbone
        settings = section if isinstance(section, Mapping) else vars(section)
        if settings.get("path") is None or choose_precision(self.config.trainer) == "32-true":
            return None
        return find_stored_dtype(read_headers(resolve(settings["path"], settings.get("revision"))))

    # --- memory ---

    def _load(self, key: Hashable, read: Callable[[], Any]) -> Any:
        """Return the model of ``key``. If it is not in memory, free the model that is, and read it."""
        if self._in_memory is None or self._in_memory[0] != key:
            self.free()
            self._in_memory = (key, read())
        return self._in_memory[1]

    def free(self) -> None:
        """Free the student or the ORM in memory, and the remains of a fit."""
        self._in_memory = None
        if self._opened_models:  # parts of a sharded model refer to each other
            gc.collect()

    def _make_room(self) -> None:
        """Free the model in memory, and the memory of the engines that this run started."""
        self.free()
        for served in (self.served, self.served_orm):
            if served is not None:
                served.engine.free()

    def stop_engines(self) -> None:
        """Stop the engines that this run started."""
        for served in (self.served, self.served_orm):
            if served is not None:
                served.engine.stop()

    # --- students ---

    def open_student(self, student: Student) -> Writer:
        """Return the student's model for sampling. It stays in memory until another model is opened, so a stage loads
        its student once."""
        checkpoint = student.checkpoint
        read: Callable[[], Writer] = partial(self.open_for_inference, checkpoint)
        if self.served is not None:
            if is_published_layout(checkpoint):
                raise CheckpointError(
                    f"{checkpoint} refers to weights in the published layout, which engines do not open; start a run "
                    "of its own with this generator, whose base is written in transformers' layout"
                )
            read = partial(
                self.served.of,
                checkpoint,
                partial(self.open_for_inference, checkpoint),
                partial(self._count_operations, checkpoint),
            )
        writer: Writer = self._load(checkpoint, read)
        return writer

    # --- judges ---

    @property
    def orm_checkpoint(self) -> Path:
        """The checkpoint of the ORM: ``judge.checkpoint``, or the checkpoint of the stage orm/."""
        return Path(self.config.judge.checkpoint or self.context.run.path / "orm" / CHECKPOINT)

    @cached_property
    def orm(self) -> Judge:
        """The ORM, in this process or served. The property opens no weights; a call of the judge does."""
        checkpoint = self.orm_checkpoint
        read = partial(self.open_for_inference, checkpoint, orm=True)
        if self.served_orm is not None:
            return self.served_orm.of(checkpoint, read, partial(self._count_operations, checkpoint, orm=True))
        read_judge = partial(open_orm, checkpoint, read, self.config.judge.max_new_tokens)
        return ORMOnDemand(lambda: self._load("orm", read_judge))

    @property
    def orm_explains_all(self) -> bool:
        """Whether the ORM's verdicts have the wrong step and the analysis, and not only the status (``judge.explain``).
        A binary ORM and an ORM that analyses first have no shorter form."""
        if self.config.judge.explain == "all" or self.served_orm is not None:
            return True
        form = read_orm(self.orm_checkpoint)
        return form["kind"] == "binary" or form["order"] != "verdict_first"

    def judge(self, chosen: Any, explain: bool = False) -> Judge:
        """Open a judge.

        Args:
            chosen: the judge's name or settings.
            explain: request explained verdicts of the ORM, for every ``judge.explain``.
        """

        def open_run_orm() -> Judge:
            orm = self.orm
            return orm if explain or not isinstance(orm, ORMOnDemand) else orm.explaining(lambda: self.orm_explains_all)

        gives = RunGives(open_run_orm, self.teacher, self.config.seed, getattr(self.source, "check_steps", None))
        return open_judge(judge_named(chosen, self.config.judge), gives)

    def accepts(self, verdict: Verdict) -> bool:
        return accepted(verdict, self.config.judge.threshold)

    # --- fits ---

    def describe_sampling(self) -> Sampling | None:
        """Return how the run's generator samples; None for a generator of the user's own without these settings."""
        generator = self.config.generator
        settings = generator if isinstance(generator, Mapping) else vars(generator)
        if not {"temperature", "max_new_tokens"} <= settings.keys():
            return None
        return Sampling(settings["temperature"], settings["max_new_tokens"])

    def fit(
        self,
        backbone: Backbone,
        stage: Stage,
        rows: Sequence[Row],
        settings: Fit,
        *,
        label: str,
        val_rows: Sequence[Row] = (),
        stream: Callable[[Sequence[Row]], Stream] | None = None,
        status_tokens: tuple[int, int] | None = None,
        checkpoint_dtype: torch.dtype | None = None,
        update: Any = None,
        online: OnlineBatches | None = None,
        folder: Path | None = None,
    ) -> None:
        """Train ``backbone`` on ``rows``, and write the stage's checkpoint. Rows that are too long are listed and left
        out. The progress display shows the steps.

        Args:
            label: the fit's name on the progress display.
            val_rows: rows of the validations.
            stream: makes batches from the rows. None: epochs.
            status_tokens: of an ORM, the tokens of CORRECT and WRONG (see mathse/judges/orm.py).
            checkpoint_dtype: dtype of the checkpoint after a full fit. None: the dtype of the training.
            update: of a loss other than the cross-entropy. None: SFT.
            online: samples the rows of each step; ``rows`` are the prompts.
            folder: folder of checkpoint and log, if a second fit of the stage follows. None: the stage's folder.

        Raises:
            DataError: every row is too long.
        """
        context = self.context
        target = folder or stage.path
        target.mkdir(parents=True, exist_ok=True)

        # 1) List the rows that exceed max_length or the model's context. A row may have two paths (DPO).
        limit = min(settings.max_length or backbone.context, backbone.context)  # tokens
        kept, too_long = [], []
        for number, row in enumerate(rows, 1):
            reasons = (backbone.too_long(path, limit) for path in list_row_paths(row))
            reason = next((reason for reason in reasons if reason), None)
            if reason is None:
                kept.append(row)
            else:
                too_long.append({"row": number, "id": row.get("id"), "reason": reason})
        if too_long:
            file = target / TOO_LONG
            write_jsonl(file, too_long)
            if not kept:
                raise DataError(f"{file}: every row is too long ({too_long[0]['reason']}); raise max_length")
            context.progress.say(
                f"{stage.name}: {len(too_long)} of {len(rows)} rows are too long, and are left out: {TOO_LONG}"
            )
            rows = kept

        # 2) Show the remarks of the backbone, once per run.
        for line in backbone.findings():
            if line not in self._announced:
                self._announced.add(line)
                context.progress.say(line)

        # 3) Train. Lightning's callbacks are new in each fit; loggers follow the last fit of a stage.
        self._make_room()
        job = FitJob(
            target,
            rows,
            context.derive_seed(stage, "fit"),
            settings,
            context.config.trainer,
            val_rows,
            stream(rows) if stream else None,
            status_tokens,
            update,
            self.describe_sampling(),
            checkpoint_dtype,
            online=online,
        )
        with context.track_fit(stage, label, job.steps) as track:
            callbacks: list[pl.Callback] = [ShowSteps(track, target)]
            for name, section in context.config.lightning_callbacks.items():
                callback = build(section)
                if not isinstance(callback, pl.Callback):
                    raise ConfigError(
                        f"lightning_callbacks.{name}._target_ = {section['_target_']!r}: makes a "
                        f"{type(callback).__name__}; name a class that extends pytorch_lightning.Callback"
                    )
                callbacks.append(callback)
            if folder is None:
                callbacks += context.loggers.fit_callbacks(stage.name)
            fit(backbone, job, callbacks, self._announce, context.progress.say)

    def _announce(self, trained: TrainingSummary) -> None:
        """Show the trained and the frozen parts of a model, once for all fits with the same parts."""
        parts = "\n".join(f"  {line}" for line in align_columns(trained.cells()))
        if parts not in self._announced:
            self._announced.add(parts)
            for line in (str(trained), *parts.splitlines()):
                self.context.progress.say(line)


class ORMOnDemand:
    """A run's ORM as a judge without a model: the model is opened when there is a path to judge.

    A caller may keep this judge over stages that need the device for a student.
    """

    name = ORMJudge.name

    def __init__(self, open_judge: Callable[[], ORMJudge], explains: Callable[[], bool] = lambda: True) -> None:
        self._open_judge, self._explains = open_judge, explains

    def explaining(self, explains: Callable[[], bool]) -> ORMOnDemand:
        """Return the same judge, which explains its verdicts if ``explains()`` is true when it judges."""
        return ORMOnDemand(self._open_judge, explains)

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return self._open_judge().explaining(self._explains()).judge(problems, paths)

    def judge_all(self, batches: Sequence[Batch], **options: Any) -> Iterator[list[Verdict]]:
        yield from self._open_judge().explaining(self._explains()).judge_all(batches, **options)


class ShowSteps(pl.Callback):
    """Shows the optimiser steps of a fit with the figures of the log's last lines. The figures are read from the file,
    so that no step waits for the GPU."""

    def __init__(self, track: Track, stage_folder: Path) -> None:
        self.track, self.shown = track, 0
        self.lines = GrowingLog(stage_folder)  # Lightning sets the attribute ``log`` of a callback

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.shown = trainer.global_step
        if self.shown:
            self.track.resume(self.shown)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        info = fit_info(line for line in self.lines.read() if line["step"] <= trainer.global_step)
        self.track.advance(trainer.global_step - self.shown, **info)
        self.shown = trainer.global_step
