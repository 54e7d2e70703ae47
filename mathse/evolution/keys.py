"""Which settings decide what a stage makes. A key stands for the setting and for all below it; a change to one of them
makes the stage another stage. What is left out changes no byte of the result: where a server is, what it may cost.
"""

from __future__ import annotations

from dataclasses import fields

from mathse.config.actors import (
    HOW_IT_IS_REACHED,
    HOW_STUDENTS_ARE_REACHED,
    OpenAITeacher,
    ServerGenerator,
    StudentTeacher,
)
from mathse.config.schema import TrainConfig

COMMON = ("seed", "backbone", "data", "trainer.precision", "trainer.accelerator", "trainer.devices", "trainer.strategy")
JUDGING = ("judge.checkpoint", "judge.threshold", "judge.batch_size", "judge.max_new_tokens")


def sampling_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what a student writes; where it is served does not."""
    if not isinstance(config.generator, ServerGenerator):
        return ("generator",)
    return tuple(f"generator.{f.name}" for f in fields(ServerGenerator) if f.name not in HOW_STUDENTS_ARE_REACHED)


def fitting_keys(config: TrainConfig) -> tuple[str, ...]:
    return (*COMMON, "sft", "evaluation", *sampling_keys(config))


def judging_keys(config: TrainConfig, name_key: str, name: str) -> tuple[str, ...]:
    """The settings of a judge: ``rate`` matters to the controls alone, the teacher's to the teacher."""
    own = {"random": ("judge.rate",), "noisy": ("judge.rate",), "teacher": teaching_keys(config)}.get(name, ())
    return (name_key, *JUDGING, *own)


def teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what the teacher says; where its server is, or what it may cost, does not."""
    if not isinstance(config.teacher, OpenAITeacher):
        return ("teacher",)
    return tuple(f"teacher.{f.name}" for f in fields(OpenAITeacher) if f.name not in HOW_IT_IS_REACHED)


def orm_teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """The same for the ORM's stages, which ask a teacher that is a model where the data has no solution or checker."""
    return teaching_keys(config) if isinstance(config.teacher, (OpenAITeacher, StudentTeacher)) else ()
