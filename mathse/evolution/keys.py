"""The settings that stages depend on, as lists of keys. docs/design.md has the contract of stage identity.

A key covers the setting and all settings below it. A finished stage is reused only if the values of its keys are equal.
Settings that change no byte of the result are in no list, such as the address of a server or a budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from mathse.config import flatten
from mathse.config.fits import SFT, FitStage
from mathse.config.generators import ServerGenerator, VLLMGenerator
from mathse.config.judges import Judge, judge_named, own_settings
from mathse.config.schema import TrainConfig
from mathse.config.setting import identity_settings
from mathse.config.teachers import OpenAITeacher, StudentTeacher
from mathse.config.updates import DPOUpdateConfig, SFTUpdateConfig
from mathse.runs.fit_ranks import RANKS

FIT_STAGES = get_args(FitStage)
# Settings of every stage with a model
COMMON = (
    "seed",
    "backbone",
    "data",
    "task_domain",
    *(f"trainer.{name}" for name in ("precision", "accelerator", "sampling_dtype")),
)
# Settings of every fit of a student
SFT_KEYS = (
    *(f"sft.{field.name}" for field in fields(SFT) if field.name not in FIT_STAGES),
    "sft.train_sha256",
    "lightning_callbacks",
)
# Settings of DPO, before updates were options
DPO_SETTINGS = ("beta", "label_smoothing", "nll_weight", "lr_scale", "epochs", "pairs_per_problem")
# Settings of every judge
JUDGING = ("judge.checkpoint", "judge.threshold", "judge.batch_size", "judge.max_new_tokens")


def flatten_for_identity(config: TrainConfig) -> dict[str, Any]:
    """Return the settings by dotted key, in the form that stage identities hash.

    The first runs had one section ``judge`` with 16 settings for all judges, and one precision, bf16-mixed, for all
    machines. Identities keep this form:

    - ``judge.name`` replaces the class of the judge,
    - the keys of ``JUDGING`` count for every judge,
    - a judge named by ``distill.judge`` has its settings, such as ``rate``, under ``judge`` too,
    - precision ``fastest`` counts as bf16-mixed: the machine of a stage is no part of its identity,
    - ``evolution.update`` is a name for SFT and DPO, and the settings of DPO are under ``evolution.dpo``.

    A setting that a judge got later is in ``LATER`` (mathse/runs/settings.py).
    """
    chosen = config.distill.judge
    flat = flatten(config)
    if not isinstance(chosen, Judge):
        judge = judge_named(chosen, config.judge)
        flat = {f"judge.{name}": getattr(judge, name) for name in own_settings(judge)} | flat
    if flat["trainer.precision"] == "fastest":
        flat["trainer.precision"] = "bf16-mixed"

    earlier_name = _earlier_name(config.evolution.update)
    if earlier_name is not None:
        section = "evolution.update."
        settings = {key.removeprefix(section): flat.pop(key) for key in [*flat] if key.startswith(section)}
        flat["evolution.update"] = earlier_name
        flat |= {f"evolution.dpo.{name}": settings[name] for name in DPO_SETTINGS if name in settings}
    return flat


def list_sampling_keys(config: TrainConfig) -> tuple[str, ...]:
    """Return the settings of sampling, without the address of a server."""
    generator = config.generator
    if not isinstance(generator, (ServerGenerator, VLLMGenerator)):
        return ("generator",)
    return tuple(f"generator.{name}" for name in identity_settings(type(generator)))


def list_student_keys(config: TrainConfig) -> tuple[str, ...]:
    """Return the settings of a stage that samples from a student and has no fit."""
    return (*COMMON, *SFT_KEYS, "evaluation", *list_sampling_keys(config))


def list_fitting_keys(config: TrainConfig, stage: FitStage | None = None) -> tuple[str, ...]:
    """Return the settings of a stage that samples from a student and fits a student.

    Args:
        stage: the section of ``sft`` that applies to this kind of stage. None: no section.
    """
    section = (f"sft.{stage}",) if stage is not None else ()
    return (*list_student_keys(config), *section, *RANKS)


def list_updating_keys(config: TrainConfig) -> tuple[str, ...]:
    """Return the settings of the update; no key for SFT, which has none."""
    update = config.evolution.update
    if isinstance(update, Mapping):
        return ("evolution.update",)
    name = _earlier_name(update)
    if name is not None:
        return () if name == "sft" else ("evolution.update", "evolution.dpo")
    return tuple(f"evolution.update.{setting}" for setting in identity_settings(type(update)))


def _earlier_name(update: Any) -> str | None:
    """Return the value of ``evolution.update`` when it had three; None for another update."""
    if isinstance(update, Mapping) or update._target_ != type(update)._target_:  # a class of the user's own
        return None
    if isinstance(update, DPOUpdateConfig):
        return "sft_then_dpo" if update.sft_first else "dpo"
    return "sft" if isinstance(update, SFTUpdateConfig) else None


def list_judging_keys(config: TrainConfig, path: str) -> tuple[str, ...]:
    """Return the settings of a judge's verdicts. The stages of the ORM itself do not use this list: their held-out
    verdicts are always explained.

    Args:
        path: "judge" or "distill.judge", which is a name or a section.
    """
    chosen = config.judge if path == "judge" else config.distill.judge
    judge = judge_named(chosen, config.judge)
    chosen_by, section = (f"{path}.name", path) if isinstance(chosen, Judge) else (path, "judge")
    return (
        chosen_by,
        *JUDGING,
        "judge.explain",
        *(f"{section}.{name}" for name in own_settings(judge)),
        *(list_teaching_keys(config) if "teacher" in judge.asks else ()),
    )


def list_teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """Return the settings of the teacher's answers, without the address of its server and its budget."""
    if not isinstance(config.teacher, OpenAITeacher):
        return ("teacher",)
    return tuple(f"teacher.{name}" for name in identity_settings(OpenAITeacher))


def list_orm_teaching_keys(config: TrainConfig) -> tuple[str, ...]:
    """Return the settings of the teacher's answers for the stages of the ORM. They use a teacher only if it is a model,
    for problems without a solution or a step checker."""
    return list_teaching_keys(config) if isinstance(config.teacher, (OpenAITeacher, StudentTeacher)) else ()
