"""What every stage works with: the settings, the problems, the run folder, models and judges on demand."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mathse.config import build
from mathse.config.fits import Fit
from mathse.config.judges import judge_named
from mathse.config.schema import TrainConfig
from mathse.data.problems import FileData
from mathse.data.table import ById, ids_of, without
from mathse.errors import DataError
from mathse.inference.generate import Advance, Writer
from mathse.inference.rows import solve_row
from mathse.inference.serving.student import ServerGenerator
from mathse.judges import Judge
from mathse.judges.opening import RunGives, open_judge
from mathse.judges.orm import ORMJudge, open_orm
from mathse.judges.served import ServedORM, ServedStudents
from mathse.judges.teachers import Teacher
from mathse.models.base import Backbone
from mathse.models.memory import Trained
from mathse.models.model_spec import spec_at
from mathse.models.row import Row
from mathse.reporting.loggers import RunLogger
from mathse.reporting.progress import Progress, Track
from mathse.reporting.progress.wording import aligned
from mathse.runs.layout import CHECKPOINT, TOO_LONG
from mathse.runs.stage_cache import RunFolder, Stage, Work
from mathse.runs.store import write_jsonl
from mathse.scoring.metrics import accepted
from mathse.seeds import derive
from mathse.training.batches import Stream
from mathse.training.fit import FitJob, device_of, dtype_of, fit
from mathse.types import Problem, Verdict


@dataclass(frozen=True)
class Student:
    """The model a stage ended with. ``carried_on``: the stage had nothing to fit on and took the last one over."""

    stage: Stage
    carried_on: bool = False

    @property
    def checkpoint(self) -> Path:
        return self.stage.path / CHECKPOINT


class Lab:
    """Built once a run. Holds at most one student and one ORM in memory at a time."""

    def __init__(
        self, config: TrainConfig, run: RunFolder, source: Any, teacher: Teacher, progress: Progress, logger: RunLogger
    ) -> None:
        self.config, self.run, self.source, self.teacher = config, run, source, teacher
        self.progress, self.logger = progress, logger
        self.generator = build(config.generator)
        self.notes: list[str] = list(source.notes)
        self.left_out: set[str] = set()
        self._announced: set[str] = set()
        self._loaded: tuple[Path, Writer] | None = None
        served, orm_served = isinstance(self.generator, ServerGenerator), config.judge.server is not None
        where = (run.path, progress.say)
        self.served = ServedStudents(self.generator, self._section(), *where) if served else None
        self.served_orm = ServedORM(config.judge, self._section(orm=True), *where) if orm_served else None

    # --- problems ---

    @cached_property
    def splits(self) -> dict[str, Sequence[Problem]]:
        """Of sources that read files, each problem is read when it is asked for."""
        return dict(self.source.splits())

    @cached_property
    def problems(self) -> MutableMapping[str, Problem]:
        if isinstance(self.source, FileData):
            return ById(self.source.table)
        return {p.id: p for problems in self.splits.values() for p in problems}

    def leave_out(self, ids: set[str], but: Sequence[str] = ()) -> None:
        """Take problems out of every split but these; they stay known by id."""
        self.left_out |= ids
        for name, problems in self.splits.items():
            if name not in but:
                self.splits[name] = without(problems, ids)

    @property
    def distillable(self) -> Sequence[Problem]:
        """What task=distill solves."""
        return without(self.source.distillable(), self.left_out)

    def add_problem(self, problem_id: str) -> Problem:
        """A problem of the source, whatever split it is in; it is known here from now on."""
        if problem_id not in self.problems:
            self.problems[problem_id] = self.source.get(problem_id)
        return self.problems[problem_id]

    @property
    def ids_of_d(self) -> list[str]:
        return [*ids_of(self.splits["seed"]), *ids_of(self.splits["pool"])]

    @property
    def test(self) -> Sequence[Problem]:
        return self.splits["test"][: self.config.evaluation.limit]

    # --- models ---

    def backbone(self, path: Path | str | None = None, orm: bool = False) -> Backbone:
        """The student's backbone (``orm``: the ORM's) to be fitted, from a checkpoint or from its settings."""
        fit = self.config.orm.fit if orm else self.config.sft
        # a bf16 weight of 1 loses every update below 1/256, and lr is 1e-5; adapters are float32 of their own
        return self._build(path, orm, "float32" if fit.method == "full" else "bfloat16")

    def reader(self, path: Path | str, orm: bool = False) -> Backbone:
        """A checkpoint's backbone that samples or judges: on the trainer's device, on a GPU in the fits' precision."""
        trainer = self.config.trainer
        return self._build(path, orm, dtype_of(trainer)).to(device_of(trainer))

    def _section(self, orm: bool = False) -> Any:
        return self.config.orm.backbone if orm and self.config.orm.backbone is not None else self.config.backbone

    def _build(self, path: Path | str | None, orm: bool, dtype: str) -> Backbone:
        section = self._section(orm)
        settings = section if isinstance(section, Mapping) else vars(section)
        given: dict[str, Any] = {}
        if path is None and settings.get("path") is None:  # random weights
            given["init_seed"] = derive(self.config.seed, "init", "orm" if orm else "student")
        return spec_at(section, path, dtype, **given).open()

    def model_of(self, student: Student) -> Writer:
        """The student's model for sampling; the last one asked for is kept, so a stage loads it once."""
        checkpoint = student.checkpoint
        if self._loaded is None or self._loaded[0] != checkpoint:
            self._loaded = None  # freed before the next one is read
            read = partial(self.reader, checkpoint)
            self._loaded = (checkpoint, self.served.of(checkpoint, read) if self.served is not None else read())
        return self._loaded[1]

    def orm_judge(self, checkpoint: Path) -> ORMJudge:
        """The judge that an ORM's checkpoint makes."""
        read = partial(self.reader, checkpoint, orm=True)
        return open_orm(checkpoint, read, self.config.judge.max_new_tokens)

    @property
    def orm_checkpoint(self) -> Path:
        """This run's ORM: ``judge.checkpoint``, else the one its orm/ stage trained."""
        return Path(self.config.judge.checkpoint or self.run.path / "orm" / CHECKPOINT)

    @cached_property
    def orm(self) -> Judge:
        checkpoint = self.orm_checkpoint
        if self.served_orm is not None:
            return self.served_orm.of(checkpoint, partial(self.reader, checkpoint, orm=True))
        return self.orm_judge(checkpoint)

    def stop_engines(self) -> None:
        """End what was started to serve a model; it starts again when it is asked."""
        for served in (self.served, self.served_orm):
            if served is not None:
                served.engine.free()

    def judge(self, chosen: Any) -> Judge:
        """The judge that a setting chooses: a name, or settings of its own."""
        gives = RunGives(lambda: self.orm, self.teacher, self.config.seed)
        return open_judge(judge_named(chosen, self.config.judge), gives)

    def accepts(self, verdict: Verdict) -> bool:
        return accepted(verdict, self.config.judge.threshold)

    # --- work ---

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
        """One fit in the stage's folder, its steps shown and logged. ``stream``: another order of the rows."""
        rows = self._short_enough(backbone, stage, rows, settings)
        self._loaded = None  # a fit needs the room
        self.stop_engines()
        job = FitJob(
            stage.path,
            rows,
            self.seed(stage, "fit"),
            settings,
            self.config.trainer,
            val_rows,
            stream(rows) if stream else None,
            status_tokens,
        )
        with stage.time("fit"), self.track(what, job.steps) as track:
            fit(backbone, job, [Shown(track), self.logger.fit_callback(stage.name)], self._announce)
        gc.collect()  # Trainer and module refer to each other, and hold the fit's rows

    def _short_enough(self, backbone: Backbone, stage: Stage, rows: Sequence[Row], settings: Fit) -> Sequence[Row]:
        """The rows that fit into ``max_length`` and the model's context; ``too_long.jsonl`` lists the others."""
        limit = min(settings.max_length or backbone.context, backbone.context)
        reasons = [backbone.too_long(row, limit) for row in rows]
        numbered = enumerate(zip(rows, reasons, strict=True), 1)
        listed = [{"row": k, "id": row.get("id"), "reason": why} for k, (row, why) in numbered if why]
        if not listed:
            return rows
        write_jsonl(stage.path / TOO_LONG, listed)
        if len(listed) == len(rows):
            raise DataError(f"{stage.path / TOO_LONG}: every row is too long ({listed[0]['reason']}); raise max_length")
        self.progress.say(f"{stage.name}: {len(listed)} of {len(rows)} rows are too long, and are left out: {TOO_LONG}")
        return [row for row, why in zip(rows, reasons, strict=True) if not why]

    def _announce(self, trained: Trained) -> None:
        """Say what a fit trains and what it leaves frozen, once a run for all fits that are alike in it."""
        said = "\n".join(f"  {line}" for line in aligned(trained.cells()))
        if said not in self._announced:
            self._announced.add(said)
            for line in (str(trained), *said.splitlines()):
                self.progress.say(line)

    def solution_rows(self, backbone: Backbone, split: str) -> list[Row]:
        """Rows that train on the reference solutions of a split, where it has some."""
        return [solve_row(backbone.prompt_style, p, p.solution) for p in self.splits[split] if p.solution]

    def seed(self, stage: Stage, *key: object) -> int:
        return derive(self.config.seed, stage.name, *key)

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Track]:
        track = self.progress.track(what, total)
        try:
            yield track
        finally:
            track.close()

    @contextmanager
    def work(self, stage: Stage, kind: Work, what: str, total: int) -> Iterator[Advance]:
        """Time a block as ``kind`` and show its rows."""
        with stage.time(kind), self.track(what, total) as track:
            yield track.advance

    def stage_finished(self, stage: Stage) -> None:
        self.logger.stage_finished(stage)


class Shown(pl.Callback):
    """Optimiser steps on the progress display."""

    def __init__(self, track: Track) -> None:
        self.track, self.done = track, 0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.track.advance(trainer.global_step - self.done, loss=round(float(outputs["loss"]), 3))
        self.done = trainer.global_step
