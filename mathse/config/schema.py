"""The settings: one dataclass a group, its defaults, and what each value may be.

These are the truth at run time. Where a group has a ``_target_``, its other fields are that class's keyword arguments
(a test compares them). A ``Literal`` names choices, ``allow(...)`` a range; ``mathse.config.parse`` enforces both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mathse.config.allow import allow
from mathse.config.backbones import (
    HF,
    CausalLM,
    CogVLM2,
    InternVL25,
    Qwen2VL,
    SmolLM2,
    SmolLM2Vision,
    TinyBackbone,
)
from mathse.config.data import Decontaminate, HubData, JsonlData, MixtureData, PublicData, SyntheticData, WordProblems
from mathse.config.evaluation import BENCHMARKS, LLM, Evaluation, RewardModel
from mathse.config.evolution import NOBODY, Distill, Evolution
from mathse.config.fits import ORM, SFT
from mathse.config.generators import HFGenerator, ServerGenerator, VLLMGenerator
from mathse.config.judges import JUDGES, ORMJudge, judge_named
from mathse.config.task_domains import TaskDomain
from mathse.config.teachers import FallibleReplayTeacher, OpenAITeacher, ReplayTeacher, StudentTeacher, SymbolicTeacher


@dataclass
class Trainer:
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"  # auto: a GPU where torch finds one
    devices: int = allow(1, low=1)  # of a machine; several machines: start with torchrun or srun
    strategy: Literal["auto", "ddp", "fsdp2", "deepspeed"] = "auto"  # docs: mathse/training/strategies.py
    # of the fits; -true: of the weights too; fastest: bf16-mixed on a GPU and on a CPU that multiplies bfloat16 faster
    # than float32, which is tried for 50 ms, else 32-true
    precision: Literal["fastest", "32-true", "bf16-mixed", "bf16-true"] = "fastest"
    # what samples and judges outside of fits; null: float32 on a CPU, the fits' precision on a GPU; fastest: bfloat16
    # on such a CPU too (rounding then depends on the machine)
    sampling_dtype: Literal["float32", "bfloat16", "fastest"] | None = None
    threads: int = allow(1, low=1)  # torch threads; results are equal bit for bit only at an equal number
    workers: int = allow(0, low=0)  # loader processes
    # how often all ranks are started again after one has died; they go on from the last resume point (for the ranks
    # that the command starts itself: torchrun has --max-restarts)
    max_restarts: int = allow(3, low=0)
    # in a fit's steps, how long ranks wait for one that does not come before they count it as stuck
    timeout_minutes: float = allow(10.0, above=0)
    # where sft.tower_features are kept; null: a folder in the user's cache; for several machines, one that all see
    tower_features_folder: str | None = None
    tower_features_gb: float = allow(200.0, above=0)  # GiB that it may take; what was used longest ago goes
    checkpoint_every: int | None = allow(100, low=1)  # optimiser steps between resume points; null: none by steps
    checkpoint_minutes: float | None = allow(None, above=0)  # the same by time; a kill loses what comes first of both
    log_every: int = allow(10, low=1)  # optimiser steps between two lines of train_log.jsonl
    # a fit stops when its gradient norm stays above so many times its median (docs: mathse/training/divergence.py);
    # null: only when its loss or norm is no number
    max_grad_norm_ratio: float | None = allow(100.0, above=1)
    # what memory estimates are compared with, such as 80GiB; null: what the GPU, or this machine, has
    device_memory: str | None = None


@dataclass
class CsvLogger:
    """metrics.csv and fits.csv, which every run writes, and nothing else."""

    _target_: str = "mathse.reporting.loggers.CsvLogger"


@dataclass
class WandbLogger:
    """Weights & Biases: one run for the whole evolution (docs: mathse/reporting/loggers/wandb)."""

    _target_: str = "mathse.reporting.loggers.wandb.WandbLogger"
    project: str = "mathse"  # the W&B project
    entity: str | None = None  # a user or a team; null: the login's own
    group: str | None = None  # null: the study
    mode: Literal["online", "offline", "disabled"] | None = None  # null: WANDB_MODE decides


@dataclass
class SeveralLoggers:
    """What logger=[wandb,tensorboard] becomes: a section for each, beside the tables that every run writes."""

    _target_: str = "mathse.reporting.loggers.RunLoggers"
    loggers: Any = field(default_factory=dict)  # by name, each a logger section with its _target_


@dataclass
class MergeCorrectPaths:
    _target_: str = "mathse.evolution.callbacks.MergeCorrectPaths"


@dataclass
class ReflectOnErrors:
    _target_: str = "mathse.evolution.callbacks.ReflectOnErrors"


@dataclass
class EvaluateStudent:
    _target_: str = "mathse.evolution.callbacks.EvaluateStudent"


@dataclass
class TrainConfig:
    """python train.py"""

    name: str = "run"  # outputs/<name>/<time>
    study: str | None = None  # the study that this run belongs to (conf/experiment/<study>/)
    variant: str | None = None  # which of the study's variants it is: what a dashboard groups by
    note: str | None = None  # a sentence that stands with the run's numbers, wherever they are shown
    # the whole of Algorithm 1; or one fit on sft.train; or the ORM; or the teacher's filtered solutions, without a fit
    task: Literal["evolve", "sft", "orm", "distill"] = "evolve"
    seed: int = allow(0, low=0)  # of everything that is drawn by chance
    # last: go on with the newest unfinished run of this name; branch: reuse the stages that other settings left alike
    resume: Literal["last", "branch"] | None = None
    resume_from: list[str] = field(default_factory=list)  # resume=branch: run folders whose stages may be reused
    progress: Literal["auto", "rich", "plain", "off"] = "auto"  # bars (rich), lines (plain); auto: by the terminal
    plan: bool = False  # print what the run would do, ask and cost, and do nothing (docs: mathse/commands/plan)
    backbone: Any = field(default_factory=TinyBackbone)
    data: Any = field(default_factory=SyntheticData)
    task_domain: Any = field(default_factory=TaskDomain)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    teacher: Any = field(default_factory=SymbolicTeacher)
    judge: Any = field(default_factory=ORMJudge)
    generator: Any = field(default_factory=HFGenerator)
    sft: SFT = field(default_factory=SFT)
    orm: ORM = field(default_factory=ORM)
    distill: Distill = field(default_factory=Distill)
    evolution: Evolution = field(default_factory=Evolution)
    evaluation: Evaluation = field(default_factory=Evaluation)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Any = field(default_factory=CsvLogger)
    callbacks: Any = field(default_factory=dict)  # evolution callbacks by name, each with a _target_
    # callbacks of Lightning's Trainer by name, each with a _target_; built anew for every fit, called on rank 0
    lightning_callbacks: Any = field(default_factory=dict)


def needs_orm(config: TrainConfig) -> bool:
    """Whether anything in a run with these settings asks the ORM."""
    reflect = config.evolution.reflect
    chosen: list[Any] = []
    if config.task == "evolve":
        chosen += [config.judge.name]
        chosen += [reflect.feedback] if reflect.when != "never" and reflect.feedback != NOBODY else []
    if config.task in ("evolve", "distill", "orm"):
        chosen += [config.distill.judge]
    return config.task == "orm" or any("orm" in judge_named(judge, config.judge).asks for judge in chosen)


def is_fitted_on(config: TrainConfig, stage: str) -> bool:
    """Whether a later fit of the run may start from the checkpoint of ``stage``."""
    if stage == "orm/solver":
        return True
    student = config.task == "evolve" and stage != "final" and stage.partition("/")[0] != "orm"
    return student and "previous" in (config.evolution.init, config.evolution.reflect.init)


def chosen_callbacks(config: TrainConfig) -> list[Any]:
    """The evolution callbacks of a run, in order.

    ``evolution.reflect.when=never`` switches reflection off by leaving its callback out; ``'~callbacks.reflect'`` does
    the same by hand. (Who asks the ORM goes by ``when`` alone: a callback of the user's own may reflect in its place.)
    """
    never = config.evolution.reflect.when == "never"
    return [c for c in config.callbacks.values() if not (never and isinstance(c, ReflectOnErrors))]


@dataclass
class EvaluateConfig:
    """python evaluate.py"""

    name: str = "evaluate"  # outputs/<name>/<time>
    seed: int = allow(0, low=0)  # random seed for samples, and for synthetic problems that are of no run
    checkpoint: str | None = None  # a model's folder; the settings of the run that made it take the place of defaults
    predictions: str | None = None  # instead of a model: its answers, rows {"id", "response", "extraction"?}
    partial: bool = False  # score a predictions file that lacks problems, over those that it has
    benchmark: Any = field(default_factory=dict)  # by name, each with a _target_ and its options
    limit: int | None = allow(None, low=1)  # the first so many problems of each benchmark; null: all
    n_samples: int = allow(1, low=1)  # a problem
    decoding: Literal["greedy", "sampling"] | None = None  # null: greedy where n_samples=1
    selector: Literal["first", "majority", "orm", "orm_weighted"] = "first"  # which sample is the answer
    map_marker: bool | None = None  # score "The answer ... is x" as a box; null: for models here, not for files
    check_against: str | None = None  # a train.jsonl: which of its rows are in the benchmark
    error_types: bool = False  # Figure 4: the LLM says of each wrong answer what kind of mistake it is
    progress: Literal["auto", "rich", "plain", "off"] = "auto"  # bars (rich), lines (plain); auto: by the terminal
    backbone: Any = field(default_factory=TinyBackbone)
    data: Any = field(default_factory=SyntheticData)
    task_domain: Any = field(default_factory=TaskDomain)
    generator: Any = field(default_factory=HFGenerator)
    evaluation: Evaluation = field(default_factory=lambda: Evaluation(limit="${limit}"))  # type: ignore[arg-type]
    judge: RewardModel = field(default_factory=RewardModel)
    llm: LLM = field(default_factory=LLM)
    trainer: Trainer = field(default_factory=Trainer)


# A group whose options are classes: the schemas known here. Any other `_target_` is checked against its own signature.
OPTIONS: dict[str, tuple[type, ...]] = {
    "backbone": (TinyBackbone, Qwen2VL, InternVL25, CogVLM2, CausalLM, SmolLM2, SmolLM2Vision, HF),
    "task_domain": (TaskDomain,),
    "data": (SyntheticData, JsonlData, PublicData, HubData, MixtureData, WordProblems),
    "teacher": (SymbolicTeacher, ReplayTeacher, OpenAITeacher, StudentTeacher, FallibleReplayTeacher),
    "judge": JUDGES,
    "generator": (HFGenerator, ServerGenerator, VLLMGenerator),
    "logger": (CsvLogger, WandbLogger, SeveralLoggers),
    "callbacks": (MergeCorrectPaths, ReflectOnErrors, EvaluateStudent),
    "benchmark": BENCHMARKS,
}
# of which several are chosen: a section each, by name; lightning_callbacks has no options of ours
NAMED = ("callbacks", "lightning_callbacks", "benchmark")
PROGRAMS: dict[type, str] = {TrainConfig: "train", EvaluateConfig: "evaluate"}  # conf/<program>.yaml, <program>.py
