"""The models of an evaluation, on the trainer's devices: the student, and the ORM that weighs its answers or is itself
measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mathse.config import build
from mathse.config.schema import EvaluateConfig, TrainerConfig
from mathse.inference.serving.student import ServedStudent, ServedStudents, VLLMGenerator
from mathse.judges import Judge
from mathse.judges.orm import ORMJudge, open_orm
from mathse.judges.served_orm import ServedORM, ServedORMJudge
from mathse.models import quiet
from mathse.models.base import Backbone
from mathse.models.checkpoint import resolve
from mathse.models.model_spec import spec_at
from mathse.training import ranks
from mathse.training.fit import device_of, dtype_of


def on_devices(trainer: TrainerConfig, work: Callable[[], float | None]) -> float | None:
    """``work()`` with the trainer's threads, on the first of its ranks; the others lend it their devices."""
    quiet()
    torch.set_num_threads(trainer.threads)
    with ranks.join(trainer.accelerator, trainer.devices, trainer.timeout_minutes) as rank:
        if rank.is_main:
            return work()
        rank.follow()
    return None


def student(config: EvaluateConfig) -> Backbone:
    """The model of ``checkpoint``, else of ``backbone.path``."""
    return _open(config.backbone, config.checkpoint, config.trainer)


def reward_model(config: EvaluateConfig, served: ServedStudents | None = None) -> Judge:
    """The ORM of ``judge.checkpoint``, which weighs answers, by P(correct) alone.

    Raises CheckpointError where that is no ORM's.
    """
    section = config.judge.backbone if config.judge.backbone is not None else config.backbone
    path = str(config.judge.checkpoint)
    if served is not None and config.judge.engine == "vllm":
        return served_orm(config, served, path, section)
    return _open_orm(config, section, path, "judge.checkpoint").explaining(False)


def engine_of(config: EvaluateConfig, folder: Path, say: Callable[[str], None]) -> ServedStudents | None:
    """The engine of generator=vllm, which starts with the first request; None for other generators."""
    generator = build(config.generator)
    if not isinstance(generator, VLLMGenerator):
        return None
    return ServedStudents(generator, config.backbone, folder, config.trainer, say)


def served_student(config: EvaluateConfig, served: ServedStudents) -> ServedStudent:
    """``student``, in the engine."""
    section = config.backbone
    checkpoint = Path(config.checkpoint) if config.checkpoint else resolve(section.path, section.revision)
    return served.of(checkpoint, partial(_open, section, config.checkpoint, config.trainer))


def served_orm(config: EvaluateConfig, served: ServedStudents, path: str, section: Any) -> ServedORMJudge:
    """The ORM at ``path``, of the backbone that ``section`` sets, in the engine; its verdicts hold all that it says."""
    orm = ServedORM(config.judge, section, served.run, served.engine)
    return orm.of(Path(path), partial(_open, section, path, config.trainer))


def measured_orm(config: EvaluateConfig, served: ServedStudents | None = None) -> Judge:
    """The ORM of ``checkpoint``, which benchmark=orm_test measures. Raises CheckpointError where that is no ORM's."""
    if served is not None and config.judge.engine == "vllm":
        return served_orm(config, served, str(config.checkpoint), config.backbone)
    return _open_orm(config, config.backbone, str(config.checkpoint), "checkpoint")


def _open_orm(config: EvaluateConfig, section: Any, path: str, key: str) -> ORMJudge:
    return open_orm(Path(path), partial(_open, section, path, config.trainer), config.judge.max_new_tokens, key)


def _open(section: Any, path: str | None, trainer: TrainerConfig) -> Backbone:
    return spec_at(section, path, dtype_of(trainer)).open(device_of(trainer))
