"""The models of a run: the student that samples, the teacher, the judges; which of them are in memory at a time.

One student or the ORM is in memory at a time: whoever opens one frees the other first, and it is opened again when it
is needed. A fit has the memory to itself: the model that sampled or judged is freed, and engines that were started to
serve one are stopped, or sleep. (Only where a student that is its own teacher and the ORM judge the same path do both
stay.)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch

from mathse.config import build
from mathse.config.judges import judge_named
from mathse.errors import CheckpointError
from mathse.evolution.context import RunContext
from mathse.evolution.fitting import Fitting
from mathse.evolution.student import Student
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
from mathse.models.model_spec import make_spec
from mathse.models.needs import find_frozen_parts
from mathse.models.operations import Operations
from mathse.models.placement import META
from mathse.models.precision import choose_precision
from mathse.runs.layout import CHECKPOINT
from mathse.scoring.metrics import accepted
from mathse.seeds import derive
from mathse.training.fit import device_of, dtype_of
from mathse.types import Problem, ReasoningPath, Verdict


class RunModels:
    def __init__(self, context: RunContext, teacher: Teacher, source: Any) -> None:
        self.source = source
        self.context, self.config, self.teacher = context, context.config, teacher
        self.generator = build(self.config.generator)
        self.fit = Fitting(context, self.make_room).fit
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
        spec = make_spec(section, path, dtype, **seeded)
        fit, trainer = self.config.orm.fit if orm else self.config.sft, self.config.trainer
        if fit.tower_features:
            store = FeatureStore.of(trainer.tower_features_folder, trainer.tower_features_gb)
            spec = replace(spec, features=store, frozen=find_frozen_parts(fit))
        backbone = spec.open(device)
        self._opened_models.add(backbone.model)
        return backbone

    def _operations(self, path: Path, orm: bool = False) -> Operations:
        """The operations of a checkpoint's forward pass; no weight is read."""
        return count_forward_flops(self._open(path, orm, "bfloat16", META))

    def kept_in(self, orm: bool = False) -> torch.dtype | None:
        """What the checkpoint of a full fit is kept in where no later fit starts from it: what the model came in. With
        mixed precision every step computed with weights rounded to bfloat16, so that is the model that was trained;
        None: as it was opened."""
        section = self._orm_section if orm else self.config.backbone
        settings = section if isinstance(section, Mapping) else vars(section)
        if settings.get("path") is None or choose_precision(self.config.trainer) == "32-true":
            return None
        return find_stored_dtype(read_headers(resolve(settings["path"], settings.get("revision"))))

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
