"""Which settings decide what a stage makes. A key stands for the setting and for all below it; a change to one of them
makes the stage another stage. What is left out changes no byte of the result: where a server is, what it may cost.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from mathse.config import flatten
from mathse.config.actors import (
    HOW_IT_IS_REACHED,
    HOW_STUDENTS_ARE_REACHED,
    OpenAITeacher,
    ServerGenerator,
    StudentTeacher,
)
from mathse.config.judges import Judge, judge_named, own_settings
from mathse.config.schema import TrainConfig

COMMON = ("seed", "backbone", "data", "trainer.precision", "trainer.accelerator", "trainer.devices", "trainer.strategy")
JUDGING = ("judge.checkpoint", "judge.threshold", "judge.batch_size", "judge.max_new_tokens")


def recorded_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings by dotted key, in the form in which stage identities hold them.

    The first runs had one ``judge`` section of 16 settings for whoever judged. Identities keep its keys: a judge's
    ``name`` stands for its class, ``judge.checkpoint``, ``threshold``, ``batch_size`` and ``max_new_tokens`` count for
    every judge (``JUDGING``), and a judge that ``distill.judge`` names has its own settings, ``rate`` say, under
    ``judge`` too. A setting that a judge got later is in ``LATER`` (mathse/runs/manifest.py).
    """
    named = config.distill.judge
    judge = judge_named(named, config.judge)
    shared = {} if isinstance(named, Judge) else {f"judge.{name}": getattr(judge, name) for name in own_settings(judge)}
    return shared | flatten(config)


def sampling_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what a student writes; where it is served does not."""
    if not isinstance(config.generator, ServerGenerator):
        return ("generator",)
    return tuple(f"generator.{f.name}" for f in fields(ServerGenerator) if f.name not in HOW_STUDENTS_ARE_REACHED)


def fitting_keys(config: TrainConfig) -> tuple[str, ...]:
    return (*COMMON, "sft", "evaluation", *sampling_keys(config))


def judging_keys(config: TrainConfig, path: str) -> tuple[str, ...]:
    """The settings that decide what the judge at ``path`` says: ``judge`` or ``distill.judge``, a name or a section."""
    chosen = config.judge if path == "judge" else config.distill.judge
    judge = judge_named(chosen, config.judge)
    chosen_by, section = (f"{path}.name", path) if isinstance(chosen, Judge) else (path, "judge")
    own = (f"{section}.{name}" for name in own_settings(judge))
    return (chosen_by, *JUDGING, *own, *(teaching_keys(config) if "teacher" in judge.asks else ()))


def teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what the teacher says; where its server is, or what it may cost, does not."""
    if not isinstance(config.teacher, OpenAITeacher):
        return ("teacher",)
    return tuple(f"teacher.{f.name}" for f in fields(OpenAITeacher) if f.name not in HOW_IT_IS_REACHED)


def orm_teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """The same for the ORM's stages, which ask a teacher that is a model where the data has no solution or checker."""
    return teaching_keys(config) if isinstance(config.teacher, (OpenAITeacher, StudentTeacher)) else ()
