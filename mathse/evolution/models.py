"""The models of a run: the student that samples, the teacher, the judges; which of them are in memory at a time.

One student or the ORM is in memory at a time: whoever opens one frees the other first, and it is opened again when it
is needed. A fit has the memory to itself: the model that sampled or judged is freed, and engines that were started to
serve one are stopped, or sleep. (Only where a student that is its own teacher and the ORM judge the same path do both
stay.)
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
from mathse.config.evolution import DPO
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
from mathse.models.checkpoint import headers, is_packaged, is_published_layout, resolve, stored_dtype
from mathse.models.feature_store import FeatureStore
from mathse.models.flops import forward_flops
from mathse.models.memory import Trained
from mathse.models.model_spec import spec_at
from mathse.models.needs import frozen_parts
from mathse.models.operations import Operations
from mathse.models.placement import META
from mathse.models.precision import precision_of
from mathse.models.row import Row, paths_of
from mathse.reporting.progress import Track
from mathse.reporting.progress.wording import aligned, fit_info
from mathse.runs.layout import CHECKPOINT, TOO_LONG
from mathse.runs.reader import GrowingLog
from mathse.runs.stage_cache import Stage
from mathse.runs.store import write_jsonl
from mathse.scoring.metrics import accepted
from mathse.seeds import derive
from mathse.training.batches import Stream
from mathse.training.fit import FitJob, device_of, dtype_of, fit
from mathse.types import Problem, ReasoningPath, Verdict


@dataclass(frozen=True)
class Student:
    """``carried_on``: the stage had nothing to fit on and took the last student over."""

    stage: Stage
    carried_on: bool = False

    @property
    def checkpoint(self) -> Path:
        return self.stage.path / CHECKPOINT

    @property
    def name(self) -> str:
        """As lineage has it: ``round_01/checkpoint``."""
        return f"{self.stage.name}/{CHECKPOINT}"


class RunModels:
    def __init__(self, context: RunContext, teacher: Teacher, source: Any) -> None:
        self.source = source
        self.context, self.config, self.teacher = context, context.config, teacher
        self.generator = build(self.config.generator)
        self._announced: set[str] = set()
        self._in_memory: tuple[Hashable, Any] | None = None  # a student or the ORM, by what it was opened for
        self._opened_models: WeakSet[Any] = WeakSet()  # of transformers; those that are still in memory
        # None: in this process
        self.served: ServedStudents | None = None
        self.served_orm: ServedORM | None = None
        folder, say = context.run.path, context.progress.say
        for section in (self.config.backbone, self._orm_section):
            path = section.get("path") if isinstance(section, Mapping) else section.path
            if path is not None and is_packaged(path):
                resolve(path)  # the base's checkpoint has links to what was made of it, in a cache that may be cleared
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

    def backbone(self, path: Path | str | None = None, orm: bool = False) -> Backbone:
        """The student's backbone (``orm``: the ORM's) to be fitted, from a checkpoint or from its settings."""
        self.free()
        fit = self.config.orm.fit if orm else self.config.sft
        # a bf16 weight of 1 loses every update below 1/256, and lr is 1e-5; adapters have float32 weights anyway
        return self._open(path, orm, "float32" if fit.method == "full" else "bfloat16")

    def reader(self, path: Path | str, orm: bool = False) -> Backbone:
        """A checkpoint's backbone that samples or judges: on the trainer's device, on a GPU in the fits' precision."""
        trainer = self.config.trainer
        return self._open(path, orm, dtype_of(trainer), device_of(trainer))

    def _open(self, path: Path | str | None, orm: bool, dtype: str, device: torch.device | None = None) -> Backbone:
        section = self._orm_section if orm else self.config.backbone
        settings = section if isinstance(section, Mapping) else vars(section)
        seeded: dict[str, Any] = {}
        if path is None and settings.get("path") is None:  # random weights
            seeded["init_seed"] = derive(self.config.seed, "init", "orm" if orm else "student")
        spec = spec_at(section, path, dtype, **seeded)
        fit, trainer = self.config.orm.fit if orm else self.config.sft, self.config.trainer
        if fit.tower_features:
            store = FeatureStore.of(trainer.tower_features_folder, trainer.tower_features_gb)
            spec = replace(spec, features=store, frozen=frozen_parts(fit))
        backbone = spec.open(device)
        self._opened_models.add(backbone.model)
        return backbone

    def _operations(self, path: Path, orm: bool = False) -> Operations:
        """The operations of a checkpoint's forward pass; no weight is read."""
        return forward_flops(self._open(path, orm, "bfloat16", META))

    def kept_in(self, orm: bool = False) -> torch.dtype | None:
        """What the checkpoint of a full fit is kept in where no later fit starts from it: what the model came in. With
        mixed precision every step computed with weights rounded to bfloat16, so that is the model that was trained;
        None: as it was opened."""
        section = self._orm_section if orm else self.config.backbone
        settings = section if isinstance(section, Mapping) else vars(section)
        if settings.get("path") is None or precision_of(self.config.trainer) == "32-true":
            return None
        return stored_dtype(headers(resolve(settings["path"], settings.get("revision"))))

    def _opened(self, key: Hashable, read: Callable[[], Any]) -> Any:
        """The model of ``key``, once whatever else was in memory is freed."""
        if self._in_memory is None or self._in_memory[0] != key:
            self.free()
            self._in_memory = (key, read())
        return self._in_memory[1]

    def free(self) -> None:
        """Free the student or the ORM in memory, and what a fit has left."""
        self._in_memory = None
        if self._opened_models:  # parts of a model that was sharded refer to each other
            gc.collect()

    def make_room(self) -> None:
        """For a fit: free the model in memory, and what engines that this run started have of it."""
        self.free()
        for served in (self.served, self.served_orm):
            if served is not None:
                served.engine.free()

    def stop_engines(self) -> None:
        """End the engines that this run started."""
        for served in (self.served, self.served_orm):
            if served is not None:
                served.engine.stop()

    # --- students ---

    def of(self, student: Student) -> Writer:
        """The student's model for sampling. It stays in memory until another model is asked for, so a stage loads its
        student once."""
        checkpoint = student.checkpoint
        read: Callable[[], Writer] = partial(self.reader, checkpoint)
        if self.served is not None:
            if is_published_layout(checkpoint):
                raise CheckpointError(
                    f"{checkpoint} refers to weights in the published layout, which engines do not open; start a run "
                    "of its own with this generator, whose base is written in transformers' layout"
                )
            read = partial(
                self.served.of, checkpoint, partial(self.reader, checkpoint), partial(self._operations, checkpoint)
            )
        writer: Writer = self._opened(checkpoint, read)
        return writer

    # --- judges ---

    @property
    def orm_checkpoint(self) -> Path:
        """This run's ORM: ``judge.checkpoint``, else the one that its orm/ stage trained."""
        return Path(self.config.judge.checkpoint or self.context.run.path / "orm" / CHECKPOINT)

    @cached_property
    def orm(self) -> Judge:
        """This run's ORM, in this process or served; asking for the judge opens no weights."""
        checkpoint = self.orm_checkpoint
        read = partial(self.reader, checkpoint, orm=True)
        if self.served_orm is not None:
            return self.served_orm.of(checkpoint, read, partial(self._operations, checkpoint, orm=True))
        open_judge = partial(open_orm, checkpoint, read, self.config.judge.max_new_tokens)
        return ORMOnDemand(lambda: self._opened("orm", open_judge))

    @property
    def orm_explains_all(self) -> bool:
        """Whether the ORM's verdicts hold all that it says of a path; else a status alone, see ``judge.explain``."""
        if self.config.judge.explain == "all" or self.served_orm is not None:
            return True
        form = read_orm(self.orm_checkpoint)
        return form["kind"] == "binary" or form["order"] != "verdict_first"

    def judge(self, chosen: Any, explain: bool = False) -> Judge:
        """The judge that a setting chooses: a name, or settings of its own. ``explain``: whatever ``judge.explain``
        says."""

        def orm() -> Judge:
            orm = self.orm
            return orm if explain or not isinstance(orm, ORMOnDemand) else orm.explaining(lambda: self.orm_explains_all)

        gives = RunGives(orm, self.teacher, self.config.seed, getattr(self.source, "check_steps", None))
        return open_judge(judge_named(chosen, self.config.judge), gives)

    def accepts(self, verdict: Verdict) -> bool:
        return accepted(verdict, self.config.judge.threshold)

    # --- fits ---

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
        kept_in: torch.dtype | None = None,
        dpo: DPO | None = None,
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


class ORMOnDemand:
    """A run's ORM as a judge that holds no model: it is opened when there is something to judge.

    Judges stay with whoever asked for them, over stages that need the device for a student.
    """

    name = ORMJudge.name

    def __init__(self, opened: Callable[[], ORMJudge], explains: Callable[[], bool] = lambda: True) -> None:
        self._opened, self._explains = opened, explains

    def explaining(self, explains: Callable[[], bool]) -> ORMOnDemand:
        """The same, which explains the paths that it calls wrong if ``explains()`` when it judges."""
        return ORMOnDemand(self._opened, explains)

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return self._opened().explaining(self._explains()).judge(problems, paths)

    def judge_all(self, batches: Sequence[Batch], **options: Any) -> Iterator[list[Verdict]]:
        yield from self._opened().explaining(self._explains()).judge_all(batches, **options)


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
