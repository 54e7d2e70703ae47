"""The models of an evaluation, on the trainer's devices: the student, and an ORM that gives rewards or is measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mathse.config import build
from mathse.config.schema import EvaluateConfig, Trainer
from mathse.inference.serving.student import ServedStudent, ServedStudents, VLLMGenerator
from mathse.judges import Judge
from mathse.judges.orm import ORMJudge, open_orm
from mathse.judges.served_orm import ServedORM, ServedORMJudge
from mathse.models import silence_transformers
from mathse.models.base import Backbone
from mathse.models.checkpoint import resolve
from mathse.models.model_spec import make_spec
from mathse.training import ranks
from mathse.training.fit import device_of, dtype_of


def on_devices(trainer: Trainer, work: Callable[[], float | None]) -> float | None:
    """Run ``work()`` on the main rank with the trainer's threads. The other ranks sample and judge for it."""
    silence_transformers()
    torch.set_num_threads(trainer.threads)
    with ranks.join(trainer.accelerator, trainer.devices, trainer.timeout_minutes) as rank:
        if rank.is_main:
            return work()
        rank.follow()
    return None


def student(config: EvaluateConfig) -> Backbone:
    """Open the model of ``checkpoint``; without it the model of ``backbone.path``."""
    return _open(config.backbone, config.checkpoint, config.trainer)


def reward_model(config: EvaluateConfig, served: ServedStudents | None = None) -> Judge:
    """Open the ORM of ``judge.checkpoint``, for P(correct) without explanations.

    Raises CheckpointError if the checkpoint is no ORM.
    """
    section = config.judge.backbone if config.judge.backbone is not None else config.backbone
    path = str(config.judge.checkpoint)
    if served is not None and config.judge.engine == "vllm":
        return served_orm(config, served, path, section)
    return _open_orm(config, section, path, "judge.checkpoint").explaining(False)


def engine_of(config: EvaluateConfig, folder: Path, say: Callable[[str], None]) -> ServedStudents | None:
    """Return the engine of generator=vllm, which starts with the first request; None for other generators."""
    generator = build(config.generator)
    if not isinstance(generator, VLLMGenerator):
        return None
    return ServedStudents(generator, config.backbone, folder, config.trainer, say)


def served_student(config: EvaluateConfig, served: ServedStudents) -> ServedStudent:
    """Return the student in the engine."""
    section = config.backbone
    checkpoint = Path(config.checkpoint) if config.checkpoint else resolve(section.path, section.revision)
    return served.of(checkpoint, partial(_open, section, config.checkpoint, config.trainer))


def served_orm(config: EvaluateConfig, served: ServedStudents, path: str, section: Any) -> ServedORMJudge:
    """Return the ORM at ``path`` in the engine. ``section``: its backbone. Its verdicts have explanations."""
    orm = ServedORM(config.judge, section, served.run, served.engine)
    return orm.of(Path(path), partial(_open, section, path, config.trainer))


def measured_orm(config: EvaluateConfig, served: ServedStudents | None = None) -> Judge:
    """Open the ORM of ``checkpoint``, which benchmark=orm_test measures.

    Raises CheckpointError if the checkpoint is no ORM.
    """
    if served is not None and config.judge.engine == "vllm":
        return served_orm(config, served, str(config.checkpoint), config.backbone)
    return _open_orm(config, config.backbone, str(config.checkpoint), "checkpoint")


def _open_orm(config: EvaluateConfig, section: Any, path: str, key: str) -> ORMJudge:
    return open_orm(Path(path), partial(_open, section, path, config.trainer), config.judge.max_new_tokens, key)


def _open(section: Any, path: str | None, trainer: Trainer) -> Backbone:
    return make_spec(section, path, dtype_of(trainer)).open(device_of(trainer))
