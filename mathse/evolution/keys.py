"""Which settings decide what a stage makes.

A key stands for the setting and for all settings below it. They are part of the stage's identity: after a change to one
of them, a finished stage is not reused. Settings that change no byte of the result are left out: the address of a
server, a budget.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from mathse.config import flatten
from mathse.config.fits import FitStage, SFTConfig
from mathse.config.generators import ServerGeneratorConfig, VLLMGeneratorConfig
from mathse.config.judges import JudgeConfig, judge_named, list_own_settings
from mathse.config.schema import TrainConfig
from mathse.config.setting import identity_settings
from mathse.config.teachers import OpenAITeacherConfig, StudentTeacherConfig
from mathse.runs.fit_ranks import RANKS

COMMON = (
    "seed",
    "backbone",
    "data",
    "task_domain",
    *(f"trainer.{name}" for name in ("precision", "accelerator", "sampling_dtype")),
)
JUDGING = ("judge.checkpoint", "judge.threshold", "judge.batch_size", "judge.max_new_tokens")


def recorded_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings by dotted key, in the form in which stage identities hold them.

    The first runs had one ``judge`` section of 16 settings for whoever judged. Identities keep its keys: a judge's
    ``name`` stands for its class, ``judge.checkpoint``, ``threshold``, ``batch_size`` and ``max_new_tokens`` count for
    every judge (``JUDGING``), and a judge that ``distill.judge`` names has its own settings, ``rate`` say, under
    ``judge`` too. A setting that a judge got later is in ``LATER`` (mathse/runs/settings.py). Fits had one precision
    on every machine, bf16-mixed, which ``fastest`` is counted as: on whose machine a stage was made is no part of it.
    """
    chosen = config.distill.judge
    judge = judge_named(chosen, config.judge)
    of_the_judge = (
        {} if isinstance(chosen, JudgeConfig) else {f"judge.{n}": getattr(judge, n) for n in list_own_settings(judge)}
    )
    flat = of_the_judge | flatten(config)
    if flat["trainer.precision"] == "fastest":
        flat["trainer.precision"] = "bf16-mixed"
    return flat


def sampling_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what a student writes; the address of its server does not."""
    generator = config.generator
    if not isinstance(generator, (ServerGeneratorConfig, VLLMGeneratorConfig)):
        return ("generator",)
    return tuple(f"generator.{name}" for name in identity_settings(type(generator)))


FIT_STAGES = get_args(FitStage)
# of every fit of a student
SFT_KEYS = (
    *(f"sft.{f.name}" for f in fields(SFTConfig) if f.name not in FIT_STAGES),
    "sft.train_sha256",
    "lightning_callbacks",
)


def student_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what students are and write, in a stage that fits none."""
    return (*COMMON, *SFT_KEYS, "evaluation", *sampling_keys(config))


def fitting_keys(config: TrainConfig, stage: FitStage | None = None) -> tuple[str, ...]:
    """The same in a stage that fits one, with what ``sft`` sets apart for this kind of stage."""
    own = (f"sft.{stage}",) if stage is not None else ()
    return (*student_keys(config), *own, *RANKS)


def updating_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings of a fit that learns from pairs; none where no fit does."""
    return () if config.evolution.update == "sft" else ("evolution.update", "evolution.dpo")


def judging_keys(config: TrainConfig, path: str) -> tuple[str, ...]:
    """The settings that decide the verdicts of the judge at ``path``, "judge" or "distill.judge" (name or section)."""
    chosen = config.judge if path == "judge" else config.distill.judge
    judge = judge_named(chosen, config.judge)
    chosen_by, section = (f"{path}.name", path) if isinstance(chosen, JudgeConfig) else (path, "judge")
    of_this_judge = (f"{section}.{name}" for name in list_own_settings(judge))
    # without what the ORM's own stages depend on: their held-out verdicts are always explained
    return (
        chosen_by,
        *JUDGING,
        "judge.explain",
        *of_this_judge,
        *(teaching_keys(config) if "teacher" in judge.asks else ()),
    )


def teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """The settings that decide what the teacher writes; its server's address and its budget do not."""
    if not isinstance(config.teacher, OpenAITeacherConfig):
        return ("teacher",)
    return tuple(f"teacher.{name}" for name in identity_settings(OpenAITeacherConfig))


def orm_teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """The same for the ORM's stages, which ask a teacher that is a model where the data has no solution or checker."""
    return teaching_keys(config) if isinstance(config.teacher, (OpenAITeacherConfig, StudentTeacherConfig)) else ()
